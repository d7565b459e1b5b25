"""The commands of the main job's two programs; the manifest is the next argument."""

from __future__ import annotations

import sys
from pathlib import Path

BIN = Path(sys.executable).parent
PROGRAMS = {"dpp": [BIN / "dpp", "run"], "luigi": [BIN / "luigi", "--module", "dpp", "RunBatch", "--files"]}
