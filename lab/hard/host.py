"""The server of the hard tests: as dev.py starts one, with nodes that make trouble, and with a look at its process."""
import os
import sys
from pathlib import Path
from typing import NamedTuple

import psutil

from ...dev import PACK, ROOT, Server

TROUBLE = "HardTrouble"


class Host(Server):
    """ComfyUI with this pack and with trouble/. host: its folder; without one, the ComfyUI that this process has."""

    packs = {PACK: ROOT, TROUBLE: Path(__file__).parent / "trouble"}

    def __init__(self, host=None, **more):
        super().__init__(host or os.environ["PYTHONPATH"].split(os.pathsep)[0], sys.executable, **more)

    def held(self):
        """What its process holds now."""
        process = psutil.Process(self.process.pid)
        handles = process.num_handles() if os.name == "nt" else process.num_fds()
        return Held(process.memory_info().rss / 2**20, handles, process.num_threads())

    def logged(self, place=0):
        """What its log says from a place on."""
        with open(self.log, "rb") as log:
            log.seek(place)
            return log.read().decode(errors="replace")


class Held(NamedTuple):
    """megabytes: of memory, resident. handles: of files and sockets."""

    megabytes: float
    handles: int
    threads: int
