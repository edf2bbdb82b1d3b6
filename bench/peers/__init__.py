"""The same scenario on a real Slurm and on topod, in one run: `python -m bench.peers`."""
