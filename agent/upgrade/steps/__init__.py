"""One phase a file. Each step is idempotent and says whether it is already done."""
