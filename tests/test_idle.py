"""Every strategy at scale 1: either it acts, or it is idle, which whoever runs the chain can see for himself.

Idle is a step that plans nothing and whose `apply` hands back the very State that it was given.
"""

from functools import partial

import pytest
import torch
from pack import guidance as g
from pack.guidance.core import UNCOND, State, Timeline
from pack.guidance.space import EPS, FLOW

# By name: how it is made, and whether it acts at scale 1.
STRATEGIES = {
    "adaptive": (g.adaptive, False),
    "alternate": (g.alternate, False),
    "apg": (g.apg, False),
    "attention_away": (partial(g.attention_away, "n"), True),
    "auto_range": (g.auto_range, False),
    "autoguidance": (partial(g.autoguidance, "weak"), False),
    "beta_cfg": (g.beta_cfg, False),
    "budget": (g.budget, False),
    "cads": (g.cads, True),
    "cfg": (partial(g.cfg, 1.0), False),
    "cfg_zero_star": (g.cfg_zero_star, False),
    "cfgpp": (g.cfgpp, True),
    "classifier": (partial(g.classifier, lambda latents, sigma: latents.flatten(1).sum(1)), True),
    "compress": (g.compress, False),
    "distilled": (g.distilled, True),
    "dynamic_threshold": (g.dynamic_threshold, False),
    "erg": (partial(g.erg, ["middle"]), True),
    "fbg": (g.fbg, True),
    "fdg": (g.fdg, False),
    "fresca": (g.fresca, False),
    "interval": (g.interval, False),
    "mambo_g": (g.mambo_g, False),
    "mimic": (g.mimic, False),
    "momentum_guidance": (g.momentum_guidance, True),
    "negative_instead": (partial(g.negative_instead, "n"), False),
    "negative_weighted": (partial(g.negative_weighted, "n"), True),
    "pag": (partial(g.pag, ["middle"]), True),
    "perp_cfg": (g.perp_cfg, False),
    "perp_neg": (partial(g.perp_neg, "n"), True),
    "pladis": (g.pladis, True),
    "power_law": (g.power_law, False),
    "push_away": (partial(g.push_away, "p"), True),
    "rect_cfgpp": (g.rect_cfgpp, False),
    "renorm": (g.renorm, False),
    "rescale": (g.rescale, False),
    "s2_guidance": (partial(g.s2_guidance, ["middle", "late"]), True),
    "seg": (partial(g.seg, ["middle"]), True),
    "skip_layers": (partial(g.skip_layers, ["middle"]), True),
    "skip_layers_in_uncond": (partial(g.skip_layers_in_uncond, ["middle"]), False),
    "skimmed_cfg": (g.skimmed_cfg, False),
    "smc_cfg": (g.smc_cfg, False),
    "stream_cfg": (partial(g.stream_cfg, 1.0, 1.0), False),
    "superconditioning": (g.superconditioning, False),
    "swg": (g.swg, True),
    "tcfg": (g.tcfg, False),
    "tpg": (partial(g.tpg, ["middle"]), True),
    "tsg": (g.tsg, True),
}
# Settings that act where the defaults do not.
ACTIVE = {
    "cfg_zero_star, standing still": partial(g.cfg_zero_star, zero_steps=1),
    "dynamic_threshold, pixels": partial(g.dynamic_threshold, form="pixels"),
    "perp_cfg, literal": partial(g.perp_cfg, literal=True),
}


def met(make, scale):
    """(planned moments, states before and after, whether the answer changed) of a run of flow predictions."""
    step = make()
    line = Timeline((1.0, 0.8, 0.5, 0.2, 0.0), space=FLOW)
    for moment in line.moments(scale):
        planned = step.plan(moment)
        x, c, u = (torch.randn(2, 4, 8, 6) for _ in range(3))
        branches = {branch: torch.randn(2, 4, 8, 6) for branch in planned.asked - {UNCOND}}
        u = u if planned.needs else c
        state = State(planned, x, c, u, c if planned.combined == 1 else u + planned.combined * (c - u), branches)
        yield moment, planned, state, step.answer(state)


def test_every_strategy_is_here():
    made = {name for name in vars(g) if callable(getattr(g, name)) and getattr(g, name).__module__.count(".") == 2
            and name.islower()} - {"chain", "guide", "parse"}
    assert made == STRATEGIES.keys()


@pytest.mark.parametrize("name", STRATEGIES)
def test_at_scale_1_a_strategy_acts_or_hands_back_the_very_state(name):
    make, acts = STRATEGIES[name]
    idle = [planned.needs == moment.needs and planned.embed is None and not planned.beside and planned.distilled is None
            and planned.sparse is None
            and planned.scale == 1 and after is before
            for moment, planned, before, after in met(make, 1.0)]
    assert all(idle) is not acts


@pytest.mark.parametrize("make", ACTIVE.values(), ids=ACTIVE)
def test_some_settings_act_at_scale_1(make):
    assert any(after is not before for _, _, before, after in met(make, 1.0))


def test_nothing_is_not_a_number_without_noise():
    """A run that adds noise begins at sigma 0, where x is x0 and the network's output means nothing."""
    for space in (EPS, FLOW):
        line = Timeline((0.0, 0.3, 0.6), space=space)
        for make, _ in STRATEGIES.values():
            step = make()
            for moment in line.moments(7.0):
                planned = step.plan(moment)
                x, c, u = (torch.randn(2, 4, 8, 6) for _ in range(3))
                branches = {branch: torch.randn(2, 4, 8, 6) for branch in planned.asked - {UNCOND}}
                state = State(planned, x, c, u, u + planned.combined * (c - u), branches)
                assert step.answer(state).denoised.isfinite().all(), make
