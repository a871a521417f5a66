"""One verdict out of many probes; unknown is never green."""
