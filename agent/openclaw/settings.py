"""openclaw.json: read as JSON5, changed by a release's overlay, written durably.

It lies where the gateway writes: neither it nor the state directory may be a link (fault 31).
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from shared.errors import BadInputError, UntrustedError
from shared.mergepatch import merge_patch
from shared.untrusted import Folder

CONFIG = "openclaw.json"
MAX_CONFIG_BYTES = 4 << 20
RELEASE_PLACE = "${release}"


def read_settings(state: Path) -> dict[str, Any]:
    """Raises BadInputError when the file is missing or is not an object, UntrustedError when it or its
    folder is a link."""
    return parse_settings(read_raw(state), state)


def read_raw(state: Path) -> bytes:
    """The configuration as it lies there. Raises like `read_settings`."""
    try:
        with Folder.guarded(state) as folder:
            return folder.read(CONFIG, max_bytes=MAX_CONFIG_BYTES)
    except OSError as error:
        raise BadInputError(f"{state / CONFIG} cannot be read: {error.strerror}") from error


def parse_settings(raw: bytes, state: Path) -> dict[str, Any]:
    """`raw` is the configuration of `state`. Raises BadInputError."""
    path = state / CONFIG
    try:
        text = raw.decode("utf-8")
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            import json5  # only who writes comments needs it

            value = json5.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInputError(f"{path} is not JSON5: {error}") from error
    if not isinstance(value, dict):
        raise BadInputError(f"{path} holds no object")
    return value


def last_touched_version(state: Path) -> str | None:
    """Which OpenClaw wrote the configuration last; an older one refuses to start (OPENCLAW.md, 5)."""
    try:
        meta = read_settings(state).get("meta")
    except BadInputError:
        return None
    version = meta.get("lastTouchedVersion") if isinstance(meta, dict) else None
    return version if isinstance(version, str) else None


def apply_overlays(state: Path, overlays: list[dict[str, Any]], tree: Path) -> None:
    """Merge the release's overlays, in order. Merging twice changes nothing more (RFC 7396). The file
    keeps its owner: the gateway's account goes on reading it."""
    if not overlays:
        return
    with Folder.guarded(state) as folder:
        settings: Any = parse_settings(folder.read(CONFIG, max_bytes=MAX_CONFIG_BYTES), state)
        for overlay in overlays:
            settings = merge_patch(settings, _placed(overlay, tree))
        folder.replace(CONFIG, (json.dumps(settings, indent=2) + "\n").encode())


def sweep_settings(state: Path) -> None:
    """What an agent that was killed while it wrote has left beside the configuration."""
    with contextlib.suppress(OSError, UntrustedError), Folder.guarded(state) as folder:
        folder.sweep_temporary(CONFIG)


def rewrite_settings(state: Path, patch: dict[str, Any], moved: dict[str, str]) -> None:
    """For a copy of a state: merge `patch`, and let what points into a folder of `moved` point to where
    that folder has gone."""
    with Folder.guarded(state) as folder:
        settings = parse_settings(folder.read(CONFIG, max_bytes=MAX_CONFIG_BYTES), state)
        settings = _moved(merge_patch(settings, patch), moved)
        folder.replace(CONFIG, (json.dumps(settings, indent=2) + "\n").encode())


def _moved(value: Any, moved: dict[str, str]) -> Any:
    if isinstance(value, list):
        return [_moved(each, moved) for each in value]
    if isinstance(value, dict):
        return {key: _moved(each, moved) for key, each in value.items()}
    if isinstance(value, str):
        for before, after in moved.items():
            if value == before or value.startswith(f"{before}/"):
                return after + value[len(before) :]
    return value


def _placed(value: Any, tree: Path) -> Any:
    if isinstance(value, str):
        return value.replace(RELEASE_PLACE, str(tree))
    if isinstance(value, list):
        return [_placed(each, tree) for each in value]
    if isinstance(value, dict):
        return {key: _placed(each, tree) for key, each in value.items()}
    return value
