"""`python -m migration workflow.json`, in the pack's folder: `python dev.py migrate` for who has no dev.py."""

import sys

from .command import Refused, run

try:
    run(sys.argv[1:])
except Refused as refused:
    sys.exit(str(refused))
