"""What is asked of the API for each page, and what becomes of its forms."""
