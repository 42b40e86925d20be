"""The studio: the page at `/`, and how people sign in to it."""
