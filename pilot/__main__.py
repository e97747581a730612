"""python pilot ...: this folder as a program."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)
from pilot.cli import main  # noqa: E402 (the path comes first)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
