"""Which host of a fleet gets a job, and by which plan: exact, over all hosts at once. See `fleet.Fleet`."""
