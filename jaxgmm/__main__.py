"""`python -m jaxgmm`: the command."""

import sys

from jaxgmm.cli import main

sys.exit(main())
