"""Nodes of other packs that the host may replace by ours where nobody has them: those that are the same input by input.

The page offers these from a list of the host's. A program's prompt the host replaces itself, and ends with an error where it
lacks an input or what only the page writes (`_meta`), so such prompts are made into ours before the host sees them.
"""

import sys
from typing import Any

import nodes
from comfy_api.latest import ComfyAPI, io

from ..migration.table import TABLE


def plain(entry):
    """The one node that an old one becomes, where each input is an old one or a constant, and all is the same; or None."""
    (case, *others) = entry.get("cases", [{}])
    if others or not case.get("same") or "sampler" in case or len(case["to"]) != 1:
        return None
    (new,) = case["to"]
    return new if all(isinstance(spec, str) or "value" in spec for spec in new["inputs"].values()) else None


PLAIN = {old: new for old, entry in TABLE.items() if (new := plain(entry))}


def mapped(name, spec):
    return {"new_id": name, "old_id": spec} if isinstance(spec, str) else {"new_id": name, "set_value": spec["value"]}


async def register():
    """Tell the host of the replacements, if it has such a thing and knows none for that node."""
    host: Any = getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)
    manager = getattr(host, "node_replace_manager", None)
    if manager is None or not hasattr(io, "NodeReplace"):
        return
    ours = {old: new for old, new in PLAIN.items() if not manager.has_replacement(old)}
    for old, new in ours.items():
        await ComfyAPI().node_replacement.register(io.NodeReplace(
            new_node_id=new["id"], old_node_id=old, old_widget_ids=list(TABLE[old].get("widgets", {})),
            input_mapping=[mapped(*given) for given in new["inputs"].items()],
            output_mapping=[{"old_idx": 0, "new_idx": 0}],
        ))
    host.add_on_prompt_handler(lambda request: replaced(request, ours))


def replaced(request, ours):
    """A request with the missing nodes of its prompt replaced. What is no prompt is left for the host to refuse."""
    prompt = request.get("prompt") if isinstance(request, dict) else None
    for node in prompt.values() if isinstance(prompt, dict) else ():
        old = node.get("class_type") if isinstance(node, dict) else None
        is_ours = isinstance(old, str) and old in ours and old not in nodes.NODE_CLASS_MAPPINGS
        if is_ours and isinstance(node.get("inputs"), dict):
            given, new = {**TABLE[old].get("widgets", {}), **node["inputs"]}, ours[old]
            inputs = {name: given.get(spec) if isinstance(spec, str) else spec["value"] for name, spec in new["inputs"].items()}
            node["class_type"] = new["id"]
            node["inputs"] = {name: value for name, value in inputs.items() if value is not None}
    return request
