"""The node daemon: wires the core to the adapters and serves requests."""
