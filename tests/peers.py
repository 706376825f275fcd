"""Other packs' guidance nodes, which are not here: their formulas written out again, under their ids, in the table's order.

Also what a little workflow needs besides: models, prompts and latents of the tests by name.
"""

import importlib
import json
import math

import comfy.samplers
import nodes
import torch
import torch.nn.functional as F
from comfy.ldm.modules.attention import optimized_attention
from comfy.model_patcher import set_model_options_patch_replace
from comfy_extras.nodes_model_advanced import RescaleCFG
from pack.guidance.pladis import entmax15, sparsemax
from pack.lab.canvas import Canvas
from pack.migration.table import TABLE
from pack.tests.architectures import ARCHITECTURES
from pack.tests.host import NODES, prompt, tiny_model

MODELS = {f"unet {kind}": (lambda kind=kind: tiny_model(kind), (4, 16, 16)) for kind in ("eps", "v", "flow")}
MODELS |= {name: (ARCHITECTURES[name].model, ARCHITECTURES[name].latent) for name in ("flux", "sd3", "wan") if name in ARCHITECTURES}


def v1(id, takes, gives, function, **more):
    """A node in the host's older form."""
    form = {"INPUT_TYPES": classmethod(lambda cls: {"required": takes}), "RETURN_TYPES": gives, "FUNCTION": "run",
            "CATEGORY": "test", "run": lambda self, **inputs: function(**inputs), **more}
    return type(id, (), form)


NAMED = {"name": (list(MODELS),)}
LITTLE = {
    "TinyModel": v1("TinyModel", NAMED, ("MODEL",), lambda name: (MODELS[name][0](),)),
    "TinyPrompt": v1("TinyPrompt", {**NAMED, "which": ("INT", {"default": 1})}, ("CONDITIONING",), lambda name, which: (
        ARCHITECTURES[name].prompt(which) if name in ARCHITECTURES else prompt(which),)),
    "TinyLatent": v1("TinyLatent", NAMED, ("LATENT",), lambda name: ({"samples": torch.zeros(1, *MODELS[name][1])},)),
    "TinyResult": v1("TinyResult", {"samples": ("LATENT",)}, (), lambda samples: (samples,), OUTPUT_NODE=True),
}


# ------------------------------------------------------------------------------------------------ sd-perturbed-attention

def away(patches, model, scale, sigma_start, sigma_end, rescale, strength=lambda args: 1.0):
    """+ scale * (cond - what the model predicts with attention replaced) in a window; rescale shrinks what is added."""
    high = math.inf if sigma_start < 0 else sigma_start

    def post(args):
        sigma, options, now = args["sigma"][0], args["model_options"].copy(), scale * strength(args)
        if now <= 0 or not sigma_end < sigma <= high:
            return args["denoised"]
        for name, place, patch in patches:
            options = set_model_options_patch_replace(options, patch, name, *place)
        (weak,) = comfy.samplers.calc_cond_batch(args["model"], [args["cond"]], args["input"], args["sigma"], options)
        term = (args["cond_denoised"] - weak) * now
        ratio = args["cond_denoised"].std((1, 2, 3), keepdim=True) / (args["denoised"] + term).std((1, 2, 3), keepdim=True)
        return args["denoised"] + term * (rescale * ratio + 1 - rescale)

    patched = model.clone()
    patched.set_model_sampler_post_cfg_function(post)
    return (patched,)


def pag(model, scale, adaptive_scale, unet_block, unet_block_id, sigma_start, sigma_end, rescale, rescale_mode,
        unet_block_list):
    def strength(args):
        return 1 - adaptive_scale**4 * (1000 - float(args["model"].model_sampling.timestep(args["sigma"])[0]))

    blind = [("attn1", (unet_block, unet_block_id), lambda q, k, v, extra, mask=None: v)]
    return away(blind, model, scale, sigma_start, sigma_end, rescale, strength if adaptive_scale else lambda args: 1.0)


def seg(model, scale, blur_sigma, unet_block, unet_block_id, sigma_start, sigma_end, rescale, rescale_mode, unet_block_list):
    def flat(q, k, v, extra, mask=None):
        return optimized_attention(q.mean(1, keepdim=True).expand_as(q).contiguous(), k, v, heads=extra["n_heads"])

    return away([("attn1", (unet_block, unet_block_id), flat)], model, scale, sigma_start, sigma_end, rescale)


def tpg(model, scale, sigma_start, sigma_end, rescale, rescale_mode, unet_block_list):
    def shuffled(q, k, v, extra, mask=None):
        return optimized_attention(q[:, torch.randperm(q.shape[1])], k, v, heads=extra["n_heads"])

    return away([("attn1", ("input", 1), shuffled)], model, scale, sigma_start, sigma_end, rescale)


def each_attn2(model, replace):
    patched = model.clone()
    for part, count in (("input", 12), ("middle", 1), ("output", 12)):
        for number in range(count):
            patched.set_model_attn2_replace(replace, part, number)
    return patched


def normalized(plus, minus, scale, tau, alpha):
    """Their z+ * scale - z- * (scale - 1), limited and blended."""
    guided = plus * scale - minus * (scale - 1)
    ratio = guided.norm(p=1, dim=-1, keepdim=True) / plus.norm(p=1, dim=-1, keepdim=True)
    return alpha * guided * (ratio.clamp(max=tau) / ratio) + (1 - alpha) * plus


def nag(model, negative, scale, tau, alpha, sigma_start, sigma_end, unet_block_list):
    layers = {}
    for name, module in model.model.diffusion_model.named_modules():
        if type(module).__name__ == "BasicTransformerBlock":
            part, number, *_ = name.split(".")
            layers[part.removesuffix("_block").removesuffix("_blocks"), int(number) - (part == "middle_block")] = module.attn2

    def replace(q, k, v, extra):
        plain = optimized_attention(q, k, v, extra["n_heads"])
        order, layer = extra["cond_or_uncond"], layers[tuple(extra["block"][:2])]
        rows, at = q.shape[0] // len(order), order.index(0)
        mine = slice(at * rows, (at + 1) * rows)
        tokens = negative[0][0]
        other = optimized_attention(q[mine], layer.to_k(tokens), layer.to_v(tokens), extra["n_heads"])
        plain[mine] = normalized(plain[mine], other, scale + 1, tau, alpha)  # they write z+ + scale * (z+ - z-)
        return plain

    return (each_attn2(model, replace),)


def pladis(model, scale, sparse_func):
    function = {"entmax1.5": entmax15, "sparsemax": sparsemax}[sparse_func]

    def replace(q, k, v, extra):
        heads = extra["n_heads"]
        apart = lambda t: t.unflatten(-1, (heads, -1)).transpose(1, 2)
        weights = function(apart(q) @ apart(k).mT * (q.shape[-1] // heads) ** -0.5)
        sparse = (weights @ apart(v)).transpose(1, 2).flatten(2)
        return torch.lerp(optimized_attention(q, k, v, heads), sparse, scale)

    return (each_attn2(model, replace),)


def in_cfg_slot(model, function):
    """function: (x, cond, uncond, cfg, args) -> x0, in the hook that only one node has."""
    patched = model.clone()
    patched.set_model_sampler_cfg_function(lambda args: args["input"] - function(
        args["input"], args["cond_denoised"], args["uncond_denoised"], args["cond_scale"], args))
    return (patched,)


def fdg(model, strength_high):
    taps = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
    kernel = torch.outer(taps, taps)[None, None]

    def blurred(x):
        return F.conv2d(F.pad(x.flatten(0, 1)[:, None], (2, 2, 2, 2), mode="reflect"), kernel).view(x.shape)

    def smooth(x):
        half = F.interpolate(blurred(x), scale_factor=0.5, mode="bilinear")
        return blurred(F.interpolate(half, x.shape[2:], mode="bilinear"))

    def guided(x, cond, uncond, cfg, args):
        low = smooth(cond - uncond)
        return cond + (cfg - 1) * low + (strength_high - 1) * (cond - uncond - low)

    return in_cfg_slot(model, guided)


def momentum(model, momentum, ema):
    average = []

    def post(args):
        answer = args["denoised"]
        before = average[-1] if average else answer
        average.append((1 - ema) * answer + ema * before)
        return answer + momentum * (answer - before)

    patched = model.clone()
    patched.set_model_sampler_post_cfg_function(post)
    return (patched,)


# ------------------------------------------------------------------------------------------------ dynamic thresholding

def over_the_run(scale, mode, least, power, step):
    frac = step / 998
    share = {"Constant": 1.0, "Linear Down": 1 - frac, "Cosine Up": 1 - math.cos(frac * 1.5707), "Power Up": frac**power}
    return least + (scale - least) * share[mode]


def thresholding(model, mimic_scale, threshold_percentile, mimic_mode="Constant", mimic_scale_min=0.0, cfg_mode="Constant",
                 cfg_scale_min=0.0, sched_val=1.0, separate_feature_channels="disable", scaling_startpoint="MEAN",
                 variability_measure="AD", interpolate_phi=1.0):
    def guided(x, cond, uncond, cfg, args):
        step = 999 - float(model.model.model_sampling.timestep(args["sigma"])[0])
        small = over_the_run(mimic_scale, mimic_mode, mimic_scale_min, sched_val, step)
        large = over_the_run(cfg, cfg_mode, cfg_scale_min, sched_val, step)
        calm, answer = (uncond + s * (cond - uncond) for s in (small, large))
        calm_mean, mean = calm.mean((2, 3), keepdim=True), answer.mean((2, 3), keepdim=True)
        over = (2, 3) if separate_feature_channels == "enable" else (1, 2, 3)
        start = over[0]
        sizes = [(calm - calm_mean).flatten(start), (answer - mean).flatten(start)]
        if variability_measure == "STD":
            want, have = (size.std(-1) for size in sizes)
        else:
            want, have = sizes[0].abs().amax(-1), torch.quantile(sizes[1].abs(), threshold_percentile, dim=-1)
        want, have = (size.view(*size.shape, *[1] * (4 - size.ndim)) for size in (want, have))
        if scaling_startpoint == "ZERO":
            limited = answer * want / have
        elif variability_measure == "STD":
            limited = (answer - mean) / have * want + mean
        else:
            most = torch.maximum(want, have)
            limited = (answer - mean).clamp(-most, most) / most * want + mean
        return limited * interpolate_phi + answer * (1 - interpolate_phi)

    return in_cfg_slot(model, guided)


# ------------------------------------------------------------------------------------------------ Skimmed, Automatic CFG

def skimmed(model, Skimming_CFG, full_skim_negative, disable_flipping_filter):
    def skim(x, near, far, cfg, small):
        answer = far + cfg * (near - far)
        mask = ((near - far).sign() == near.sign()) & (near.sign() == answer.sign())
        if not disable_flipping_filter:
            mask &= answer.sign() == (answer - x).sign()
        return torch.where(mask, near - (answer - far - small * (near - far)) / cfg, near)

    def pre(args):
        (cond, uncond), x, cfg = args["conds_out"][:2], args["input"], args["cond_scale"]
        if not uncond.any():
            return args["conds_out"]
        uncond = skim(x, uncond, cond, cfg, 0 if full_skim_negative else Skimming_CFG)
        return [skim(x, cond, uncond, cfg, Skimming_CFG), uncond]

    patched = model.clone()
    patched.set_model_sampler_pre_cfg_function(pre)
    return (patched,)


def automatic(model, hard_mode, boost):
    def guided(x, cond, uncond, cfg, args):
        if boost and args["sigma"][0] < 1:
            return cond
        at_8 = uncond + 8 * (cond - uncond)
        count = int(at_8.shape[2] * 0.25)
        top, low = (at_8.topk(count, largest=largest).values for largest in (True, False))
        extent = (top.mean((2, 3), keepdim=True) + low.abs().mean((2, 3), keepdim=True)) / 2
        return uncond + 8 * cfg / 10 / extent * (cond - uncond)

    return in_cfg_slot(model, guided)


# ------------------------------------------------------------------------------------------------ KJNodes

def step_of(sigmas, sigma):
    return int((sigmas - sigma).abs().argmin())


class ByShareOfSteps(comfy.samplers.CFGGuider):
    def predict_noise(self, x, timestep, model_options={}, seed=None):
        sigmas = model_options["transformer_options"]["sample_sigmas"]
        start, end, cfg = self.scheduled
        inside = start <= step_of(sigmas, timestep[0]) / (len(sigmas) - 1) <= end
        return comfy.samplers.sampling_function(self.inner_model, x, timestep, self.conds["negative"] if inside else None,
                                                self.conds["positive"], cfg if inside else 1.0, model_options, seed)


def scheduled(model, positive, negative, cfg, start_percent, end_percent):
    guider = ByShareOfSteps(model)
    guider.set_conds(positive, negative)
    guider.scheduled = start_percent, end_percent, cfg
    return (guider,)


def zero_star(model, use_zero_init, zero_init_steps):
    def guided(x, cond, uncond, cfg, args):
        if use_zero_init and step_of(args["model_options"]["transformer_options"]["sample_sigmas"], args["sigma"][0]) <= zero_init_steps:
            return x
        v, n = x - cond, x - uncond
        multiple = (v * n).flatten(1).sum(1) / n.flatten(1).square().sum(1)
        n = n * multiple.view(-1, *[1] * (x.ndim - 1))
        return x - (n + cfg * (v - n))

    return in_cfg_slot(model, guided)


def skipped_in_uncond(model, blocks, start_percent, end_percent):
    """Through the host's calc hook: theirs asks TeaCache which row is which."""
    def calc(args):
        conds, options = args["conds"], args["model_options"].copy()
        for number in map(int, blocks.split(",")):
            options = set_model_options_patch_replace(options, lambda given, extra: given, "dit", "double_block", number)
        rest = args["input"], args["sigma"]
        (cond,) = comfy.samplers.calc_cond_batch(args["model"], conds[:1], *rest, args["model_options"])
        (uncond,) = comfy.samplers.calc_cond_batch(args["model"], conds[1:], *rest, options)
        return [cond, uncond]

    patched = model.clone()
    patched.set_model_sampler_calc_cond_batch_function(calc)
    return (patched,)


def wan_nag(model, conditioning, nag_scale, nag_alpha, nag_tau, input_type, inplace):
    patched = model.clone()
    network = patched.get_model_object("diffusion_model")
    tokens = network.text_embedding(conditioning[0][0])

    def forward_of(layer):
        def forward(x, context, **more):
            def seen(rows, text):
                return optimized_attention(layer.norm_q(layer.q(x[rows])), layer.norm_k(layer.k(text)), layer.v(text),
                                           heads=layer.num_heads)

            first, rest = slice(1), slice(1, None)  # of the sampler's two rows they take the first one for the prompt's
            rows = [normalized(seen(first, context[first]), seen(first, tokens), nag_scale, nag_tau, nag_alpha)]
            return layer.o(torch.cat([*rows, *(seen(rest, context[rest]) for _ in x[rest])]))
        return forward

    for i, block in enumerate(network.blocks):
        patched.add_object_patch(f"diffusion_model.blocks.{i}.cross_attn.forward", forward_of(block.cross_attn))
    return (patched,)


FORMULAS = {
    "PerturbedAttention": pag, "SmoothedEnergyGuidanceAdvanced": seg, "TokenPerturbationGuidance": tpg,
    "NormalizedAttentionGuidance": nag, "PLADIS": pladis, "FrequencyDecoupledGuidance": fdg, "MomentumGuidance": momentum,
    "DynamicThresholdingSimple": thresholding, "DynamicThresholdingFull": thresholding, "Skimmed CFG": skimmed,
    "Automatic CFG": automatic, "ScheduledCFGGuidance": scheduled, "CFGZeroStarAndInit": zero_star,
    "SkipLayerGuidanceWanVideo": skipped_in_uncond, "WanVideoNAG": wan_nag,
}
SOCKETS = {"model": "MODEL"}
FORMS = {bool: "BOOLEAN", int: "INT", float: "FLOAT", str: "STRING"}


def peer(id):
    entry = TABLE[id]
    takes = {name: (SOCKETS.get(name, "CONDITIONING"),) for name in entry["sockets"]}
    takes |= {name: (FORMS[type(default)], {"default": default}) for name, default in entry.get("widgets", {}).items()}
    return v1(id, takes, ("GUIDER",) if "positive" in takes else ("MODEL",), FORMULAS[id])


def of_core(module, names):
    """The host's nodes, less those that it does not have yet."""
    try:
        module = importlib.import_module(f"comfy_extras.{module}")
    except ImportError:
        return []
    return [getattr(module, name) for name in names.split() if hasattr(module, name)]


CORE = [cls for module, names in {
    "nodes_apg": "APG", "nodes_cfg": "CFGZeroStar CFGNorm", "nodes_fresca": "FreSca", "nodes_lumina2": "RenormCFG",
    "nodes_mahiro": "Mahiro", "nodes_nag": "NAGuidance", "nodes_pag": "PerturbedAttentionGuidance",
    "nodes_perpneg": "PerpNeg PerpNegGuider", "nodes_sd3": "SkipLayerGuidanceSD3", "nodes_tcfg": "TCFG",
    "nodes_slg": "SkipLayerGuidanceDiT SkipLayerGuidanceDiTSimple",
    "nodes_custom_sampler": "CFGOverride CFGGuider SamplerCustomAdvanced BasicScheduler KSamplerSelect RandomNoise",
}.items() for cls in of_core(module, names)]
KNOWN = {
    **nodes.NODE_CLASS_MAPPINGS, **{cls.__name__: cls for cls in CORE}, "RescaleCFG": RescaleCFG, **LITTLE,
    **{id: peer(id) for id in FORMULAS}, **NODES,
}


# ------------------------------------------------------------------------------------------------ little workflows

def workflow(model, *wire, cfg=5.0, steps=3):
    """An API prompt: old nodes, as (id, inputs), on the wire from a model to a sampler. A guider ends it."""
    made = {
        "1": ("TinyModel", {"name": model}), "2": ("TinyPrompt", {"name": model, "which": 1}),
        "3": ("TinyPrompt", {"name": model, "which": 2}), "4": ("TinyPrompt", {"name": model, "which": 3}),
        "5": ("TinyLatent", {"name": model}),
    }
    links = {"model": ["1", 0], "positive": ["2", 0], "negative": ["3", 0], "conditioning": ["4", 0], "empty_conditioning": ["4", 0]}
    for number, (id, inputs) in enumerate(wire, 10):
        takes = KNOWN[id].INPUT_TYPES()
        takes = [*takes["required"], *takes.get("optional", {})]
        defaults = {name: value for name, value in TABLE.get(id, {}).get("widgets", {}).items() if name in takes}
        made[str(number)] = (id, {**{name: links[name] for name in takes if name in links}, **defaults, **inputs})
        links["model"] = [str(number), 0]
    common = {"latent_image": ["5", 0]}
    if "GUIDER" in KNOWN[made[links["model"][0]][0]].RETURN_TYPES:
        made["30"] = ("BasicScheduler", {"model": ["1", 0], "scheduler": "normal", "steps": steps, "denoise": 1.0})
        made["31"] = ("KSamplerSelect", {"sampler_name": "euler"})
        made["32"] = ("RandomNoise", {"noise_seed": 3})
        made["20"] = ("SamplerCustomAdvanced", {"noise": ["32", 0], "guider": links["model"], "sampler": ["31", 0],
                                                "sigmas": ["30", 0], **common})
    else:
        made["20"] = ("KSampler", {"model": links["model"], "seed": 3, "steps": steps, "cfg": cfg, "sampler_name": "euler",
                                   "scheduler": "normal", "positive": ["2", 0], "negative": ["3", 0], "denoise": 1.0, **common})
    made["21"] = ("TinyResult", {"samples": ["20", 0]})
    return {id: {"class_type": kind, "inputs": inputs} for id, (kind, inputs) in made.items()}


def as_page(prompt):
    """The same as the page saves it."""
    canvas, placed, waiting = Canvas(KNOWN), {}, dict(prompt)
    while waiting:
        id = next(id for id, node in waiting.items()
                  if all(given[0] in placed for given in node["inputs"].values() if isinstance(given, list)))
        node = waiting.pop(id)
        links = {name: (placed[given[0]], given[1]) for name, given in node["inputs"].items() if isinstance(given, list)}
        values = {name: given for name, given in node["inputs"].items() if not isinstance(given, list)}
        placed[id] = canvas.add(node["class_type"], (0, 0), links, values)
    return json.loads(canvas.text())
