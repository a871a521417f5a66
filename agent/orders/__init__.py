"""Orders of the coordinator to this node: what may be done now, doing it once, and telling how it ended."""
