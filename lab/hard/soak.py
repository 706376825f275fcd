"""`lab hard soak`: one right prompt after the other on one server, whose memory, handles and threads must not grow."""
from tqdm import tqdm

from .connection import Connection
from .fuzz import drawn
from .menu import Menu

LOOKS = 5  # times that the server is looked at; what comes before the first is warming up
MORE = 1.1  # times the memory at the first look that there may be at the last; it also depends on the last prompt
MORE_OPEN = 5  # handles and threads


async def soak(host, count, seed):
    """Run so many right prompts."""
    every, held = max(1, count // LOOKS), []
    async with Connection(host.address) as connection:
        menu = Menu((await connection.ask("/object_info"))[1])
        bar, number = tqdm(total=count, desc="soak", unit="prompt"), 0
        with bar:
            while bar.n < count:
                prompt, wrong = drawn(menu, seed, number)
                number += 1
                if wrong:
                    continue
                await connection.run(prompt)
                bar.update()
                if bar.n % every == 0:
                    held.append(host.held())
                    bar.write(f"after {bar.n} prompts: {held[-1].megabytes:.0f} MiB, {held[-1].handles} handles, "
                              f"{held[-1].threads} threads")
    return grown(held[0], held[-1])


def grown(first, last):
    """What a server holds more of than it may: a sentence each."""
    found = []
    if last.megabytes > MORE * first.megabytes:
        found.append(f"memory went from {first.megabytes:.0f} to {last.megabytes:.0f} MiB")
    found += [f"{name} went from {getattr(first, name)} to {getattr(last, name)}" for name in ("handles", "threads")
              if getattr(last, name) > getattr(first, name) + MORE_OPEN]
    return found
