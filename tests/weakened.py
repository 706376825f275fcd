"""What a model predicts while some of its layers are weakened for one more row; and the rows and calls that this takes."""

from dataclasses import replace

import torch
from comfy.patcher_extension import WrappersMP
from pack.guidance.core import Perturbed, Step
from pack.nodes.bridge.attention import install
from pack.nodes.bridge.blocks import anatomy_of, choose_layers
from pack.nodes.bridge.hooks import attach

KINDS = {"identity": 0.0, "blur": 1.5, "blur, infinite": 1000.0, "skip": 0.0, "shuffle": 1.0}  # and their amounts


def branch_of(model, kind, text="middle"):
    name = kind.partition(",")[0]
    return Perturbed(name, choose_layers(model.model.diffusion_model, text, name, "test"), KINDS[kind], 5 * (name == "shuffle"))


class Seen:
    """One evaluation at cfg 2 beside which `branches` are asked for: cond, uncond and the branches, each flattened."""

    def __init__(self, architecture, model, branches, shares=True, weakened=None, **given):
        self.states = []
        model = model.clone()
        install(model)
        if not shares:
            model.set_model_patch(lambda *args: None, "of_another_pack")
        ask = lambda moment: replace(moment.ask(*branches), weakened=weakened)  # noqa: E731
        chained = attach(model, "test", lambda: Step(ask, lambda state: self.states.append(state) or state))
        self.rows = self.calls = 0
        chained.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "count", self.count)
        architecture.sample(chained, cfg=2.0, steps=1, **given)
        self.cond, self.uncond = (self.flat(lambda state, name=name: getattr(state, name)) for name in ("cond", "uncond"))
        self.branches = [self.flat(lambda state, branch=branch: state.branches[branch]) for branch in branches]

    def flat(self, read):
        return torch.cat([read(state).flatten(1) for state in self.states], 1)

    def count(self, executor, x, *args, **kwargs):
        self.calls, self.rows = self.calls + 1, self.rows + len(x)
        return executor(x, *args, **kwargs)


def layers_of(model):
    return anatomy_of(model.model.diffusion_model).layers
