"""Placing a job at least cost, by stopping others where needed: the exact planner."""
