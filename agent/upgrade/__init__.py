"""The move from one release to the next, and back: decide, do and remember apart."""
