"""One module per outside system: Docker, processes, NVML, sysfs, SQLite, ZeroMQ."""
