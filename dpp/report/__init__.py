"""Summarize, draw and export the outcomes of a run."""
