"""The coordinator of a fleet: takes jobs, decides on which host each runs, and tells the hosts."""
