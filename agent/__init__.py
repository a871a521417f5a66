"""The daemon on every node: upgrades OpenClaw, proves the result, tells its peers."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("rollcall")
except PackageNotFoundError:  # run from a checkout that was never installed
    __version__ = "0"
