"""Publishing capabilities to nodes and taking them back, gate by gate."""
