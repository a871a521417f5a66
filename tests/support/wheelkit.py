"""Wheels of the agent for tests: real ones, built from this tree under another version, and tiny ones."""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

from shared.wheel import LOCK

ROOT = Path(__file__).resolve().parents[2]
PACKED = (
    ".gitignore",
    "agent",
    "coordinator",
    "shared",
    "scripts/locks",
    "scripts/pagescripts.py",
    "scripts/wheelhook.py",
    "pyproject.toml",
    "README.md",
    "LICENSE",
)


def build_wheel(
    version: str,
    folder: Path,
    changes: Mapping[str, tuple[str, str]],
    without: tuple[str, ...] = (),
) -> Path:
    """This tree under `version`; `changes` maps a file to what is replaced in it, and by what. `without` names what
    is not copied."""
    left_out = shutil.ignore_patterns("__pycache__", *without)
    tree = folder / f"tree-{version}"
    for name in PACKED:
        source, target = ROOT / name, tree / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=left_out)
        else:
            shutil.copyfile(source, target)
    _replace(tree / "pyproject.toml", 'version = "0.1.0"', f'version = "{version}"')
    for name, (before, after) in changes.items():
        _replace(tree / name, before, after)
    argv = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(argv, cwd=tree, check=True, capture_output=True)
    shutil.rmtree(tree)
    return folder / f"rollcall-{version}-py3-none-any.whl"


def _replace(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    if before not in text:
        raise ValueError(f"{path} does not hold {before!r}")
    path.write_text(text.replace(before, after, 1))


def download_dependencies(folder: Path) -> Path:
    """What the agent's lock pins, for this platform, from the index that pip is configured with."""
    argv = [sys.executable, "-m", "pip", "download", "--quiet", "--require-hashes"]
    argv += [
        "--only-binary",
        ":all:",
        "-r",
        str(ROOT / "scripts/locks/agent.txt"),
        "-d",
        str(folder),
    ]
    subprocess.run(argv, check=True, capture_output=True)
    return folder


def pack(folder: Path, name: str, version: str, files: Mapping[str, str]) -> Path:
    """A wheel of these files (PEP 427)."""
    about = f"{name}-{version}.dist-info"
    whole = {
        **files,
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\n"
        "Tag: py3-none-any\n",
    }
    lines = [f"{path},sha256={_digest(text)},{len(text)}" for path, text in whole.items()]
    whole[f"{about}/RECORD"] = "\n".join([*lines, f"{about}/RECORD,,", ""])
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in whole.items():
            archive.writestr(path, text)
    return wheel


def _digest(text: str) -> str:
    raw = hashlib.sha256(text.encode()).digest()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def tiny_agent(
    folder: Path, version: str, *, init: str = "", lock: bool = True
) -> tuple[Path, Path]:
    """A wheel that installs like the agent's and does nothing, and a folder with its one dependency."""
    wheels = folder / "wheels"
    wheels.mkdir(exist_ok=True)
    dependency = pack(wheels, "tinydep", "1.0", {"tinydep.py": "SIZE = 'tiny'\n"})
    files = {
        "agent/__init__.py": f"import tinydep\n__version__ = {version!r}\n{init}",
        "agent/cli/__init__.py": "",
        "agent/cli/node.py": "",
        "agent/daemon.py": "",
    }
    if lock:
        digest = hashlib.sha256(dependency.read_bytes()).hexdigest()
        files[LOCK] = f"tinydep==1.0 \\\n    --hash=sha256:{digest}\n"
    return pack(folder, "rollcall", version, files), wheels
