"""Verify and clean a workspace, predict a run, and show the history of a file."""
