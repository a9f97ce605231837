"""`python -m pggrpo_cli` is `pggrpo`."""

from __future__ import annotations

import sys

from pggrpo_cli.cli import main

if __name__ == "__main__":
    sys.exit(main())
