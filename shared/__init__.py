"""What agent and coordinator have in common: formats, keys, files and HTTP. Imports neither."""

from shared.lean import kept_out

with kept_out("rich", "greenlet", "colorama", "better_exceptions"):
    # Of structlog's console colours and its threads; 3 MiB of a daemon that writes JSON lines.
    import structlog  # noqa: F401
