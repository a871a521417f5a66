"""Structured logs: JSON lines for machines, one file that we rotate ourselves (MACOS.md, 7)."""

from __future__ import annotations

import logging
import logging.handlers
import sys
from pathlib import Path

import structlog

MAX_LOG_BYTES = 8 << 20
KEPT_LOGS = 3


def _quiet_libraries() -> None:
    """python-tuf tells of every signature that is not there, also where the threshold is met."""
    for name in ("tuf", "securesystemslib"):
        logging.getLogger(name).setLevel(logging.WARNING)


def configure(path: Path | None = None, *, level: int = logging.INFO) -> None:
    """Log to `path`, rotated, or to stderr when there is none."""
    handler: logging.Handler
    if path is None:
        handler = logging.StreamHandler(sys.stderr)
    else:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handler = logging.handlers.RotatingFileHandler(
            path, maxBytes=MAX_LOG_BYTES, backupCount=KEPT_LOGS, encoding="utf-8"
        )
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(sort_keys=True),
            ],
            foreign_pre_chain=[
                structlog.stdlib.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
            ],
        )
    )
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    _quiet_libraries()
    structlog.configure(
        processors=[
            structlog.stdlib.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=True,
    )
