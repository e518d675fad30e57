"""`python -m voxelsoup`: the command `voxelsoup`, of the package that Python finds first."""

from __future__ import annotations

import sys

from voxelsoup.commands.cli import main

if __name__ == "__main__":
    sys.exit(main())
