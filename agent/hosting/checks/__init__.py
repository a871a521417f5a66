"""What preflight looks at, one file for each part of a host."""
