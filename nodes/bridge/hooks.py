"""The bridge to ComfyUI: a chain on a model clone, made anew for each sampling run, one forward per evaluation.

No single-slot hook is taken. In the order in which a run meets them:
OUTER_SAMPLE starts a run, PREPARE_SAMPLING loads what its prompts bring, SAMPLER_SAMPLE has these processed,
PREDICT_NOISE plans an evaluation, CALC_COND_BATCH adds the planned predictions to the host's own batch, APPLY_MODEL
tells the rows apart, and the post-cfg functions hand the host's answer to the chain, each stretch of it in its place.
What happens in an evaluation is in evaluation.py; here is only who calls it.
"""

import logging
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import comfy.model_management
import comfy.sampler_helpers
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP

from ...guidance.core import Recipe
from ...guidance.interval import Window
from ...guidance.schedule import Schedule
from .attention import NAMES
from .evaluation import RUN
from .halves import along
from .record import Probe
from .rows import TOLD, told_apart
from .run import Run
from .seen import APART, cropping, retold

CHAIN = "guidance_chain"  # in model_options: the links of the chain, in wire order
POST_CFG = "sampler_post_cfg_function"

log = logging.getLogger("comfyui-guidance")


class Link(NamedTuple):
    """One strategy on the wire.

    prompts: further CONDITIONINGs, by the keys that its Prompt branches name; or a function that makes one of the
        guider's own prompt, as it is before the model processes it. models: by the keys of its Weak branches.
    """

    name: str
    recipe: Recipe
    prompts: Mapping[str, list | Callable]
    models: Mapping[str, ModelPatcher]
    node_id: str | None = None
    schedules: tuple[tuple[Schedule, Callable], ...] = ()  # its knobs that change over the run; see page.py
    acts_at_1: bool = True  # whether it does anything where the scale is 1
    saves: bool = False  # whether it is there to leave out the negative
    joins: bool = False  # whether rows read their text otherwise, or other prompts too
    window: Window | None = None  # when it acts, where it is told when
    rehearsal: tuple[Recipe, ...] = ()  # what to plan with instead; see Strategy
    rows: int = 0  # how many it allows a run; 0 is any
    probe: Probe | None = None  # of a link that changes nothing: where it keeps what it has seen


class Stretch:
    """The links from `first` on, up to where the next stretch begins, as a post-cfg function: whatever other packs
    have put into the list between two of our nodes acts between them."""

    def __init__(self, first):
        self.first = first

    def __call__(self, args):
        run = args["model_options"].get(RUN)
        return args["denoised"] if run is None else run.answer(self, args)


def attach(model, name, recipe, brought=None, **more):
    """A clone of the model whose chain ends with one more strategy. The model that came in is not changed.

    brought: the prompts and models of the Link, by their keys. more: its further fields.
    """
    models = {key: value for key, value in (brought or {}).items() if isinstance(value, ModelPatcher)}
    prompts = {key: value for key, value in (brought or {}).items() if key not in models}
    for conditioning in prompts.values():
        if not callable(conditioning) and comfy.sampler_helpers.cond_has_hooks(conditioning):
            raise ValueError(f"{name} cannot take a conditioning with hooks (scheduled LoRAs or hooked ControlNets).")
    patched = model.clone()
    links = patched.model_options.get(CHAIN, ())
    if not links:
        for kind, wrapper in WRAPPERS.items():
            patched.add_wrapper_with_key(kind, CHAIN, wrapper)
    others = patched.model_options.get(POST_CFG, [])
    if not others or not isinstance(others[-1], Stretch):
        patched.set_model_sampler_post_cfg_function(Stretch(len(links)))
    patched.model_options[CHAIN] = (*links, Link(name, recipe, prompts, models, **more))
    return patched


def outer_sample(executor, noise, latent_image, sampler, sigmas, *args, **kwargs):
    guider = executor.class_obj
    # While a LoRA trains, the loss needs the model's own prediction, not a guided one.
    if getattr(comfy.model_management, "in_training", False):
        return executor(noise, latent_image, sampler, sigmas, *args, **kwargs)
    options = guider.model_options  # this run's own copy
    check_hooks(options)
    stretches = [function for function in options.get(POST_CFG, []) if isinstance(function, Stretch)]
    run = Run(guider, options[CHAIN], stretches, sampler, sigmas, kwargs.get("latent_shapes") or [noise.shape])
    options[RUN] = options["transformer_options"][RUN] = run
    # First of all, so that whatever looks at the rows of a forward finds them told apart.
    tellers = options["transformer_options"]["wrappers"][WrappersMP.APPLY_MODEL]
    options["transformer_options"]["wrappers"][WrappersMP.APPLY_MODEL] = {CHAIN: tellers[CHAIN], **tellers}
    options[POST_CFG] = [*options.get(POST_CFG, []), run.end_answer]
    if options.get("context_handler") is not None:
        options["context_handler"] = AcrossWindows(options["context_handler"])
    with run:
        return executor(noise, latent_image, sampler, sigmas, *args, **kwargs)


def prepare_sampling(executor, model, noise_shape, conds, *args, **kwargs):
    run = (kwargs.get("model_options") or {}).get(RUN)
    if run is None:
        return executor(model, noise_shape, conds, *args, **kwargs)
    loaded, _, models = executor(model, noise_shape, {**conds, **run.brought()}, *args, **kwargs)
    return loaded, conds, models


def sampler_sample(executor, guider, sigmas, extra_args, callback, noise, latent_image=None, denoise_mask=None, *args):
    run = guider.model_options.get(RUN)
    with run.prepared(noise, sigmas, latent_image=latent_image, denoise_mask=denoise_mask,
                      seed=extra_args.get("seed")) if run else nothing():
        return executor(guider, sigmas, extra_args, callback, noise, latent_image, denoise_mask, *args)


@contextmanager
def nothing():
    yield


def predict_noise(executor, x, timestep, model_options={}, seed=None):
    run = model_options.get(RUN)
    if run is None:
        if RUN in executor.class_obj.model_options:
            executor.class_obj.model_options[RUN].passed_over()
        return executor(x, timestep, model_options, seed)
    return run.call(executor, x, timestep, model_options, seed)


def calc_cond_batch(executor, model, conds, x, timestep, model_options):
    return batch(cropping(executor), model, conds, x, timestep, model_options)


def batch(executor, model, conds, x, timestep, model_options):
    run = model_options.get(RUN)
    if run is None or model is not run.guider.inner_model:
        return executor(model, conds, x, timestep, model_options)
    return run.batch(executor, conds, x, timestep, model_options)


class AcrossWindows:
    """The host's context handler, which cuts a batch into windows, preceded by what is done to a whole batch."""

    def __init__(self, handler):
        self.handler = handler

    def __getattr__(self, name):
        return getattr(self.handler, name)

    def execute(self, calc, model, conds, x, timestep, model_options):
        def windows(model, conds, x, timestep, model_options):
            # No run in the options, so that the batch of a window is left as it is.
            return self.handler.execute(calc, model, conds, x, timestep, {**model_options, RUN: None})

        return batch(windows, model, conds, x, timestep, model_options)


def apply_model(executor, x, t, c_concat=None, c_crossattn=None, control=None, transformer_options={}, **conds):
    options, run = {**dict.fromkeys(NAMES), **told_apart(transformer_options)}, transformer_options.get(RUN)
    conds.pop(APART, None)

    def forward(x, t, c_concat, c_crossattn, control, options, **conds):
        if run is None:
            return executor(x, t, c_concat, c_crossattn, control, options, **conds)
        run.called(x)
        return retold(executor, run, options.get(TOLD))(x, t, c_concat, c_crossattn, control, options, **conds)

    return along(forward, options)(x, t, c_concat, c_crossattn, control, options, **conds)


def check_hooks(model_options):
    """Say so when another pack has thrown away what `attach` installed."""
    installed = model_options.get("transformer_options", {}).get("wrappers", {})
    lost = [kind for kind, wrapper in WRAPPERS.items() if wrapper not in installed.get(kind, {}).get(CHAIN, [])]
    others = model_options.get(POST_CFG, [])
    if not any(isinstance(other, Stretch) and other.first == 0 for other in others):
        names = ", ".join(getattr(other, "__qualname__", type(other).__name__) for other in others) or "nothing"
        lost.append(f"a post-cfg function (there is now {names})")
    if lost:
        log.warning("Guidance may not work: another pack has removed %s from the model.", " and ".join(lost))


WRAPPERS = {
    WrappersMP.OUTER_SAMPLE: outer_sample,
    WrappersMP.PREPARE_SAMPLING: prepare_sampling,
    WrappersMP.SAMPLER_SAMPLE: sampler_sample,
    WrappersMP.PREDICT_NOISE: predict_noise,
    WrappersMP.CALC_COND_BATCH: calc_cond_batch,
    WrappersMP.APPLY_MODEL: apply_model,
}
