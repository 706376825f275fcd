"""`lab hard clients`: several clients at once with prompts of their own. Each gets what it gets alone."""
import asyncio
from contextlib import AsyncExitStack

from tqdm import tqdm

from .connection import DONE, Connection
from .ends import differs
from .fuzz import drawn
from .menu import Menu

CLIENTS = 8


async def clients(host, count, seed):
    """Run those of so many prompts that are right, one after the other and then by eight clients at once."""
    async with AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(Connection(host.address)) for _ in range(CLIENTS)]
        menu = Menu((await connections[0].ask("/object_info"))[1])
        numbers = [number for number in range(count) if not drawn(menu, seed, number)[1]]
        prompts = {number: drawn(menu, seed, number)[0] for number in numbers}
        alone = {number: await connections[0].run(prompts[number]) for number in tqdm(numbers, "alone", unit="prompt")}
        bar = tqdm(total=len(numbers), desc="together", unit="prompt")

        async def own(connection, part):
            found = []
            for number in part:
                ending = await connection.run(prompts[number])
                found += same(f"seed {seed}, prompt {number}", ending, alone[number])
                bar.update()
            return found

        with bar:
            parts = await asyncio.gather(*(own(connection, numbers[i::CLIENTS]) for i, connection in enumerate(connections)))
        return [sentence for part in parts for sentence in part]


def same(what, ending, alone):
    if alone.kind == DONE:
        return differs(what, ending, alone)
    return [] if ending.kind == alone.kind else [f"{what}: {ending.kind} beside others, and {alone.kind} alone"]
