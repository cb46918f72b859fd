"""`python -m fluidlab` is `fluidlab`."""

import sys

from fluidlab.cli import main

sys.exit(main())
