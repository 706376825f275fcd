"""A migrated workflow in the page: it loads without a complaint, and what the page would queue is what was meant."""

import pytest
from pack.migration.migrate import migrate
from pack.tests.peers import as_page
from pack.tests.test_migration import canonical

WIRE = {"rescale": ("RescaleCFG", {"multiplier": 0.4}), "perp": ("PerpNeg", {"neg_scale": 1.5, "empty_conditioning": ["empty", 0]}),
        "pag": ("PerturbedAttentionGuidance", {"scale": 2.0}), "apg": ("APG", {"eta": 0.3, "norm_threshold": 4.0, "momentum": -0.5})}


def workflow(*wire):
    made = {"model": ("GuidanceDemoModel", {"prediction": "v", "network": "ordinary"})}
    made |= {name: ("CLIPTextEncode", {"clip": ["model", 1], "text": name}) for name in ("positive", "negative", "empty")}
    model = "model"
    for name in wire:
        kind, inputs = WIRE[name]
        made[name], model = (kind, {"model": [model, 0], **inputs}), name
    made["latent"] = ("EmptyLatentImage", {"width": 32, "height": 32, "batch_size": 1})
    made["sampler"] = ("KSampler", {"model": [model, 0], "positive": ["positive", 0], "negative": ["negative", 0],
                                    "latent_image": ["latent", 0], "seed": 1, "steps": 4, "cfg": 5.0, "sampler_name": "euler",
                                    "scheduler": "normal", "denoise": 1.0})
    made["decoded"] = ("VAEDecode", {"samples": ["sampler", 0], "vae": ["model", 2]})
    made["shown"] = ("PreviewImage", {"images": ["decoded", 0]})
    return {id: {"class_type": kind, "inputs": inputs} for id, (kind, inputs) in made.items()}


@pytest.mark.parametrize("wire", [("perp", "pag"), ("apg", "rescale")], ids=" + ".join)
def test_the_page_queues_a_migrated_workflow_as_it_was_meant(page, wire):
    made, lines = migrate(as_page(workflow(*wire)))
    assert all(line.new for line in lines)
    page.evaluate("workflow => app.loadGraphData(workflow, true, false, app.extensionManager.workflow?.activeWorkflow)", made)
    page.wait_for_function("count => app.graph.nodes.length === count", arg=len(made["nodes"]))
    queued = page.evaluate("async () => (await app.graphToPrompt()).output")
    assert canonical(queued, "PreviewImage") == canonical(migrate(workflow(*wire))[0], "PreviewImage")
    assert not page.errors
