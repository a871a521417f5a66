"""What each page shows: pure functions of the API's models to what a template draws."""
