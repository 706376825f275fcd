"""A ComfyUI server, by its HTTP API: a workflow goes to /prompt, its pictures come from /view."""
import http.client
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from io import BytesIO

import numpy as np
import torch
from PIL import Image

from .workflow import build

PAUSE = 0.1  # seconds between two looks
PATIENCE = 60  # seconds for one answer
MOST = 500  # characters of a refusal


class Lost(Exception):
    """A server does not answer, or no longer knows of a job."""


class Server:
    """One ComfyUI server. `Lost` is raised where another one may do better, ValueError where none would."""

    def __init__(self, address):
        self.address = address.rstrip("/")
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # most are near

    def versions(self):
        """(ComfyUI's, torch's)"""
        system = self.json("/system_stats")["system"]
        return system.get("comfyui_version", "unknown"), system.get("pytorch_version", "unknown")

    def draw(self, job):
        """The pictures of a job, (n, 3, h, w) as bytes, in the order of its prompts."""
        workflow, pictures = build(job)
        number = self.json("/prompt", {"prompt": workflow})["prompt_id"]
        outputs = self.outputs(number)
        files = [file for picture in pictures for file in outputs[picture]["images"]]
        return torch.stack([self.picture(file) for file in files])

    def outputs(self, number):
        """What a queued workflow puts out, by node, once it has run."""
        while True:
            done = self.json(f"/history/{number}").get(number)
            if done and done["status"]["status_str"] == "error":
                kind, told = done["status"]["messages"][-1]
                if kind == "execution_interrupted":
                    raise Lost(f"{self.address} was told to stop a job")
                raise ValueError(f"{self.address} failed in {told.get('node_type')}: {told.get('exception_message')}")
            if done:
                return done["outputs"]
            lists = self.json("/queue")
            if not any(entry[1] == number for entries in lists.values() for entry in entries):
                if number not in self.json(f"/history/{number}"):  # it may have ended between the two looks
                    raise Lost(f"{self.address} no longer knows of a job")
            else:
                time.sleep(PAUSE)

    def picture(self, file):
        name = urllib.parse.urlencode({key: file[key] for key in ("filename", "subfolder", "type")})
        image = Image.open(BytesIO(self.ask(f"/view?{name}"))).convert("RGB")
        return torch.from_numpy(np.array(image)).movedim(-1, 0)

    def json(self, path, body=None):
        return json.loads(self.ask(path, body))

    def ask(self, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.address + path, data, {"Content-Type": "application/json"} if data else {})
        try:
            with self.opener.open(request, timeout=PATIENCE) as answer:
                return answer.read()
        except urllib.error.HTTPError as error:
            told = error.read().decode(errors="replace")[:MOST]
            raise ValueError(f"{self.address} refused {path.partition('?')[0]}: {told}") from None
        except (OSError, http.client.HTTPException) as error:
            raise Lost(f"{self.address} does not answer ({error})") from None
