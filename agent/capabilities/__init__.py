"""Capabilities on this node: signed plugins and skills beside the release, put in and taken out by orders."""
