"""The repository root comes last on sys.path: nodes/ must not shadow the host's module `nodes`."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))
