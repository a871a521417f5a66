"""The real OpenClaw, spoken to as OPENCLAW.md measured it."""
