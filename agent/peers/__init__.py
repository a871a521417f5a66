"""The mesh: signed messages to every peer, found by hints and known by the roster."""
