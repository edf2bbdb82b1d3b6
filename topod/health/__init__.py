"""The health and the use of GPUs and CPUs: from what was read to what the core is told. Pure."""
