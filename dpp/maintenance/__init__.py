"""Verifying and cleaning a workspace, and telling what a run would do or did."""
