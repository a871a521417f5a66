"""What agent and coordinator have in common: formats, keys, files and HTTP. Imports neither."""
