"""`lab hard interrupt` and `lab hard restart`: what is left of a run that ended in its middle. Nothing: the next one is the
same, bit for bit, as the one before."""
import numpy as np
from tqdm import tqdm

from .chain import STEPS, everything
from .connection import DONE, STOPPED, Connection, Gone
from .menu import Menu


async def interrupt(host, steps):
    """Interrupt a run of everything at each of these steps, counted from 1."""
    async with Connection(host.address) as connection:
        menu = Menu((await connection.ask("/object_info"))[1])
        first = await connection.run(everything(menu))
        if first.kind != DONE:
            return [f"the run itself {first.kind}: {first.told}"]
        found = []
        for step in tqdm(steps, "interrupt", unit="step"):
            ending = await connection.run(everything(menu, "interrupt", step))
            again = await connection.run(everything(menu, "none", step))
            if ending.kind != STOPPED:
                found.append(f"step {step}: the run was not stopped but {ending.kind}: {ending.told}")
            found += differs(f"the run after an interrupt at step {step}", again, first)
        return found


async def restart(host):
    """Kill the server in the middle of a run, and run the same prompt on a new one."""
    async with Connection(host.address) as connection:
        menu = Menu((await connection.ask("/object_info"))[1])
        first = await connection.run(everything(menu))
        try:
            ending = await connection.run(everything(menu, "kill", STEPS // 2))
            return [f"the server was to be killed, and the run {ending.kind}"]
        except Gone:
            host.process.wait()
    host.start()
    async with Connection(host.address) as connection:
        return differs("the run on a server that was killed and started again", await connection.run(everything(menu)), first)


def differs(what, ending, first):
    """How a run differs from the first one: a list with one sentence, or none."""
    if ending.kind != DONE:
        return [f"{what} {ending.kind}: {ending.told}"]
    if np.array_equal(ending.latents, first.latents, equal_nan=True):  # the host makes NaN of some prompts
        return []
    return [f"{what} differs by {np.abs(ending.latents - first.latents).max():g}"]
