"""Showing a run while it lasts."""
