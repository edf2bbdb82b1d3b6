"""What the shells of a host and of a coordinator share: who may ask what, settings, log, faults."""
