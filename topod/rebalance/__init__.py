"""The fewest restarts that bring the free GPUs of a host together again."""
