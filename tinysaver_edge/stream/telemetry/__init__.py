"""What others learn of a stream: events, logs, metrics, health, promises kept."""
