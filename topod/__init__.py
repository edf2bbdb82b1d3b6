"""topod: topology-aware preemptive GPU scheduling for bare-metal hosts."""

__version__ = "0.1.0"
