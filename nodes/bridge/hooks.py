"""The bridge to ComfyUI: a chain on a model clone, made anew for each sampling run, one forward per evaluation.

No single-slot hook is taken. Five wrappers and one entry in the post-cfg list do it all:
OUTER_SAMPLE starts a run, SAMPLER_SAMPLE its weak models, PREDICT_NOISE plans an evaluation, CALC_COND_BATCH adds
the planned predictions to the host's own batch, APPLY_MODEL tells the rows apart, and the post-cfg function hands the
host's answer to the chain.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple

import comfy.model_management
import comfy.sampler_helpers
from comfy.patcher_extension import WrappersMP

from ...guidance.core import UNCOND, Prompt, Recipe
from ...guidance.schedule import Schedule
from .attention import ROWS, Rows
from .guider import active, embedded, pair_scale
from .report import report
from .run import TAGS, Evaluation, Run, untagged
from .page import watched

CHAIN = "guidance_chain"  # in model_options: the links of the chain, in wire order
RUN = "guidance_run"  # in one run's own copy of model_options

log = logging.getLogger("comfyui-guidance")


class Link(NamedTuple):
    """One strategy on the wire.

    conds: further CONDITIONINGs, by the keys that its Prompt branches name; or a function that makes one of the
        guider's conditionings, as they are before the model processes them.
    """

    name: str
    recipe: Recipe
    conds: Mapping[str, list | Callable]
    node_id: str | None
    schedules: tuple[tuple[Schedule, Callable], ...] = ()  # its knobs that change over the run; see page.py


def attach(model, name, recipe, conds=None, node_id=None, schedules=()):
    """A clone of the model whose chain ends with one more strategy. The model that came in is not changed."""
    for conditioning in (conds or {}).values():
        if not callable(conditioning) and comfy.sampler_helpers.cond_has_hooks(conditioning):
            raise ValueError(f"{name} cannot take a conditioning with hooks (scheduled LoRAs or hooked ControlNets).")
    patched = model.clone()
    links = patched.model_options.get(CHAIN, ())
    if not links:
        for kind, wrapper in WRAPPERS.items():
            patched.add_wrapper_with_key(kind, CHAIN, wrapper)
        patched.set_model_sampler_post_cfg_function(post_cfg)
    patched.model_options[CHAIN] = (*links, Link(name, recipe, conds or {}, node_id, schedules))
    return patched


def outer_sample(executor, noise, latent_image, sampler, sigmas, *args, **kwargs):
    guider = executor.class_obj
    # While a LoRA trains, the loss needs the model's own prediction, not a guided one.
    if getattr(comfy.model_management, "in_training", False):
        return executor(noise, latent_image, sampler, sigmas, *args, **kwargs)
    run = Run(guider, guider.model_options[CHAIN], sampler, sigmas, kwargs.get("latent_shapes") or [noise.shape])
    guider.model_options[RUN] = run
    for link in run.links:
        for key, conditioning in link.conds.items():
            made = callable(conditioning)  # from the guider's own prompts, or a CONDITIONING
            guider.conds[key] = conditioning(guider.conds) if made else comfy.sampler_helpers.convert_cond(conditioning)
    check_hooks(guider.model_options)
    report(run, pair_scale(guider))
    with watched(run):
        answer = executor(noise, latent_image, sampler, sigmas, *args, **kwargs)
    run.check_attention()
    return answer


def sampler_sample(executor, guider, sigmas, extra_args, callback, noise, latent_image=None, denoise_mask=None, *args):
    run = guider.model_options.get(RUN)
    weak = run.weak.values() if run else ()
    try:
        for model in weak:
            model.begin(noise, sigmas, run.shapes, latent_image=latent_image, denoise_mask=denoise_mask,
                        seed=extra_args.get("seed"))
        return executor(guider, sigmas, extra_args, callback, noise, latent_image, denoise_mask, *args)
    finally:
        for model in weak:
            model.patcher.cleanup()


def predict_noise(executor, x, timestep, model_options={}, seed=None):
    run = model_options.get(RUN)
    if run is None:
        return executor(x, timestep, model_options, seed)
    guider = executor.class_obj
    scale = pair_scale(guider)
    moment = run.plan(float(timestep[0]), scale)  # the one read from the device, before the forward
    changed = {}
    if isinstance(moment.uncond, Prompt):
        if active(guider.conds[moment.uncond.key], moment.sigma):
            changed["conds"] = {**guider.conds, "negative": guider.conds[moment.uncond.key]}
            if hasattr(guider, "uncond_model_patcher"):
                run.say_once(f"{type(guider).__name__} has a negative of its own for its second model, so a plain "
                             "negative prompt on the main model has no effect; weighted and perp-neg have.")
        else:
            moment = replace(moment, uncond=UNCOND)
    run.watch(moment)
    if moment.rescaled or moment.combined != scale:
        changed |= {name: moment.combined for name in ("cfg", "cfg1", "cfg2") if hasattr(guider, name)}
    if moment.embed:
        conds = embedded(guider.conds, moment.embed, len(x))
        if conds is None:
            run.say_once("The prompt was not changed: this model does not read it through cross-attention.")
        else:
            changed["conds"] = {**changed.get("conds", guider.conds), **conds}
    if UNCOND in moment.asked:
        model_options = {**model_options, "disable_cfg1_optimization": True}
    before = {name: getattr(guider, name) for name in changed}
    evaluation = run.evaluation = Evaluation(run, moment, x)
    vars(guider).update(changed)
    try:
        denoised = executor(x, timestep, model_options, seed)
        if evaluation.cond is not None and not evaluation.answered:  # a guider that skips the post-cfg functions
            denoised = evaluation.answer(denoised, evaluation.cond, evaluation.uncond, evaluation.base,
                                         guider.inner_model, x, timestep, model_options)
        return denoised
    finally:
        vars(guider).update(before)
        run.evaluation = None


def calc_cond_batch(executor, model, conds, x, timestep, model_options):
    run = model_options.get(RUN)
    evaluation = run and run.evaluation
    # Other nodes call this too, for predictions of their own, and context windows call it for each window.
    if evaluation and not evaluation.batched and x is evaluation.x and model is run.guider.inner_model:
        return evaluation.batch(executor, model, conds, x, timestep, model_options)
    return executor(model, conds, x, timestep, model_options)


def apply_model(executor, x, t, c_concat=None, c_crossattn=None, control=None, transformer_options={}, **conds):
    tags = transformer_options.get(TAGS)
    if tags:
        order = transformer_options["cond_or_uncond"]
        rows = Rows([tags[i] if i < len(tags) else None for i in order])
        # Other packs know two kinds of row, and index by them.
        transformer_options = {**transformer_options, ROWS: rows, "cond_or_uncond": untagged(order, tags)}
    return executor(x, t, c_concat, c_crossattn, control, transformer_options, **conds)


def post_cfg(args):
    run = args["model_options"].get(RUN)
    evaluation = run and run.evaluation
    if not evaluation or evaluation.answered:
        return args["denoised"]
    uncond, given = args["uncond_denoised"], args["uncond"]
    if "empty_cond_denoised" in args:  # for PerpNegGuider the empty prompt is what guidance starts from
        uncond, given = args["empty_cond_denoised"], args["empty_cond"]
    return evaluation.answer(
        args["denoised"], args["cond_denoised"], None if given is None else uncond, args["cond"],
        args["model"], args["input"], args["sigma"], args["model_options"],
    )


def check_hooks(model_options):
    """Say so when another pack has thrown away what `attach` installed."""
    installed = model_options.get("transformer_options", {}).get("wrappers", {})
    lost = [kind for kind, wrapper in WRAPPERS.items() if wrapper not in installed.get(kind, {}).get(CHAIN, [])]
    others = model_options.get("sampler_post_cfg_function", [])
    if post_cfg not in others:
        names = ", ".join(f"{other.__module__}.{other.__qualname__}" for other in others) or "nothing"
        lost.append(f"the post-cfg function (now {names})")
    if lost:
        log.warning("Guidance may not work: another pack has removed %s from the model.", " and ".join(lost))


WRAPPERS = {
    WrappersMP.OUTER_SAMPLE: outer_sample,
    WrappersMP.SAMPLER_SAMPLE: sampler_sample,
    WrappersMP.PREDICT_NOISE: predict_noise,
    WrappersMP.CALC_COND_BATCH: calc_cond_batch,
    WrappersMP.APPLY_MODEL: apply_model,
}
