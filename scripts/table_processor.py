"""The processor of the batches that ``screenshots.py`` runs: it reads a table, and takes it ill where a row is short."""

from __future__ import annotations

import csv
from typing import Any

from dpp import BaseProcessor, FileData


class Table(BaseProcessor):
    """Count the rows of a CSV file and take the mean of its last column."""

    name = "table"
    version = "3"

    def process(self, file: FileData) -> dict[str, Any]:
        """Return rows, columns and mean."""
        assert file.local_path is not None, "a processor gets a file that is there"
        with file.local_path.open(newline="") as stream:
            head, *rows = csv.reader(stream)
        for number, row in enumerate(rows, 2):
            if len(row) != len(head):
                raise ValueError(f"line {number} has {len(row)} fields, expected {len(head)}")
        return {"rows": len(rows), "columns": head, "mean": round(sum(float(row[-1]) for row in rows) / len(rows), 3)}
