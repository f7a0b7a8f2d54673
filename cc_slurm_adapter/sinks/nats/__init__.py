"""NATS as a destination."""
