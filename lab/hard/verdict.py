"""What is a finding, of all the ways in which a prompt may end, and whose it is."""
import copy
import json
import re

import numpy as np

from .connection import BROKEN, DONE, FAILED, REFUSED
from .menu import LOADER, OURS

PACK = re.compile(r"custom_nodes/[^/]*guidance[^/]*/", re.IGNORECASE)  # in a traceback
PROMPTS = ("positive", "negative", "conditioning", "cond1", "cond2", "empty_conditioning")  # the host's inputs of one
LONGEST = 500  # characters of a sentence
NOT_A_SENTENCE = re.compile(r"\n|^\s*$|[^.]$")


def without_ours(prompt):
    """A prompt with none of the pack's nodes but the bundled model, which takes their place on the MODEL wire."""
    bare = {number: node for number, node in copy.deepcopy(prompt).items()
            if node["class_type"] == LOADER or not node["class_type"].startswith(OURS)}
    loaded = next(number for number, node in bare.items() if node["class_type"] == LOADER)
    blank = {"class_type": "CLIPTextEncode", "inputs": {"text": "", "clip": [loaded, 1]}}
    for node in list(bare.values()):
        for name, value in node["inputs"].items():
            if isinstance(value, list) and len(value) == 2 and value[0] in prompt and value[0] not in bare:
                if name in PROMPTS:
                    bare["blank"] = blank
                node["inputs"][name] = ["blank", 0] if name in PROMPTS else [loaded, 0] if name == "model" else 1
    return bare


def fault(ending, wrong):
    """What is wrong with how a prompt ended, in a few words; None where all is well."""
    if ending.heard:
        return f"an event that no browser can read: {ending.heard[0][:LONGEST]}"
    if ending.kind == BROKEN:
        return f"a 5xx: {str(ending.told)[:LONGEST]}"
    if ending.kind == REFUSED:
        return next((f"{error['type']}: {error['details'] or error['message']}"[:LONGEST] for error in refusals(ending.told)
                     if not wrong or error["type"].startswith("exception_during")), None)
    if ending.kind == FAILED and not said(ending.told):
        told = ending.told or {}
        return f"{told.get('node_type')}: {told.get('exception_type')}: {str(told.get('exception_message'))[:LONGEST]}"
    if ending.kind == DONE and not wrong and not np.isfinite(ending.latents).all():
        return "a picture that is no number"
    return None


def refusals(answer):
    """All that is said against a prompt or its nodes."""
    if not isinstance(answer, dict):
        return []
    nodes = answer.get("node_errors") or {}
    return [*(error for node in nodes.values() for error in node["errors"]), answer["error"]]


def said(told):
    """Whether a run was ended by one sentence of the pack's."""
    if not told or told["exception_type"] != "ValueError" or not is_ours(told["traceback"][-1]):
        return False
    return len(told["exception_message"]) <= LONGEST and not NOT_A_SENTENCE.search(told["exception_message"].strip())


def touches_us(ending, log):
    """Whether the pack is at fault, as far as tracebacks tell. log: what the server has written meanwhile, where known."""
    if ending.kind != FAILED:
        return is_ours(json.dumps(ending.told) + (log if ending.kind == BROKEN else ""))
    # A run has always been through the pack's hooks: what counts is who called last, but for torch.
    callers = [trace for trace in (ending.told or {}).get("traceback", []) if "site-packages" not in trace]
    return not callers or is_ours(callers[-1])


def is_ours(trace):
    return PACK.search(re.sub(r"\\+", "/", trace)) is not None
