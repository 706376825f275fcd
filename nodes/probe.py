"""The menu of what is measured: a probe on the MODEL wire, and the curves of what it saw."""

import json

import numpy as np
import torch
from comfy_api.latest import io, ui

from ..guidance.core import Step
from .bridge.hooks import attach
from .bridge.record import Probe
from .curves import curves
from .inputs import MODEL, ProbeType, check


class ProbeNode(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="GuidanceProbe",
            display_name="Guidance probe",
            category="guidance/measure",
            description="Shows what guidance does while it does it: how long its direction is and where it points, and how "
                        "much of the answer comes from CFG and from each node before the probe. It changes no picture and "
                        "costs no row.",
            search_aliases=["guidance strength", "measure guidance", "analyse", "analyze", "debug cfg", "inspect"],
            inputs=[MODEL],
            outputs=[io.Model.Output(), ProbeType.Output(display_name="probe")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, model):
        probe = Probe()
        node_id = getattr(cls.hidden, "unique_id", None)
        return io.NodeOutput(attach(check(MODEL, model), "Guidance probe", Step, node_id=node_id, probe=probe), probe)


class ProbePlot(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="GuidanceProbePlot",
            display_name="Guidance probe plot",
            category="guidance/measure",
            description="Draws what a probe saw over the steps of the run, and gives all of its numbers as JSON.",
            search_aliases=["plot guidance", "guidance strength", "cfg plot", "json", "numbers"],
            inputs=[
                ProbeType.Input("probe", tooltip="Of the model that the sampler runs."),
                io.Latent.Input("latent", tooltip="What the sampler made with that model: the plot waits for it, and does "
                                "nothing else with it."),
            ],
            outputs=[io.Image.Output(), io.String.Output(display_name="numbers")],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, probe, latent):
        seen = getattr(probe, "seen", None)
        record = seen and seen.record()
        if not record or not record["step"]:
            raise ValueError("probe has recorded nothing, because no sampler has run with its model yet; it has to be the "
                             "probe of the model that made the latent.")
        pictures = [curves(record, stream) for stream in range(len(record["streams"]))]
        images = torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures]).astype(np.float32) / 255)
        numbers = json.dumps(record, allow_nan=False)
        return io.NodeOutput(images, numbers, ui={**ui.PreviewImage(images, cls=cls).as_dict(), "text": [numbers]})
