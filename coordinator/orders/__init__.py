"""Orders: their life as one table, the book that keeps them, and the sweep that looks for promises broken."""
