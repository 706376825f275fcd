"""`python lab hard <what>`: hard tests of the whole pack in a ComfyUI server. Each ends with 1 if it has found something."""
import asyncio
import sys

from . import fuzz
from .chain import STEPS
from .clients import clients
from .connection import Gone
from .ends import interrupt, restart
from .host import Host
from .memory import memory
from .soak import soak

WHAT = {
    "soak": lambda host, args: soak(host, args.count, args.seed),
    "interrupt": lambda host, args: interrupt(host, range(1, STEPS + 1)),
    "restart": lambda host, args: restart(host),
    "clients": lambda host, args: clients(host, args.count, args.seed),
    "memory": lambda host, args: memory(host, (1, 2, 3), range(1, STEPS + 1)),
}


def run(args):
    if not (fuzz.run(args) if args.what == "fuzz" else passes(args)):
        sys.exit(1)


def passes(args):
    """Whether one of the tests that need a server of their own has found nothing; what it has found is printed."""
    with Host() as host:
        try:
            found = asyncio.run(WHAT[args.what](host, args))
        except Gone as gone:
            found = [f"the server is gone ({gone}); {host.tail()}"]
    print(*found, f"{args.what}: {len(found)} findings", sep="\n")
    return not found
