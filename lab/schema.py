"""`python lab schema`: what every node takes and gives, as migration/nodes.json keeps it.

Ids, inputs and outputs are forever: workflows know an input by its place, programs by its name. So the file is only ever
added to, and this refuses to write one in which something has gone or moved.
"""
import json
from pathlib import Path

from ..nodes import NODES
from .canvas import is_widget

FILE = Path(__file__).parent.parent / "migration" / "nodes.json"
KEPT = ("default", "min", "max")
LISTS_FILES = {("GuidanceNull", "embedding")}  # whose choices are those of the machine


def snapshot():
    """{node id: its title, inputs in the page's order, outputs}"""
    return {node.GET_SCHEMA().node_id: of(node) for node in NODES}


def of(node):
    id, types = node.GET_SCHEMA().node_id, node.INPUT_TYPES()
    inputs = [described(id, name, optional, *given) for group, optional in (("required", False), ("optional", True))
              for name, given in types.get(group, {}).items()]
    outputs = [[name, type] for name, type in zip(node.RETURN_NAMES or node.RETURN_TYPES, node.RETURN_TYPES)]
    return {"title": node.GET_SCHEMA().display_name, "inputs": inputs, "outputs": outputs}


def described(node, name, optional, type, options={}):
    """One input. widget: whether the page has a place for its value; control: whether a second one for what comes after."""
    choices = type if isinstance(type, (list, tuple)) else options.get("options")
    entry = {"id": name, "type": type if isinstance(type, str) else "COMBO"}
    entry |= {key: options[key] for key in KEPT if options.get(key) is not None}
    if choices is not None and (node, name) not in LISTS_FILES:
        entry |= {"options": list(choices)}
    if choices is not None and "default" not in entry:
        entry |= {"default": choices[0]}
    flags = {"optional": optional, "widget": is_widget(entry["type"], options),
             "control": bool(options.get("control_after_generate"))}
    return entry | {flag: True for flag, raised in flags.items() if raised}


def broken(before, now):
    """What of a snapshot has gone, moved, or come where nothing may come: one sentence each."""
    found = []
    for id, node in before.items():
        if id not in now:
            found.append(f"{id} has gone; a node's id is forever.")
            continue
        found += [f"{id}: {said}" for said in lost(node, now[id])]
    return found


def lost(before, now):
    for what, key in (("input", lambda given: given["id"]), ("output", lambda given: given[1])):
        old, new = ([key(given) for given in node[f"{what}s"]] for node in (before, now))
        if new[:len(old)] != old:
            yield f"its {what}s were {', '.join(old)} and are {', '.join(new)}; new ones come last, and none goes or moves."
    old, new = ({given["id"]: given for given in node["inputs"]} for node in (before, now))
    for name in new.keys() - old.keys():
        if not new[name].get("optional"):
            yield f"{name} is new, so it has to be optional."
    for name in old.keys() & new.keys():
        gone = set(old[name].get("options", ())) - set(new[name].get("options", ()))
        if gone:
            yield f"{name} can no longer be {', '.join(map(str, sorted(gone)))}."


def text(nodes):
    """As JSON, a line for each input, so that a change reads well."""
    def lines(entries):
        return "[\n" + ",\n".join(f"  {json.dumps(entry)}" for entry in entries) + "\n ]"

    parts = [f'{json.dumps(id)}: {{"title": {json.dumps(node["title"])},\n "inputs": {lines(node["inputs"])},\n '
             f'"outputs": {json.dumps(node["outputs"])}}}' for id, node in sorted(nodes.items())]
    return "{\n" + ",\n".join(parts) + "\n}\n"


def write():
    now = snapshot()
    found = broken(json.loads(FILE.read_text(encoding="utf-8")), now) if FILE.exists() else []
    if found:
        raise SystemExit("\n".join([*found, f"{FILE.name} was not written."]))
    FILE.write_text(text(now), encoding="utf-8")
