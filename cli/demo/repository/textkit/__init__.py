"""Small functions for text."""
