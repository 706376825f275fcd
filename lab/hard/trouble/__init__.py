"""Nodes for the hard tests, which only their own server loads: one that makes trouble in the middle of a run, and one that
looks at a latent. They are no part of the pack."""
import base64
import gc
import os

import comfy.model_management
import nodes
import torch
from comfy.patcher_extension import WrappersMP
from comfy_api.latest import ComfyExtension, io

KILL = 9  # Windows has no signal of that name, but ends a process just so
KINDS = ["none", "interrupt", "out of memory", "little memory", "kill"]


class Trouble:
    """What happens to a run at one of its evaluations, counted from 1; with little memory, how many entries of a batch
    fit into a forward."""

    def __init__(self, kind, at):
        self.kind, self.at, self.evaluation = kind, at, 0

    def run(self, executor, *args, **kwargs):
        self.evaluation = 0
        if self.kind != "little memory":
            return executor(*args, **kwargs)
        model, rows = executor.class_obj.model_patcher.model, self.at * args[0].shape[0]
        # Only batches that are put together are asked for with the shapes of their prompts.
        model.memory_required = lambda shape, cond_shapes={}: 1e30 if cond_shapes and shape[0] > rows else 0
        try:
            return executor(*args, **kwargs)
        finally:
            del model.memory_required

    def evaluate(self, executor, *args, **kwargs):
        self.evaluation += 1
        return executor(*args, **kwargs)

    def forward(self, executor, *args, **kwargs):
        if self.evaluation == self.at:
            if self.kind == "interrupt":
                nodes.interrupt_processing()
            if self.kind == "out of memory":
                raise comfy.model_management.OOM_EXCEPTION("Allocation on device: out of memory, as the hard tests want it.")
            if self.kind == "kill":
                os.kill(os.getpid(), KILL)
        return executor(*args, **kwargs)


class HardTrouble(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="HardTrouble",
            category="hard",
            inputs=[io.Model.Input("model"), io.Combo.Input("kind", options=KINDS), io.Int.Input("at", default=1, min=0)],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(cls, model, kind, at):
        patched, trouble = model.clone(), Trouble(kind, at)
        patched.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, "trouble", trouble.run)
        patched.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, "trouble", trouble.evaluate)
        patched.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "trouble", trouble.forward)
        return io.NodeOutput(patched)


class HardLook(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(node_id="HardLook", category="hard", inputs=[io.Latent.Input("latent")], is_output_node=True)

    @classmethod
    def execute(cls, latent):
        values = latent["samples"].to(torch.float32).contiguous()
        return io.NodeOutput(ui={"latent": [base64.b64encode(values.numpy().tobytes()).decode()]})


class Hard(ComfyExtension):
    async def on_load(self):
        # The host collects garbage whenever a model is gone, and each time looks through all that was ever imported, which
        # takes longer than a prompt. What is there already stays out of that.
        gc.collect()
        gc.freeze()

    async def get_node_list(self):
        return [HardTrouble, HardLook]


async def comfy_entrypoint():
    return Hard()
