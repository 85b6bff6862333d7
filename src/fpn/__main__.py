"""`python -m fpn`, which is also what `accelerate launch -m fpn train ...` starts."""

import sys

from fpn.cli import main

sys.exit(main())
