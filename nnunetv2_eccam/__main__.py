"""``python -m nnunetv2_eccam``: the command line where the script is not on the path."""

import sys

from nnunetv2_eccam.cli import main

sys.exit(main())
