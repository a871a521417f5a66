"""The host under the agent: its service manager, what it can do, and how the agent is put on it."""
