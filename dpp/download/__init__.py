"""Download and verify files, and apply the rules of HTTP."""
