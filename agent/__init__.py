"""The daemon on every node: upgrades OpenClaw, proves the result, tells its peers."""
