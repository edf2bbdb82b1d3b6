"""Placing a job: which CPUs go with which GPUs, and why nothing fits."""
