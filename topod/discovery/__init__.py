"""From a machine, or from captured text, to a `Topology`."""
