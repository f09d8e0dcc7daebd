"""`python -m iapeer` is the `iapeer` command."""

from __future__ import annotations

import sys

from .cli.main import main

sys.exit(main())
