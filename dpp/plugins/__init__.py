"""Loading plugins, configuring their steps, and writing new ones."""
