"""Load plugins, configure their steps, and create new plugins."""
