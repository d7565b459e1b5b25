"""The Luigi tasks of a batch and its files; the only package that imports Luigi."""

from __future__ import annotations

from dpp.streams import open_closed_streams
from dpp.tasks.loading import import_luigi

# Before Luigi is imported, as it opens files and prints.
open_closed_streams()
import_luigi()
