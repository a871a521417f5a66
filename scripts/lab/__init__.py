"""Nodes of the mesh alone, each a process of its own: no gateway, no coordinator."""
