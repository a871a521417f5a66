"""The thin coordinator: says which release each node should run, and collects the answers."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("rollcall")
except PackageNotFoundError:  # run from a checkout that was never installed
    __version__ = "0"
