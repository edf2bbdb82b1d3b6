"""topod beside a real Slurm: the same states and requests on both, in one run."""
