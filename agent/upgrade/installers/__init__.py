"""How a release comes to stand where the gateway starts from: one file for each way."""
