"""`lab hard fuzz`: whole prompts through the HTTP API, right ones and wrong ones, and what must never come of them.

A right prompt has to run. A wrong one may be refused, or be ended by a node in one sentence. A finding is all else: a 5xx, a
server that is gone or hangs, an error out of the depths of the pack, a picture that is no number, an event that no browser can
read. What the host does by itself, without the pack's nodes, is counted apart.
"""
import asyncio
import copy
import json
import random
from collections import Counter
from contextlib import nullcontext

from tqdm import tqdm

from .connection import BROKEN, FAILED, REFUSED, Connection, Gone
from .host import Host
from .menu import Menu
from .prompts import Drawing
from .verdict import fault, touches_us, without_ours
from .wrong import spoil

WRONG = 0.4  # the share of prompts that are spoilt
KEPT = 200  # prompts between two times that the history is cleared


def drawn(menu, seed, number):
    """The prompt of this number: (what /prompt takes, what is wrong with it)."""
    rng = random.Random(f"{seed}-{number}")
    nodes = Drawing(menu, rng).nodes
    return nodes, spoil(rng, nodes) if rng.random() < WRONG else []


class Fuzzer:
    def __init__(self, connection, menu, out, host=None):
        self.connection, self.menu, self.out, self.host = connection, menu, out, host
        self.counts, self.hosts, self.findings = Counter(), Counter(), []

    async def one(self, seed, number):
        """Run one prompt and count how it ended."""
        prompt, wrong = drawn(self.menu, seed, number)
        place = self.host.log.stat().st_size if self.host else 0
        try:
            ending = await self.connection.run(copy.deepcopy(prompt))
        except Gone as gone:
            self.found(seed, number, str(gone), prompt, wrong)
            raise
        kind = "ended by a node" if ending.kind == FAILED else ending.kind
        self.counts["wrong" if wrong else "right", kind] += 1
        found = fault(ending, wrong)
        if found is None:
            return
        if await self.is_hosts(ending, prompt, wrong, found, self.host.logged(place) if self.host else ""):
            self.hosts[found[:100]] += 1
        else:
            self.found(seed, number, found, prompt, wrong, ending.told)

    async def is_hosts(self, ending, prompt, wrong, found, log):
        """Whether the host is at fault: no file of ours had a part in it, or it is the same without our nodes."""
        if wrong and ending.kind in (BROKEN, REFUSED, FAILED) and not touches_us(ending, log):
            return ending.kind != BROKEN or bool(log)
        try:
            bare = await self.connection.run(without_ours(prompt))
        except (KeyError, TypeError, AttributeError, StopIteration):  # it has no form
            return False
        return bare.kind == ending.kind and fault(bare, []) == found

    def found(self, seed, number, what, prompt, wrong, told=None):
        self.findings.append((number, what))
        self.out.mkdir(parents=True, exist_ok=True)
        file = self.out / f"fuzz-{seed}-{number}.json"
        file.write_text(json.dumps({"found": what, "wrong": wrong, "told": told, "prompt": prompt}, indent=1), encoding="utf-8")
        tqdm.write(f"seed {seed}, prompt {number}: {what}\n  {file}")


async def fuzz(address, host, args):
    async with Connection(address) as connection:
        menu = Menu((await connection.ask("/object_info"))[1])
        fuzzer = Fuzzer(connection, menu, args.out, host)
        for number in tqdm(range(args.first, args.first + args.count), "fuzz", unit="prompt", mininterval=1):
            try:
                await fuzzer.one(args.seed, number)
            except Gone:
                break
            if number % KEPT == 0:
                await connection.ask("/history", {"clear": True})
        return fuzzer


def run(args):
    """Print what came of the prompts; whether there was no finding."""
    with nullcontext() if args.server else Host() as host:
        fuzzer = asyncio.run(fuzz(args.server or host.address, host, args))
    total = sum(fuzzer.counts.values())
    print(f"\n{total} prompts, seed {args.seed}, from number {args.first} on")
    for (what, kind), count in sorted(fuzzer.counts.items()):
        print(f"  {what:5} and {kind}: {count} ({count / total:.1%})")
    print(f"{sum(fuzzer.hosts.values())} faults of the host's own, without a part of ours:")
    for what, count in fuzzer.hosts.most_common():
        print(f"  {count} times {what}")
    print(f"{len(fuzzer.findings)} findings")
    return not fuzzer.findings
