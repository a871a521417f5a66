"""Errors that the gateway logs: read as they come, reduced to their forms, and compared by release."""
