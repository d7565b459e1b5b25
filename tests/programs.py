"""The main job's two programs, as a user starts them; the list of files follows."""

from __future__ import annotations

import sys
from pathlib import Path

BIN = Path(sys.executable).parent
PROGRAMS = {"dpp": [BIN / "dpp", "run"], "luigi": [BIN / "luigi", "--module", "dpp", "RunBatch", "--files"]}
