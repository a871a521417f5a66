"""Packages that no registry has: the stand-in for OpenClaw, and the plugins that make a release bad."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from shared.npm import Npm
from shared.versions import OpenClawVersion

SUPPORT = Path(__file__).resolve().parents[2] / "tests" / "support"
SCHEMAS_SINCE, SCHEMAS = OpenClawVersion("2026.9.6"), {"state": 18, "agent": 23}


async def pack_standin(npm: Npm, version: str, folder: Path) -> Path:
    """The stand-in under a version of OpenClaw, packed by npm as publishing would."""
    source = folder / f"standin-{version}"
    shutil.copytree(SUPPORT / "openclaw-standin", source, dirs_exist_ok=True)
    path = source / "package.json"
    package = json.loads(path.read_text())
    package["version"] = version
    if OpenClawVersion(version) >= SCHEMAS_SINCE:
        package["openclaw"] = {"schemaVersions": SCHEMAS}
    path.write_text(json.dumps(package, indent=2))
    return await npm.pack(source, folder)


async def pack_plugin(npm: Npm, name: str, folder: Path) -> Path:
    source = folder / f"plugin-{name}"
    shutil.copytree(SUPPORT / "plugins" / name, source)
    return await npm.pack(source, folder)
