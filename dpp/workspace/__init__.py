"""Files on disk: names, atomic writes, locks, ledgers."""
