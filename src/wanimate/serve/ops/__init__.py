"""Operation: metrics, logs, health, traces."""
