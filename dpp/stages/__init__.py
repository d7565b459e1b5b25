"""What happens to one file: fetching it, checking it, working on it."""
