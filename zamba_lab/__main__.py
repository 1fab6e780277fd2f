"""`python -m zamba_lab`: the command line, for where its script is not on the path."""

import sys

from zamba_lab.cli import main

sys.exit(main())
