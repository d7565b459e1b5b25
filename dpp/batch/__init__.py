"""A batch and its runs."""
