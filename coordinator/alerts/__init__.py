"""What people must see to: rules find it, a ledger gives it a beginning and an end, channels tell of it."""
