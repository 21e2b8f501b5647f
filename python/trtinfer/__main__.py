"""`python -m trtinfer` is the command line."""

from __future__ import annotations

import sys

from trtinfer.cli import main

sys.exit(main())
