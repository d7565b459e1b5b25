"""Batches and their runs."""
