"""What host and coordinator tell Prometheus."""
