"""What a trained model shows: the bundled one, guided."""

from itertools import combinations

import pytest
import torch
from pack.nodes.demo import judge
from pack.nodes.demo.classifier import DemoClassifier
from pack.nodes.demo.model import load
from pack.nodes.direction import APG, FDG, TCFG, AutoRange, CFGZeroStar, FreSca, PerpCFG, PowerLaw
from pack.nodes.fewer_rows import Compress
from pack.nodes.other_models import Classifier
from pack.tests.host import (
    node,
    sample,
)


def test_on_a_trained_model_with_many_steps_reusing_the_direction_is_nearer_to_cfg_than_leaving_it_out(demo):
    how = dict(cfg=2.5, steps=32, noise=demo.noise(2), positive=demo.encode("a small red circle on blue"))
    how["negative"] = demo.encode("")
    plain = sample(demo.model, **how)
    error = {
        reuse: float((sample(node(Compress, demo.model, share=0.5, reuse=reuse), **how) - plain).norm())
        for reuse in (0.0, 1.0)
    }
    assert error[1.0] < error[0.0] / 2


def test_which_editors_of_the_direction_care_for_their_order(demo):
    """As the readme has it."""
    positive, negative, noise = demo.encode("a small red circle on blue"), demo.encode(""), demo.noise(2)

    def apart(*pair):
        one, other = (sample(node(second, node(first, demo.model)), cfg=6.0, steps=6, noise=noise, positive=positive,
                             negative=negative) for first, second in (pair, pair[::-1]))
        return float((one - other).norm() / one.norm())

    assert max(apart(*pair) for pair in combinations((PerpCFG, CFGZeroStar, TCFG, FDG, FreSca), 2)) < 0.05
    assert apart(PowerLaw, AutoRange) > 0.4 and apart(APG, AutoRange) > 0.2 and apart(FDG, PowerLaw) > 0.1


def test_of_few_steps_none_is_to_be_lost_by_standing_still():
    """Why CFG-Zero* does not, unless told to: the share of pictures with the background that was asked for."""
    flow, clip, vae = load("flow")
    colors = ("red", "blue", "green", "yellow")
    prompts = [f"a big {colors[i % 4]} circle on {colors[(i + 1 + i // 12) % 4]}" for i in range(36)]
    tokens = [clip.encode_from_tokens_scheduled(clip.tokenize(text))[0][0] for text in (*prompts, "")]
    positive, negative = [[torch.cat(tokens[:-1]), {}]], [[tokens[-1].expand(36, -1, -1), {}]]
    noise = torch.randn(36, 3, 32, 32, generator=torch.Generator().manual_seed(4))

    def right(zero_steps):
        patched = node(CFGZeroStar, flow, zero_steps=zero_steps)
        made = vae.decode(sample(patched, cfg=3.0, noise=noise, positive=positive, negative=negative)).movedim(-1, 1)
        seen = judge.load().read(made).background
        return sum(judge.BACKGROUNDS[int(s)] == text.split()[-1] for s, text in zip(seen, prompts)) / 36

    assert right(0) > 0.8 and right(1) < 0.6


@pytest.mark.parametrize("attribute, value", [("color", "green"), ("shape", "ring"), ("background", "white")])
def test_the_demo_classifier_turns_unprompted_pictures_into_what_it_is_told(attribute, value, demo):
    with torch.inference_mode():  # as the host runs its nodes
        wanted = DemoClassifier.execute(attribute=attribute, value=value).result[0]
        how = dict(cfg=1.0, steps=12, noise=demo.noise(12), positive=demo.encode(""), negative=demo.encode(""))
        guided, plain = (
            sample(m, **how) for m in (node(Classifier, demo.model, classifier=wanted, scale=20.0), demo.model)
        )
    found = [
        (
            getattr(judge.load().read((pictures.clone() + 1) / 2), attribute)
            == getattr(judge.CHOICES, attribute).index(value)
        )
        .float()
        .mean()
        for pictures in (guided, plain)
    ]
    assert found[0] > 0.7 and found[0] > found[1] + 0.4
