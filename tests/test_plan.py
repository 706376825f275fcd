"""The plan of a run is the truth of that run: its evaluations, rows and calls, who acts when, and what is idle."""

import comfy.samplers
import pytest
import torch
from comfy.patcher_extension import WrappersMP
from pack.nodes import STRATEGIES
from pack.nodes.bridge.plan import Plan, cost, of_steps
from pack.nodes.bridge.planning import rows_of
from pack.nodes.bridge.report import Report
from pack.nodes.plan import MOST_STEPS
from pack.tests.host import (
    NODES,
    Counter,
    basic_guider,
    guided_by,
    home,
    made,
    one_level,
    prompt,
    ranged,
    sample,
    tiny_flux,
)

STEPS = 5


@pytest.fixture(scope="module")
def model():
    return one_level()


@pytest.fixture
def reports(monkeypatch):
    """The Report of each run that has ended; `were_idle`: the names of its idle links, which are gone with the run."""
    found, after = [], Report.after

    def ended(report):
        found.append(report)
        report.were_idle = [link.name for link in report.idle]
        after(report)

    monkeypatch.setattr(Report, "after", ended)
    return found


def chained(model, *links):
    for name, knobs in links:
        model = made(f"Guidance{name}", model, **knobs)
    return model


def plan_of(model, steps=STEPS, cfg=7.0, sampler="euler", scheduler="normal", denoise=1.0, negative=True):
    sigmas = comfy.samplers.KSampler(model, steps, torch.device("cpu"), sampler, scheduler, denoise).sigmas
    return Plan(model, comfy.samplers.sampler_object(sampler), sigmas, cfg, negative)


def text_of(model, **knobs):
    """What the node says."""
    settings = {"steps": STEPS, "cfg": 7.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0, "negative": True}
    return NODES["GuidancePlan"].execute(model, **{**settings, **knobs}).result[1]


def watched(model):
    """A clone of the model, and what its evaluations will come to: (sigma, rows, calls) of each."""
    counter, found = Counter(model), []

    def see(executor, x, timestep, *args):
        rows, calls = counter.rows, counter.calls
        answer = executor(x, timestep, *args)
        found.append((timestep.tolist()[0], counter.rows - rows, counter.calls - calls))
        return answer

    counter.model.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, "see", see)
    return counter.model, found


def foretold(plan):
    """The same of the plan, without the rows of weak models, which are not the model's."""
    weak = [sum(type(branch).__name__ == "Weak" for branch in branches) for branches in plan.most]
    return [(asked.sigma, rows_of(branches) - less, int(cost([branches]).split(" call")[0].split()[-1]))
            for asked, branches, less in zip(plan.run.asked, plan.most, weak)]


def compare(model, reports, size=8, **how):
    """The plan, which is what a run turns out to be."""
    plan = plan_of(model, **how)
    spied, found = watched(model)
    sample(spied, **{"steps": STEPS, "size": size, **how})
    assert foretold(plan) == found
    if plan.links:
        assert plan.run.deeds.acted == reports[-1].deeds.acted
        assert plan.run.scales == [*reports[-1].scales.values()]
    return plan


# ------------------------------------------------------------------------------------------------ the truth of a run

PAG, APG = ("PAG", {}), ("APG", {})
WEIGHTED = ("Negative", {"mode": "weighted"})
CHAINS = {
    "nothing": [],
    "an interval, PAG and APG": [("CFG", {"scale": "6", "start": 0.2, "end": 0.7}), PAG, APG],
    "a schedule of PAG": [("PAG", {"scale": "0:0, 0.5:3, 1:0 step"})],
    "two scales": [("CFG", {"scale": "0:7, 1:2"}), ("CFGPlusPlus", {})],
    "weighted in a window, and perp-neg": [("Negative", {"mode": "weighted", "start": 0.3, "end": 0.6}),
                                           ("Negative", {"mode": "perp-neg"})],
    "a negative for a part of the run": [("Negative", {"mode": "weighted", "negative": ranged(prompt(7), 0.3, 0.6)})],
    "plain negatives": [("Negative", {}), ("Negative", {"negative": ranged(prompt(8), 0.0, 0.4)})],
    "alternate and APG": [("Alternate", {"every": 2}), APG],
    "compress and momentum": [("Compress", {"share": 0.4}), ("Momentum", {})],
    "PAG in a budget": [PAG, ("Budget", {"rows": 11})],
    "an even budget": [WEIGHTED, ("Budget", {"rows": 14, "spend": "even"})],
    "a weak model": [("Autoguidance", {"share": 0.5}), APG],
    "ahead and windows": [("RectCFGPlusPlus", {}), ("SWG", {"count": 2}), ("CFGZeroStar", {})],
    "feedback and other layers": [("FBG", {"end": 0.5}), ("RandomLayers", {}), ("DynamicThreshold", {})],
}


HOW = [{"sampler": sampler, "cfg": cfg, "scheduler": scheduler, "denoise": denoise} for sampler, cfg, scheduler, denoise in [
    ("euler", 7.0, "normal", 1.0), ("heun", 7.0, "karras", 0.6), ("dpm_2", 1.0, "simple", 1.0), ("dpmpp_2m_sde", 7.0, "normal", 1.0),
    ("euler_cfg_pp", 1.0, "karras", 1.0), ("dpm_2", 7.0, "normal", 0.5), ("euler", 0.0, "simple", 1.0),
]]


@pytest.mark.parametrize("number, links", enumerate(CHAINS.values()), ids=CHAINS)
def test_evaluations_rows_calls_and_deeds_are_those_of_the_run(number, links, model, reports):
    """Each chain with two samplers, so that each sampler has four chains."""
    chain = chained(model, *links)
    for how in (HOW[number % len(HOW)], HOW[(3 * number + 1 + number // len(HOW)) % len(HOW)]):
        compare(chain, reports, **how)


@pytest.mark.parametrize("id", [cls.node_id for cls in STRATEGIES if cls.node_id != "GuidanceAdaptive"])
def test_each_strategy_acts_where_the_plan_says(id, reports):
    compare(made(id, home(id, one_level("flow"))) if id != "GuidanceAutoguidance" else
            made(id, one_level("flow"), weak_model=one_level("flow", seed=9)), reports, steps=3)


@pytest.mark.parametrize("sampler", ["heunpp2", "exp_heun_2_x0", "dpm_fast", "lms", "dpmpp_2s_ancestral_cfg_pp", "dpmpp_sde", "lcm",
                                     "res_multistep_ancestral_cfg_pp", "seeds_3", "sa_solver_pece", "ddim", "uni_pc"])
def test_a_sampler_asks_for_what_is_foretold(sampler, model, reports):
    compare(chained(model, ("CFG", {"scale": "0:7, 0.4:1 step"}), PAG), reports, sampler=sampler, steps=4)


@pytest.mark.parametrize("sampler", [name for name in comfy.samplers.SAMPLER_NAMES if name != "dpm_adaptive"])
def test_every_sampler_of_the_host_can_be_asked(sampler, model):
    plan = plan_of(model, sampler=sampler)
    assert STEPS <= len(plan.asked) <= (plan.timeline.evaluations or 1) * STEPS


@pytest.mark.parametrize("sampler", ["heun", "euler_cfg_pp"])
def test_the_names_of_what_is_idle_are_those_of_the_run(sampler, model, reports):
    links = [("CFG", {}), PAG, ("Adaptive", {}), APG, ("Mimic", {})]
    plan = compare(chained(model, *links), reports, cfg=1.0, sampler=sampler)
    assert [link.name for link in plan.run.idle] == reports[-1].were_idle
    assert len(plan.run.idle) == 4 and "Idle at cfg 1: CFG, Adaptive guidance, APG, " in plan.text


@pytest.mark.parametrize("name", ["Rescale", "Renorm", "DynamicThreshold"])
def test_what_has_nothing_to_bring_back_is_idle_and_else_acts(name, model):
    """A run counts these as acting wherever they may."""
    chain = chained(model, (name, {}))
    assert "1. " in text_of(chain, cfg=1.0) and "idle at cfg 1" in text_of(chain, cfg=1.0)
    assert torch.equal(sample(chain, cfg=1.0, steps=STEPS), sample(model, cfg=1.0, steps=STEPS))
    assert "2. " in text_of(chained(model, PAG, (name, {})), cfg=1.0) and "Idle" not in text_of(
        chained(model, PAG, (name, {})), cfg=1.0)


@pytest.mark.parametrize("links, hedge", [
    ([PAG, ("Adaptive", {"threshold": 0.3})], "at most 15 rows in 5 calls"),
    ([("Adaptive", {"threshold": 0.3}), PAG, ("Budget", {"rows": 12})], "about 11 rows in 5 calls"),
])
def test_what_the_picture_decides_is_told_as_a_limit(links, hedge, model):
    chain = chained(model, *links)
    spied, found = watched(chain)
    sample(spied, steps=STEPS)
    plan = plan_of(chain)
    assert "about" in hedge or all(rows <= most for (_, rows, _), (_, most, _) in zip(found, foretold(plan)))
    assert hedge in plan.text and "Adaptive guidance: for as long as the picture needs it" in plan.text


def test_cfg_0_with_what_acts_only_once_guidance_has_stopped(model):
    """Perp-neg takes no row at scale 0, and 2 at the scale 1 to which Adaptive guidance comes."""
    chain = chained(model, ("Negative", {"mode": "perp-neg"}), ("Adaptive", {"threshold": 2.0}))
    spied, found = watched(chain)
    sample(spied, cfg=0.0, steps=STEPS)
    assert [rows for _, rows, _ in found] == [2, 3, 3, 3, 3]
    assert "at most 15 rows" in plan_of(chain, cfg=0.0).text


@pytest.mark.parametrize("links", [
    [], [("CFG", {"scale": "5"})], [("FBG", {})], [WEIGHTED], [("CFG", {"scale": "5"}), ("Negative", {})],
    [("CFG", {"scale": "5"}), ("RectCFGPlusPlus", {})],
])
def test_a_guider_without_a_negative(links, model):
    chain = chained(model, *links)
    spied, found = watched(chain)
    guided_by(basic_guider(spied), steps=STEPS)
    plan = plan_of(chain, cfg=1.0, negative=False)
    assert foretold(plan) == found
    lacks = bool(links) and links[-1][0] != "Negative" or links == [WEIGHTED]
    assert ("There is no negative to guide away from" in plan.text) is lacks


def test_a_model_that_takes_its_scale(reports):
    links = [("Distilled", {"scale": "0:5, 1:2", "end": 0.5}), ("NAG", {})]
    plan = compare(chained(tiny_flux(), *links), reports, cfg=1.0)
    assert "5 rows in 5 calls" in plan.text and "Idle" not in plan.text


def test_a_run_uses_nothing_of_the_plan_and_the_plan_nothing_of_the_run(model):
    chain = chained(model, PAG, ("Classifier", {"classifier": pytest.fail}), ("CADS", {}))
    counter, random = Counter(chain), torch.get_rng_state()
    for sampler in ("dpmpp_sde", "ddim", "euler_ancestral"):
        text_of(counter.model, sampler_name=sampler)
    assert counter.calls == 0 and torch.equal(torch.get_rng_state(), random)


# ------------------------------------------------------------------------------------------------ what it says

def test_all_of_it(model):
    chain = chained(model, ("CFG", {"end": 0.5}), PAG, APG)
    assert text_of(chain, steps=20, sampler_name="heun") == """\
20 steps with heun, cfg 7 for 10 steps, 1 for 10: 97 rows in 39 calls.

1. CFG: steps 11-20
2. PAG: steps 1-20
3. APG: steps 1-10

step 1: 3 rows in 1 call (prompt, negative, perturbed)
steps 2-10: 2 times 3 rows in 1 call (prompt, negative, perturbed)
steps 11-20: 2 times 2 rows in 1 call (prompt, perturbed)

heun makes 39 evaluations in 20 steps."""


REMARKS = {
    "a window between two steps": ([("PAG", {"start": 0.95, "end": 0.96})], {}, "1. PAG: changes nothing, as no sampled"),
    "an effect of 0": ([("PAG", {"scale": 0.0})], {}, "1. PAG: changes nothing\n"),
    "two scales": ([("CFG", {"scale": "5"}), ("CFGPlusPlus", {})], {}, "CFG and CFG++ each set the scale; CFG++ wins"),
    "a scale that is replaced": ([("CFG", {"scale": "5"}), ("CFGPlusPlus", {})], {}, "1. CFG: has no effect"),
    "CFG++ that is approximate": ([("CFGPlusPlus", {})], {"sampler_name": "dpmpp_2m"}, "with sample_dpmpp_2m it is an approx"),
    "CFG++ twice": ([("CFGPlusPlus", {})], {"sampler_name": "euler_cfg_pp"}, "already renoises the CFG++ way"),
    "a list that is stretched": ([("CFG", {"scale": [7.0, 1.0]})], {}, "A list has 2 values and the run 5 steps"),
    "a sampler that decides": ([], {"sampler_name": "dpm_adaptive"}, "How often dpm_adaptive evaluates"),
    "a negative at cfg 1": ([], {"cfg": 1.0, "sampler_name": "euler_cfg_pp"}, "has the negative computed at cfg 1 too"),
    "a budget below 1": ([("Budget", {"rows": 4})], {}, "Row budget: 4 rows cannot be kept, the run takes 5; each of 5"),
    "a budget in front": ([("Budget", {"rows": 8}), PAG], {}, "8 rows cannot be kept, the run takes 13; what later nodes"),
    "large windows": ([("SWG", {"size": 0.95})], {}, "at fewer rows"),
    "video and audio": ([("StreamCFG", {"video": "1", "audio": "7"})], {}, "audio: video cfg 1, audio cfg 7; 10 rows in 5 calls"),
    "every other step": ([("Alternate", {})], {"steps": 20}, "no negative at steps 2, 4, ..., 20"),
}


@pytest.mark.parametrize("links, how, says", REMARKS.values(), ids=REMARKS)
def test_it_says_what_to_know(links, how, says, model):
    assert says in text_of(chained(model, *links), **how)
    assert says not in text_of(chained(model, APG))


REPLACED = {
    "plain negatives": [("Negative", {}), ("Negative", {"negative": prompt(8)})],
    "NAG": [("NAG", {}), ("NAG", {"negative": prompt(8)})],
    "PAG before an empty budget": [PAG, ("Budget", {"rows": STEPS})],
}


@pytest.mark.parametrize("links", REPLACED.values(), ids=REPLACED)
def test_what_a_later_node_replaces_changes_no_picture(links, model):
    first, last = links
    text = text_of(chained(model, first, last))
    assert "1. " in text and ("has no effect" in text or "changes nothing" in text)
    assert torch.equal(sample(chained(model, first, last), steps=STEPS), sample(chained(model, last), steps=STEPS))


def test_another_packs_function_is_named(model):
    patched = model.clone()
    patched.set_model_sampler_cfg_function(lambda args: args["cond"])
    assert "Of what other packs do to the model nothing is known here:" in text_of(chained(patched, PAG))


def test_noise_levels_and_a_sampler_may_be_linked(model):
    chain = chained(model, ("CFGPlusPlus", {}))
    sigmas, heun = torch.tensor([5.0, 2.0, 0.0]), comfy.samplers.sampler_object("heun")
    assert text_of(chain, sigmas=sigmas, sampler=heun).startswith("2 steps with heun, cfg ")
    node = NODES["GuidancePlan"].execute(chain, steps=3, cfg=1.0, sampler_name="euler", scheduler="normal", denoise=1.0,
                                         negative=True)
    assert node.result[0] is chain and node.ui.as_dict() == {"text": (node.result[1],)}


@pytest.mark.parametrize("sigmas", [torch.zeros(0), torch.ones(1), torch.ones(2, 2), torch.tensor([1.0, float("nan")]),
                                    torch.tensor([-1.0, 0.0]), torch.ones(MOST_STEPS + 2), [1.0, 0.0]], ids=str)
def test_noise_levels_that_are_none_are_refused(sigmas, model):
    with pytest.raises(ValueError, match="^sigmas (is|has) [^\n]*[.]$"):
        text_of(model, sigmas=sigmas)


@pytest.mark.parametrize("steps, told", [
    ({0}, "step 1"), ({0, 1, 2}, "steps 1-3"), ({0, 2}, "steps 1, 3"), ({1, 3, 5, 7, 8}, "steps 2, 4, ..., 8, 9"),
    ({0, 1, 5, 9, 10, 11}, "steps 1-2, 6, 10-12"),
])
def test_steps_in_words(steps, told):
    assert of_steps(steps) == told
