"""The table of other packs' nodes, and what our nodes take: data, read from the two JSON files beside this one.

An entry of table.json is by the old node's id. `widgets` are its values in the page's order with their defaults, `sockets`
its links. `hook` is where in the host it acts: pre, cfg, post, which is the order whatever the wire says, or calc; of cfg and
calc there is one each, for the last node on the wire. `edits` is the prediction that it hands on changed. Then either `stays`,
which says why nothing of ours does the same, or `cases`, of which the first whose `if` holds is taken:

    to       our nodes in wire order (the last one takes the old one's place), each with its inputs
    sampler  what the sampler after it gets instead
    same     true: the same numbers; otherwise `note` says what differs, and who is right
    apart    not beside these on one wire

An input is the old input's id, or {"value": ...}, {"of": old id, "plus": number}, {"of": old id, "choices": {old: new}},
{"of": [old ids], "by": a function of conversions.py} or {"node": place in `to`}. `sampler.cfg` and `sampler.negative` are
old ids too: those of the sampler that the wire leads to.
"""

import json
from pathlib import Path

HERE = Path(__file__).parent
TABLE = json.loads((HERE / "table.json").read_text(encoding="utf-8"))
CORE = {  # nodes of ComfyUI that the table uses, in the form of nodes.json
    "CFGGuider": {"title": "CFGGuider", "inputs": [
        {"id": "model", "type": "MODEL"}, {"id": "positive", "type": "CONDITIONING"},
        {"id": "negative", "type": "CONDITIONING"},
        {"id": "cfg", "type": "FLOAT", "default": 8.0, "min": 0.0, "max": 100.0, "widget": True},
    ], "outputs": [["GUIDER", "GUIDER"]]},
}
NODES = {**json.loads((HERE / "nodes.json").read_text(encoding="utf-8")), **CORE}
SAMPLERS = {  # widgets in the page's order; None: the page's own, what comes after a run
    "KSampler": ["seed", None, "steps", "cfg", "sampler_name", "scheduler", "denoise"],
    "KSamplerAdvanced": ["add_noise", "noise_seed", None, "steps", "cfg"],
    "SamplerCustom": ["add_noise", "noise_seed", None, "cfg"],
    "CFGGuider": ["cfg"],
}


def widgets_of(kind):
    """The ids of a node's widgets in the page's order."""
    if kind in SAMPLERS:
        return SAMPLERS[kind]
    if kind in TABLE:
        return list(TABLE[kind].get("widgets", {}))
    return [name for given in NODES[kind]["inputs"] if given.get("widget")
            for name in (given["id"], *[None] * given.get("control", False))]
