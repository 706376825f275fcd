"""Workflows of other packs' nodes, made into ours, run side by side with what they were, on tiny real models."""

import asyncio
import copy
import json

import comfy.sample
import comfy.utils
import execution
import nodes
import pytest
import torch
from pack.lab.demo import evaluate
from pack.migration.graphs import NoWorkflow
from pack.migration.migrate import migrate
from pack.migration.table import NODES, TABLE
from pack.tests.peers import CORE, KNOWN, as_page, workflow
from pack.tests.test_example_workflows import to_api

SAME, OTHER = 2e-5, None  # the largest difference as a share of the largest value; OTHER: the table says that it differs
SLG = {"start_percent": 0.0, "end_percent": 1.0}
MODES = {"mimic_mode": "Cosine Up", "cfg_mode": "Power Up", "cfg_scale_min": 2.0, "sched_val": 2.0, "mimic_scale_min": 1.0}
CASES = {
    "APG": (SAME, "unet eps", ("APG", {"eta": 0.3, "norm_threshold": 4.0, "momentum": -0.5})),
    "CFGZeroStar": (OTHER, "unet flow", ("CFGZeroStar", {})),
    "CFGNorm": (SAME, "unet flow", ("CFGNorm", {})),
    "CFGNorm before": (SAME, "unet eps", ("CFGNorm", {"pre_cfg": True, "strength": 0.6})),
    "TCFG": (SAME, "unet eps", ("TCFG", {})),
    "FreSca": (OTHER, "unet eps", ("FreSca", {"freq_cutoff": 4})),
    "PAG of core": (SAME, "unet v", ("PerturbedAttentionGuidance", {"scale": 2.0})),
    "RescaleCFG": (SAME, "unet v", ("RescaleCFG", {})),
    "RescaleCFG on eps": (OTHER, "unet eps", ("RescaleCFG", {})),
    "RenormCFG": (SAME, "unet flow", ("RenormCFG", {"renorm_cfg": 0.8})),
    "PerpNeg": (SAME, "unet eps", ("PerpNeg", {"neg_scale": 1.5})),
    "PerpNegGuider": (SAME, "unet eps", ("PerpNegGuider", {"cfg": 5.0, "neg_scale": 1.5})),
    "NAGuidance": (OTHER, "unet eps", ("NAGuidance", {})),
    "SLG DiT": (SAME, "flux", ("SkipLayerGuidanceDiT", {"double_layers": "1, 9", "single_layers": "0", "rescaling_scale": 0.5, **SLG})),
    "SLG in the negative": (SAME, "flux", ("SkipLayerGuidanceDiTSimple", {"double_layers": "", "single_layers": "1", **SLG})),
    "SLG SD3": (SAME, "sd3", ("SkipLayerGuidanceSD3", {"layers": "0", **SLG})),
    "CFGOverride": (SAME, "unet eps", ("CFGOverride", {"cfg": 3.0})),
    "CFGOverride to 1 late": (SAME, "unet eps", ("CFGOverride", {"cfg": 1.0, "start_percent": 0.5})),
    "CFGOverride to 1 early": (SAME, "unet eps", ("CFGOverride", {"cfg": 1.0, "end_percent": 0.4})),
    "CFGOverride between": (SAME, "unet eps", ("CFGOverride", {"cfg": 9.0, "start_percent": 0.2, "end_percent": 0.6})),
    "PAG": (SAME, "unet eps", ("PerturbedAttention", {"unet_block": "input", "unet_block_id": 1, "sigma_start": 9.0, "sigma_end": 0.5})),
    "PAG, fading": (1e-3, "unet eps", ("PerturbedAttention", {"adaptive_scale": 0.17})),
    "PAG, rescaled": (OTHER, "unet eps", ("PerturbedAttention", {"rescale": 0.7})),
    "SEG": (SAME, "unet eps", ("SmoothedEnergyGuidanceAdvanced", {})),
    "NAG": (SAME, "unet eps", ("NormalizedAttentionGuidance", {"negative": ["4", 0]})),
    "TPG": (OTHER, "unet eps", ("TokenPerturbationGuidance", {})),
    "PLADIS": (SAME, "unet eps", ("PLADIS", {"sparse_func": "sparsemax"})),
    "FDG": (SAME, "unet eps", ("FrequencyDecoupledGuidance", {})),
    "MG": (OTHER, "unet flow", ("MomentumGuidance", {})),
    "DynThresh simple": (SAME, "unet eps", ("DynamicThresholdingSimple", {"mimic_scale": 3.0, "threshold_percentile": 0.95})),
    "DynThresh full": (SAME, "unet v", ("DynamicThresholdingFull", {
        "mimic_scale": 3.0, "threshold_percentile": 0.95, "variability_measure": "STD", "interpolate_phi": 0.7})),
    "DynThresh from zero": (SAME, "unet v", ("DynamicThresholdingFull", {
        "mimic_scale": 3.0, "scaling_startpoint": "ZERO", "separate_feature_channels": "disable"})),
    "DynThresh, modes": (5e-3, "unet eps", ("DynamicThresholdingFull", {"mimic_scale": 3.0, **MODES})),
    "Skimmed": (SAME, "unet eps", ("Skimmed CFG", {"Skimming_CFG": 3.0})),
    "Skimmed, full": (SAME, "unet eps", ("Skimmed CFG", {"Skimming_CFG": 2.0, "full_skim_negative": True, "disable_flipping_filter": True})),
    "Automatic": (OTHER, "unet eps", ("Automatic CFG", {})),
    "Automatic, no boost": (OTHER, "unet eps", ("Automatic CFG", {"boost": False})),
    "Scheduled": (SAME, "unet eps", ("ScheduledCFGGuidance", {"cfg": 4.0})),
    "Scheduled, a part": (OTHER, "unet eps", ("ScheduledCFGGuidance", {"cfg": 4.0, "start_percent": 0.4})),
    "CFG-Zero*": (SAME, "unet flow", ("CFGZeroStarAndInit", {})),
    "SLG Wan": (SAME, "wan", ("SkipLayerGuidanceWanVideo", {"blocks": "1", "start_percent": 0.0})),
    "NAG Wan": (SAME, "wan", ("WanVideoNAG", {"nag_scale": 5.0})),
    "NAG Wan with CFG": (OTHER, "wan", ("WanVideoNAG", {"nag_scale": 5.0})),
    "two on a wire": (SAME, "unet v", ("TCFG", {}), ("PerturbedAttentionGuidance", {})),
}


def taken(id):
    """The names of an old node's inputs, or none where the host does not have the node yet."""
    types = KNOWN[id].INPUT_TYPES() if id in KNOWN else {}
    return {*types.get("required", {}), *types.get("optional", {})}


# Older hosts lack some of these nodes, or some of their inputs.
CASES = {name: case for name, case in CASES.items() if all(id in KNOWN and inputs.keys() <= taken(id) for id, inputs in case[2:])}
CFG = {"NAG Wan": 1.0}


def latents(prompt):
    comfy.utils.set_progress_bar_enabled(False)
    with torch.inference_mode():
        return evaluate(prompt, "20", KNOWN, {})[0]["samples"]


def run(name):
    """(our workflow, its lines, the latents of the old one and of ours)"""
    _, model, *wire = CASES[name]
    old = workflow(model, *wire, cfg=CFG.get(name, 5.0))
    new, lines = migrate(old)
    assert all(line.new for line in lines) and len(lines) == len(wire), [str(line) for line in lines]
    return new, lines, latents(old), latents(new)


@pytest.mark.parametrize("name", CASES)
def test_ours_gives_the_same_latents_or_says_that_it_does_not(name, monkeypatch):
    bound, (new, lines, before, after) = CASES[name][0], run(name)
    share = float((before - after).abs().max() / before.abs().max())
    print(f"{name}: {share:.1e}  {lines[-1]}")
    assert after.isfinite().all()
    if bound is OTHER:
        assert share > 1e-3 and not lines[0].said.startswith("The same numbers.")
    else:
        assert share <= bound
    monkeypatch.setattr(nodes, "NODE_CLASS_MAPPINGS", KNOWN)
    valid, error, *_ = asyncio.run(execution.validate_prompt("0", new, None))
    assert valid, error


PAIRS = [
    ("RescaleCFG", "PAG of core"), ("PAG of core", "RescaleCFG"), ("APG", "CFGNorm"), ("CFGNorm", "TCFG"), ("TCFG", "CFG-Zero*"),
    ("Skimmed", "PAG of core"), ("DynThresh simple", "CFGNorm"), ("TCFG", "DynThresh full"), ("APG", "TCFG"),
    ("FDG", "TCFG"), ("TCFG", "FDG"),
]


@pytest.mark.parametrize("names", PAIRS, ids=" + ".join)
def test_of_two_on_a_wire_it_is_said_where_they_are_otherwise_together(names):
    """Behind one another, on the model for which each of them is the same alone."""
    model = "unet flow" if "CFG-Zero*" in names else "unet v"
    old = workflow(model, *(CASES[name][2] for name in names))
    new, lines = migrate(old)
    before, after = latents(old), latents(new)
    share = float((before - after).abs().max() / before.abs().max())
    warned = any("beside" in line.said or "used to act before" in line.said for line in lines)
    assert all(line.new for line in lines) and (share > 1e-3 if warned else share < 5 * SAME), (share, [str(line) for line in lines])


@pytest.mark.parametrize("name", CASES)
def test_both_forms_become_the_same(name):
    _, model, *wire = CASES[name]
    old = workflow(model, *wire)
    page = as_page(old)
    kept = copy.deepcopy(page)
    made, lines = migrate(page)
    assert page == kept
    ours, theirs = (canonical(prompt) for prompt in (migrate(old)[0], to_api(made, KNOWN)))
    assert ours == theirs
    fits_together(made)
    assert [str(line).partition(" ")[2] for line in lines] == [str(line).partition(" ")[2] for line in migrate(old)[1]]


def canonical(prompt, end="TinyResult"):
    """A workflow without its ids: what leads to the result, as a tree."""
    def tree(id):
        node = prompt[id]
        given = {name: [tree(value[0]), value[1]] if isinstance(value, list) else value for name, value in node["inputs"].items()}
        return node["class_type"], sorted(given.items())

    return tree(next(id for id, node in prompt.items() if node["class_type"] == end))


def fits_together(graph):
    """Every link is written alike in the list, where it comes from and where it leads to."""
    by_id = {node["id"]: node for node in graph["nodes"]}
    numbers = [link[0] for link in graph["links"]]
    assert len(set(numbers)) == len(numbers) and len(by_id) == len(graph["nodes"])
    assert max(numbers) <= graph["last_link_id"] and max(by_id) <= graph["last_node_id"]
    for number, origin, output, target, slot, _ in graph["links"]:
        assert number in by_id[origin]["outputs"][output]["links"]
        assert by_id[target]["inputs"][slot]["link"] == number
    tied = [given["link"] for node in graph["nodes"] for given in node["inputs"] if given["link"] is not None]
    leaving = [number for node in graph["nodes"] for output in node["outputs"] for number in output["links"]]
    assert sorted(tied) == sorted(leaving) == sorted(numbers)


# ------------------------------------------------------------------------------------------------ stated differences

def difference(model, *wire, change=lambda prompt: None):
    """What one step of the old nodes gives less what ours give, and the noise it starts from."""
    old = workflow(model, *wire, steps=1)
    new = migrate(old)[0]
    change(new)
    before, after = latents(old), latents(new)
    return before - after, comfy.sample.prepare_noise(before, 3)


def test_zero_star_of_core_is_off_by_a_multiple_of_the_noisy_latent():
    gap, noise = difference("unet flow", ("CFGZeroStar", {}))
    assert torch.cosine_similarity(gap.flatten(), noise.flatten(), dim=0).abs() > 0.9999
    assert gap.abs().max() > 0.01


def test_fresca_of_core_differs_in_the_frequency_at_the_cutoff_only():
    def as_the_note_says(prompt):  # freq_cutoff * 16 / pixels
        prompt["10"]["inputs"]["cutoff"] = 4 * 16 / (8 * 16)

    gap, _ = difference("unet eps", ("FreSca", {"freq_cutoff": 4}), change=as_the_note_says)
    energy = torch.fft.fft2(gap).abs()
    at = torch.fft.fftfreq(16).mul(16).round().abs() == 4
    assert energy[..., ~at, :][..., ~at].max() < 1e-4 * energy.max()


# ------------------------------------------------------------------------------------------------ what stays

def said(old):
    (line,) = migrate(old)[1]
    return line


@pytest.mark.parametrize("wire, cfg, says", [
    ([("Mahiro", {})], 5.0, "no published method"),
    ([("APG", {"momentum": -3.0})], 5.0, "GuidanceAPG's momentum would be -3; it has to be between -1 and 1"),
    ([("APG", {})], 1.0, "doubles the picture"),
    ([("APG", {})], ["3", 0], "its sampler's cfg is linked"),
    ([("NAGuidance", {"nag_scale": ["3", 0]})], 5.0, "its nag_scale is linked"),
    ([("NAGuidance", {"nag_scale": 0.5})], 5.0, "scale would be -0.5"),
    ([("FrequencyDecoupledGuidance", {})], 1.0, "its sampler's cfg is 1"),
    ([("PerturbedAttention", {"rescale_mode": "snf"})], 5.0, "snf"),
    ([("PerturbedAttention", {"unet_block_list": "x" * 10**6})], 5.0, "which is no block"),
    ([("PerturbedAttention", {"sigma_start": 1.0, "sigma_end": 2.0})], 5.0, "its window is empty"),
    ([("DynamicThresholdingFull", {"mimic_mode": "Sawtooth"})], 5.0, "it repeats"),
    ([("DynamicThresholdingSimple", {"mimic_scale": float("nan")})], 5.0, "would be nan"),
    ([("SkipLayerGuidanceSD3", {"layers": ""})], 5.0, "it names no layer"),
    ([("RenormCFG", {"cfg_trunc": 0.5})], 5.0, "above a noise level"),
])
def test_what_cannot_be_the_same_stays_and_is_named(wire, cfg, says):
    old = workflow("unet eps", *wire, cfg=cfg)
    new, (line,) = migrate(old)
    assert says in line.said and line.said.startswith("It stays: ") and not line.new and "\n" not in str(line)
    assert new == old and len(str(line)) < 400


def test_a_wire_that_leads_nowhere_has_no_cfg_to_change():
    old = workflow("unet eps", ("APG", {}))
    del old["20"], old["21"]
    assert "leads to no sampler" in said(old).said


def test_a_scheduler_on_the_wire_is_no_sampler_and_two_samplers_get_their_own_cfg():
    old = workflow("unet eps", ("APG", {}))
    old["22"] = copy.deepcopy(old["20"])
    old["22"]["inputs"]["cfg"] = 8.0
    old["30"] = {"class_type": "BasicScheduler", "inputs": {"model": ["10", 0], "scheduler": "normal", "steps": 3, "denoise": 1.0}}
    new, (line,) = migrate(old)
    assert (new["20"]["inputs"]["cfg"], new["22"]["inputs"]["cfg"]) == (6.0, 9.0)
    assert "cfg is 6 now. Its sampler's cfg is 9 now." in line.said


@pytest.mark.parametrize("form", [dict, as_page])
def test_of_two_in_the_one_slot_the_first_is_left_out_as_it_was(form):
    old = workflow("unet v", ("RescaleCFG", {}), ("DynamicThresholdingSimple", {"mimic_scale": 3.0}))
    new, (first, second) = migrate(form(old))
    assert "left out" in first.said and second.new == ("GuidanceMimic",)
    if form is dict:
        assert torch.equal(latents(new), latents(migrate(workflow("unet v", ("DynamicThresholdingSimple", {"mimic_scale": 3.0})))[0]))
        assert (latents(old) - latents(new)).abs().max() <= SAME * latents(old).abs().max()
    else:
        assert [node["mode"] for node in new["nodes"] if node["type"] == "RescaleCFG"] == [4]


if "CFGOverride" in KNOWN:
    def test_several_overrides_on_a_wire_stay():
        lines = migrate(workflow("unet eps", ("CFGOverride", {"cfg": 3.0}), ("CFGOverride", {"cfg": 1.0, "start_percent": 0.8})))[1]
        assert all("CFGOverride is on the same wire" in line.said for line in lines)


# ------------------------------------------------------------------------------------------------ the page's form

def in_a_subgraph(page, id):
    """The page's graph as a subgraph's definition beside an empty one, whose links are objects; the model comes from outside."""
    inner = {key: copy.deepcopy(page[key]) for key in ("nodes", "links")}
    names = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    inner["links"] = [dict(zip(names, link)) for link in inner["links"]]
    for link in inner["links"]:
        if link["origin_id"] == 1:
            link["origin_id"] = -10
    inner["nodes"] = [node for node in inner["nodes"] if node["id"] != 1]
    numbers = [link["id"] for link in inner["links"] if link["origin_id"] == -10]
    inner |= {"id": "one", "name": "Inside", "inputs": [{"name": "model", "type": "MODEL", "linkIds": numbers}], "state": {}}
    host = {"id": 90, "type": "one", "inputs": [], "outputs": [], "properties": {"proxyWidgets": [[str(id), "x"]]}, "widgets_values": []}
    return {"nodes": [host], "links": [], "last_node_id": 90, "last_link_id": 0, "definitions": {"subgraphs": [inner]}}


def test_subgraphs_are_migrated_where_they_are_defined():
    page = in_a_subgraph(as_page(workflow("unet eps", ("PerpNeg", {}))), id=99)
    new, (line,) = migrate(page)
    (inner,) = new["definitions"]["subgraphs"]
    assert str(line).startswith("Inside: ") and line.new == ("GuidanceNegative",)
    by_id = {node["id"]: node for node in inner["nodes"]}
    for link in inner["links"]:
        assert by_id[link["target_id"]]["inputs"][link["target_slot"]]["link"] == link["id"]
        leaving = inner["inputs"][0]["linkIds"] if link["origin_id"] == -10 else by_id[link["origin_id"]]["outputs"][link["origin_slot"]]["links"]
        assert link["id"] in leaving
    ends = sorted(link["id"] for link in inner["links"])
    assert ends == sorted([*inner["inputs"][0]["linkIds"], *(n for node in inner["nodes"] for o in node["outputs"] for n in o["links"])])


def test_a_node_whose_widgets_a_subgraph_shows_stays():
    page = as_page(workflow("unet eps", ("TCFG", {})))
    id = next(node["id"] for node in page["nodes"] if node["type"] == "TCFG")
    assert "a subgraph shows its widgets" in said(in_a_subgraph(page, id)).said


def test_a_node_that_is_switched_off_stays_off_and_changes_no_sampler():
    page = as_page(workflow("unet eps", ("APG", {}), ("TCFG", {})))
    for node in page["nodes"]:
        node["mode"] = 4 if node["type"] in ("APG", "TCFG") else 0
    new, (apg, tcfg) = migrate(page)
    assert "switched off" in apg.said and tcfg.new
    assert [node["mode"] for node in new["nodes"] if node["type"] == "GuidanceTCFG"] == [4]
    assert [node["widgets_values"][3] for node in new["nodes"] if node["type"] == "KSampler"] == [5.0]


# ------------------------------------------------------------------------------------------------ the table

def test_the_table_has_the_order_and_the_defaults_of_the_host_s_own_nodes():
    for cls in [*CORE, KNOWN["RescaleCFG"]]:
        entry = TABLE.get(cls.__name__)
        if entry and "cases" in entry:
            types = {**cls.INPUT_TYPES()["required"], **cls.INPUT_TYPES().get("optional", {})}
            widgets = {name: more[0]["default"] for name, (kind, *more) in types.items() if more and "default" in more[0]}
            newest = list(entry.get("widgets", {}).items())  # older hosts have fewer of them
            assert list(widgets.items()) == newest[:len(widgets)], cls
            assert [name for name in types if name not in widgets] == entry["sockets"]


def test_every_entry_names_inputs_that_there_are():
    for old, entry in TABLE.items():
        known = {*entry.get("widgets", {}), *entry.get("sockets", ()), "sampler.cfg", "sampler.negative"}
        for case in entry.get("cases", [entry]):
            assert ("to" in case) != ("stays" in case) and case.get("if", {}).keys() <= known, old
            assert "stays" in case or "same" in case or case["note"].endswith("."), old
            for new in case.get("to", ()):
                assert new["inputs"].keys() <= {given["id"] for given in NODES[new["id"]]["inputs"]}, old
                for spec in new["inputs"].values():
                    of = spec if isinstance(spec, str) else spec.get("of", [])
                    assert {of} <= known if isinstance(of, str) else set(of) <= known, old


# ------------------------------------------------------------------------------------------------ bad files

@pytest.mark.parametrize("given", [None, 7, "text", [], {}, {"nodes": 3}, {"a": {"b": 1}}])
def test_what_is_no_workflow_is_refused(given):
    with pytest.raises(NoWorkflow, match="neither a workflow of the page"):
        migrate(given)


def test_the_command_writes_beside_the_workflow_and_never_over_it(tmp_path):
    from pack.migration import command

    file, said = tmp_path / "mine.json", []
    file.write_text(json.dumps(workflow("unet eps", ("TCFG", {}))))
    kept = file.read_bytes()
    command.run([str(file)], said.append)
    written = json.loads((tmp_path / "mine.guidance.json").read_text())
    assert written["10"]["class_type"] == "GuidanceTCFG" and file.read_bytes() == kept
    assert said[0] == "10 TCFG -> GuidanceTCFG. The same numbers." and said[1].endswith("mine.guidance.json")
    with pytest.raises(command.Refused, match="has to be another file"):
        command.run([str(file), "--out", str(file)], said.append)
    for text, says in [("no json", "is no JSON"), ("[" * 10**6, "is no JSON"), ("[1]", "is no workflow"),
                       ('{"nodes": [{"type": "TCFG"}]}', "damaged"), ('{"nodes": [7]}', "damaged")]:
        file.write_text(text)
        with pytest.raises(command.Refused, match=says):
            command.run([str(file)], said.append)
    with pytest.raises(command.Refused, match="cannot be read"):
        command.run([str(tmp_path / "none.json")], said.append)
