"""Rules about the project itself."""

from __future__ import annotations

import plistlib
import re
import subprocess
import tomllib
from importlib.metadata import distributions
from pathlib import Path

from scripts import phases

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {"agent", "coordinator", "shared"}


def tracked() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True
    ).stdout.decode()
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def test_no_other_distribution_provides_our_package_names() -> None:
    for distribution in distributions():
        if distribution.metadata["Name"] == "rollcall":
            continue
        tops = {
            Path(str(file)).parts[0]
            for file in distribution.files or []
            if str(file).endswith(".py")
        }
        assert not PACKAGES & tops, distribution.metadata["Name"]


def test_no_folder_of_tests_or_scripts_is_called_like_a_package() -> None:
    for top in ("tests", "scripts"):
        assert not PACKAGES & {path.name for path in (ROOT / top).rglob("*") if path.is_dir()}


def test_the_distribution_cannot_be_uploaded() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "Private :: Do Not Upload" in project["classifiers"]


def test_no_registry_address_stands_in_any_file() -> None:
    hosts = re.compile(r"registry\.npmjs|pypi\.org|pythonhosted|deb\.debian|--(extra-)?index-url")
    for path in tracked():
        if path == Path(__file__):
            continue
        found = hosts.search(path.read_text(errors="replace"))
        assert found is None, f"{path}: {found[0] if found else ''}"


def test_the_launchd_job_is_a_property_list_under_our_own_name() -> None:
    job = plistlib.loads((ROOT / "launchd" / "io.rollcall.agent.plist").read_bytes())
    assert job["Label"].startswith("io.rollcall.")
    assert job["KeepAlive"] is True
    assert job["ProgramArguments"][1:3] == ["run", "--home"]


def test_every_locked_requirement_has_hashes() -> None:
    for lock in (ROOT / "scripts" / "locks").glob("*.txt"):
        text = lock.read_text()
        names = re.findall(r"^[a-z0-9].*==\S+.*$", text, re.MULTILINE)
        assert names
        for block in re.split(r"\n(?=[a-z0-9])", text.strip()):
            assert "--hash=sha256:" in block, f"{lock.name}: {block.splitlines()[0]}"


def test_the_picture_of_the_phases_is_the_tables() -> None:
    assert phases.PAGE.read_text() == phases.page(), "write it anew: python -m scripts.phases"
