"""`lab hard memory`: a forward that has no room for all rows, and one that runs out of memory."""
import numpy as np
from tqdm import tqdm

from .chain import everything
from .connection import DONE, FAILED, Connection
from .ends import differs
from .menu import Menu

NEAR = 1e-3  # of what the numbers of a split batch may differ, relative: another batch size is another order of additions


async def memory(host, rows, steps):
    """A run with room for so many rows in a forward, then runs that are out of memory at each of these steps."""
    async with Connection(host.address) as connection:
        menu = Menu((await connection.ask("/object_info"))[1])
        first = await connection.run(everything(menu))
        if first.kind != DONE:
            return [f"the run itself {first.kind}: {first.told}"]
        found = []
        for fit in rows:
            found += apart(fit, await connection.run(everything(menu, "little memory", fit)), first)
        for step in tqdm(steps, "out of memory", unit="step"):
            ending = await connection.run(everything(menu, "out of memory", step))
            if ending.kind != FAILED or "out of memory" not in ending.told["exception_message"]:
                found.append(f"step {step}: out of memory, and the run {ending.kind}: {ending.told}")
            again = await connection.run(everything(menu, "none", step))
            found += differs(f"the run after one that was out of memory at step {step}", again, first)
        return found


def apart(rows, ending, first):
    """How a run whose batches were split differs from one in which they were not."""
    if ending.kind != DONE:
        return [f"with {rows} rows at a time the run {ending.kind}: {ending.told}"]
    distance = np.linalg.norm(ending.latents - first.latents) / np.linalg.norm(first.latents)
    print(f"{rows} rows at a time: the same but for {distance:.1e}")
    return [] if distance < NEAR else [f"with {rows} rows at a time the latent differs by {distance:.1e}"]
