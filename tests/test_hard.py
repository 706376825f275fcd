"""The hard tests in small, and what they take for a finding. `python dev.py lab hard` runs them in full."""

import asyncio
import json
from types import SimpleNamespace

import numpy as np
import pytest
from pack.lab.hard import fuzz
from pack.lab.hard.connection import BROKEN, DONE, FAILED, REFUSED, Ending, is_plain
from pack.lab.hard.ends import differs, interrupt
from pack.lab.hard.memory import apart, memory
from pack.lab.hard.menu import Menu
from pack.lab.hard.soak import grown
from pack.lab.hard.verdict import fault

pytestmark = pytest.mark.xdist_group("server")


def test_a_hundred_prompts_right_and_wrong_find_nothing(server, tmp_path):
    fuzzer = asyncio.run(fuzz.fuzz(server.address, server, SimpleNamespace(first=0, count=100, seed=3, out=tmp_path)))
    assert fuzzer.findings == []
    assert sum(fuzzer.counts.values()) == 100 and fuzzer.counts["right", DONE] >= 50
    assert fuzzer.counts["wrong", REFUSED] + fuzzer.counts["wrong", "ended by a node"] >= 20


def test_the_run_after_an_interrupt_is_the_one_before(server):
    assert asyncio.run(interrupt(server, (1, 5, 12))) == []


def test_rows_that_do_not_fit_and_a_forward_without_memory(server):
    assert asyncio.run(memory(server, (1,), (4,))) == []


# ------------------------------------------------------------------------------------------------ what a finding is


def error(kind="ValueError", message="scale is 3; it has to be 1 at most.\n", file="/tmp/custom_nodes/ComfyUI-Guidance/nodes/inputs.py"):
    return Ending(FAILED, {"node_type": "KSampler", "exception_type": kind, "exception_message": message,
                           "traceback": ["execution.py", f'  File "{file}", line 3, in check\n']})


def looked(*values):
    from base64 import b64encode

    return Ending(DONE, outputs={"1": {"latent": [b64encode(np.array(values, np.float32).tobytes()).decode()]}})


def refused(kind):
    told = {"type": kind, "message": "Not so", "details": ""}
    return Ending(REFUSED, {"error": {**told, "type": "whole"}, "node_errors": {"1": {"errors": [told]}}})


@pytest.mark.parametrize("ending, wrong", [
    (error(), False), (looked(1.0, -3.0), False), (refused("value_not_in_list"), True), (looked(float("nan")), True),
])
def test_no_finding(ending, wrong):
    assert fault(ending, wrong) is None


@pytest.mark.parametrize("wrong", [False, True])
@pytest.mark.parametrize("ending", [
    error("RuntimeError"), error("torch.OutOfMemoryError"), error("builtins.KeyError"), error(message="x"), error(message="a\nb."),
    error(message="x" * 999 + "."), error(file="/torch/nn/modules/linear.py"), error(file="/host/comfy/samplers.py"),
    Ending(BROKEN, "500"), Ending(FAILED, None), looked(1.0)._replace(heard=("{NaN}",)), refused("exception_during_validation"),
])
def test_a_finding(ending, wrong):
    assert fault(ending, wrong)


@pytest.mark.parametrize("ending", [looked(1.0, float("nan")), looked(float("inf")), refused("value_not_in_list")])
def test_a_finding_where_the_prompt_was_right(ending):
    assert fault(ending, wrong=False)


def test_what_does_not_pass():
    assert differs("it", looked(1.0, 2.0), looked(1.0, 2.5)) == ["it differs by 0.5"] and not differs("it", looked(1), looked(1))
    assert differs("it", error(), looked(1.0)) and apart(1, error(), looked(1.0))
    assert apart(1, looked(1.01), looked(1.0)) and not apart(1, looked(1.00001), looked(1.0))
    held = [SimpleNamespace(megabytes=megabytes, handles=handles, threads=3) for megabytes, handles in ((500, 9), (600, 90))]
    assert len(grown(*held)) == 2 and not grown(held[0], held[0])
    assert not is_plain(json.dumps({"a": float("nan")})) and is_plain("{}")


def test_a_prompt_is_known_by_its_seed_and_number(server):
    menu = Menu(server.get("/object_info")[1])
    one, again, other = (json.dumps(fuzz.drawn(menu, *which)) for which in ((7, 3), (7, 3), (7, 4)))
    assert one == again != other
