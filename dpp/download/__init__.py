"""Downloading and verifying a file, and the rules of HTTP."""
