"""`make demo`: topod on an emulated host, from an empty folder to a preemption and back."""
