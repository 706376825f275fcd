"""One client of a ComfyUI: it posts what it likes, right or wrong, and hears how that ends."""
import asyncio
import base64
import contextlib
import json
import uuid
from typing import Any, NamedTuple

import aiohttp
import numpy as np

PATIENCE = 60  # seconds for one prompt
REFUSED, BROKEN, DONE, FAILED, STOPPED = "refused", "broken", "done", "failed", "stopped"
OF_HISTORY = {"execution_success": DONE, "execution_error": FAILED, "execution_interrupted": STOPPED}


class Gone(Exception):
    """The server does not answer: it has ended, or it hangs."""


class Ending(NamedTuple):
    """How a prompt ended.

    kind: refused at /prompt, broken there with a 5xx, or run until it was done, failed or stopped. told: the answer, or what
    the history says of the error. outputs: by node. heard: events of the pack that no browser could read.
    """

    kind: str
    told: Any = None
    outputs: dict = {}
    heard: tuple[str, ...] = ()

    @property
    def latents(self):
        """What HardLook has seen, in fp32, one after the other."""
        seen = [text for output in self.outputs.values() for text in output.get("latent", [])]
        return np.frombuffer(b"".join(map(base64.b64decode, seen)), np.float32)


class Connection:
    """async with Connection(address) as connection: ending = await connection.run(prompt)"""

    def __init__(self, address):
        self.address, self.id = address.rstrip("/"), uuid.uuid4().hex

    async def __aenter__(self):
        self.session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PATIENCE))
        self.socket = await self.session.ws_connect(f"{self.address}/ws?clientId={self.id}", max_msg_size=0)
        return self

    async def __aexit__(self, *_):
        with contextlib.suppress(aiohttp.ClientError, asyncio.TimeoutError):
            await self.socket.close()
        await self.session.close()

    async def ask(self, path, body=None):
        """(status, the answer: decoded if it is JSON, else its text)"""
        method = self.session.get if body is None else self.session.post
        try:
            async with method(self.address + path, **({} if body is None else {"json": body})) as answer:
                if answer.content_type == "application/json":
                    return answer.status, await answer.json()
                return answer.status, await answer.text(errors="replace")
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
            raise Gone(f"{path.partition('?')[0]}: {type(error).__name__} {error}") from None

    async def run(self, prompt):
        """Post a prompt and wait for its end. Raises Gone."""
        status, answer = await self.ask("/prompt", {"prompt": prompt, "client_id": self.id})
        if status >= 500:
            return Ending(BROKEN, answer)
        if status != 200:
            return Ending(REFUSED, answer)
        try:
            heard = await asyncio.wait_for(self.until_over(answer["prompt_id"]), PATIENCE)
        except asyncio.TimeoutError:
            raise Gone(f"a prompt took more than {PATIENCE} s") from None
        return await self.ending(answer["prompt_id"], heard)

    async def until_over(self, number):
        """Hear the server out until the run of this number is over and in the history."""
        heard = []
        async for message in self.socket:
            if message.type != aiohttp.WSMsgType.TEXT:
                continue  # a preview
            told = json.loads(message.data)
            data = told.get("data") or {}
            if told["type"].startswith("guidance.") and not is_plain(message.data):
                heard.append(message.data)
            if told["type"] == "executing" and data.get("node") is None and data.get("prompt_id") == number:
                return tuple(heard)
        raise Gone("the server closed the connection")

    async def ending(self, number, heard):
        done = (await self.ask(f"/history/{number}"))[1][number]
        await self.ask("/history", {"delete": [number]})
        kind, told = next(((OF_HISTORY[kind], told) for kind, told in reversed(done["status"]["messages"])
                           if kind in OF_HISTORY), (FAILED, None))
        return Ending(kind, told, done["outputs"], heard)


def is_plain(text):
    """Whether this is JSON as a browser reads it, which knows neither NaN nor Infinity."""
    def refuse(word):
        raise ValueError(word)

    try:
        json.loads(text, parse_constant=refuse)
    except ValueError:
        return False
    return True
