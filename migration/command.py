"""`python dev.py migrate workflow.json`: the workflow with our nodes, in a file beside it, and a line for each old node."""

import argparse
import json
from pathlib import Path

from .graphs import NoWorkflow
from .migrate import migrate

BROKEN = (AttributeError, IndexError, KeyError, TypeError, ValueError)  # what a file that only looks like one raises


class Refused(Exception):
    """What the user can act on, in one sentence."""


def run(arguments, say=print):
    parser = argparse.ArgumentParser(prog="migrate", description=__doc__)
    parser.add_argument("workflow", type=Path, help="saved by the page, or exported for the API")
    parser.add_argument("--out", type=Path, help="where to (default: workflow.guidance.json beside it)")
    options = parser.parse_args(arguments)
    target = options.out or options.workflow.with_suffix(".guidance.json")
    if target.exists() and options.workflow.exists() and target.samefile(options.workflow):
        raise Refused(f"--out is {target}, the workflow itself; it has to be another file")
    try:
        made, lines = migrate(read(options.workflow))
    except (NoWorkflow, *BROKEN) as error:
        reason = error if isinstance(error, NoWorkflow) else "it is damaged"
        raise Refused(f"{options.workflow} is no workflow: {reason}") from None
    for line in lines:
        say(str(line))
    if not any(line.new for line in lines) and not any("left out" in line.said for line in lines):
        say(f"{options.workflow} has no node to replace, so nothing was written.")
        return
    target.write_text(json.dumps(made, indent=1), encoding="utf-8")
    say(f"Written: {target}")


def read(path):
    try:
        workflow = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Refused(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise Refused(f"{path} is no JSON, so it is no workflow") from None
    return workflow
