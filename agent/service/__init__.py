"""Who keeps the gateway running: the one place that knows the platform."""
