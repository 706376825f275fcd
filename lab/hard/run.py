"""`python lab hard <what>`: hard tests of the whole pack in a ComfyUI server. Each ends with 1 if it has found something."""
import sys

from . import fuzz


def run(args):
    if not {"fuzz": fuzz.run}[args.what](args):
        sys.exit(1)
