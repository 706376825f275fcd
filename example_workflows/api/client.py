#!/usr/bin/env python3
"""Run a workflow of guidance nodes from a program: queue it, follow it, read what the run tells of itself, fetch the picture.

    python client.py                                   on http://127.0.0.1:8188
    python client.py --server http://10.0.0.5:8188 --set pag.scale=2 --out pictures

Needs aiohttp, which ComfyUI has. See README.md in this folder for what each message and each error looks like.
"""

import argparse
import asyncio
import json
import sys
import uuid
from pathlib import Path
from urllib.parse import urlencode

import aiohttp

WORKFLOW = Path(__file__).parent / "workflow.json"


class Refused(Exception):
    """The server did not take the workflow, or a node ended it.

    errors: a list of {"node", "type", "message", "input"}; node and input are None where it is about no single one.
    """

    def __init__(self, errors):
        super().__init__("; ".join(f"{error['node']}: {error['message']}" for error in errors))
        self.errors = errors


def refusal(answer):
    """The errors of a 400: what each node has against its inputs, else what is wrong with the whole.

    ComfyUI repeats a node's own sentence for each input that the node checks itself; it is kept for the one it is about.
    """
    found = {}
    for node, told in (answer.get("node_errors") or {}).items():
        for error in told["errors"]:
            name = (error.get("extra_info") or {}).get("input_name")
            message = (error["details"] or error["message"]).removeprefix(f"{name} - ")
            if (node, message) not in found or message.startswith(str(name)):
                found[node, message] = {"node": node, "type": error["type"], "message": message, "input": name}
    whole = {"node": None, "type": answer["error"]["type"], "message": answer["error"]["message"], "input": None}
    return Refused(list(found.values()) or [whole])


class Client:
    """A connection to one ComfyUI.

    async with Client("http://127.0.0.1:8188") as client:
        run = await client.run(workflow, lambda value, most: print(value, most))
        run.told["pag"], run.applied, await client.picture(run.pictures[0])
    """

    def __init__(self, server):
        self.server, self.id = server.rstrip("/"), uuid.uuid4().hex

    async def __aenter__(self):
        self.session = aiohttp.ClientSession()
        try:
            self.socket = await self.session.ws_connect(f"{self.server}/ws?clientId={self.id}", max_msg_size=0)
        except BaseException:
            await self.session.close()
            raise
        return self

    async def __aexit__(self, *_):
        await self.socket.close()
        await self.session.close()

    async def run(self, workflow, progress=lambda value, most: None):
        """Queue a workflow in the API's form and wait for its end. Raises Refused."""
        body = {"prompt": workflow, "client_id": self.id}
        async with self.session.post(f"{self.server}/prompt", json=body) as answer:
            if answer.status == 400:
                raise refusal(await answer.json())
            answer.raise_for_status()
            number = (await answer.json())["prompt_id"]
        run = Run(number)
        async for message in self.socket:
            if message.type == aiohttp.WSMsgType.TEXT and run.hears(json.loads(message.data), progress):
                return run
        raise ConnectionError("the server closed the connection before the run was over")

    async def picture(self, file):
        """The bytes of a file that a run has saved."""
        async with self.session.get(f"{self.server}/view?{urlencode(file)}") as answer:
            answer.raise_for_status()
            return await answer.read()


class Run:
    """What a run tells of itself.

    told: for each guidance node its line, as the page shows it under the node. applied: for each node whose schedule was
    used, [{"sigma", "percent", "step", "value"}, ...]. pictures: files, for `Client.picture`.
    """

    def __init__(self, number):
        self.number, self.told, self.applied, self.pictures = number, {}, {}, []

    def hears(self, message, progress):
        """Take in one message of the server; whether it was the last one. Raises Refused where a node has failed."""
        kind, data = message["type"], message.get("data", {})
        if kind == "guidance.told":
            self.told[data["node"]] = data["text"]
        elif kind == "guidance.applied":
            self.applied = data["nodes"]
        if data.get("prompt_id", self.number) != self.number:
            return False
        if kind == "progress":
            progress(data["value"], data["max"])
        elif kind == "executed":
            self.pictures += (data.get("output") or {}).get("images", [])
        elif kind == "execution_error":
            said = data["exception_message"].strip()
            raise Refused([{"node": data["node_id"], "type": data["exception_type"], "message": said, "input": None}])
        elif kind == "execution_interrupted":
            raise Refused([{"node": data.get("node_id"), "type": kind, "message": "the run was interrupted", "input": None}])
        return kind == "execution_success" or (kind == "executing" and data.get("node") is None)


def changed(workflow, settings):
    """The workflow with inputs set: `pag.scale=2`, where the value is JSON or else a text."""
    for setting in settings:
        place, _, text = setting.partition("=")
        node, _, name = place.partition(".")
        if node not in workflow or not name:
            raise SystemExit(f"--set {setting!r} names no node of the workflow; it has to be like pag.scale=2.")
        try:
            workflow[node]["inputs"][name] = json.loads(text)
        except json.JSONDecodeError:
            workflow[node]["inputs"][name] = text
    return workflow


async def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", default="http://127.0.0.1:8188")
    parser.add_argument("--workflow", type=Path, default=WORKFLOW, help="in the API's form")
    parser.add_argument("--set", action="append", default=[], metavar="NODE.INPUT=VALUE", help="change an input")
    parser.add_argument("--out", type=Path, default=Path("."), help="folder for the pictures")
    options = parser.parse_args()
    workflow = changed(json.loads(options.workflow.read_text(encoding="utf-8")), options.set)
    try:
        async with Client(options.server) as client:
            run = await client.run(workflow, lambda value, most: print(f"step {value} of {most}", flush=True))
            for node, line in run.told.items():
                print(f"{node}: {line}")
            for node, points in run.applied.items():
                print(f"{node}: " + ", ".join(f"{point['value']:g}" for point in points))
            options.out.mkdir(parents=True, exist_ok=True)
            for file in run.pictures:
                target = options.out / Path(file["filename"]).name
                target.write_bytes(await client.picture(file))
                print(f"saved: {target}")
    except Refused as refused:
        print(json.dumps(refused.errors, indent=1), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
