"""Decides waves and reasons; its loop is the only one that writes a rollout."""
