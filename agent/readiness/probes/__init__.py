"""One probe a file. A probe reads; the merge judges freshness; nothing here raises a red."""
