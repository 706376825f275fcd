"""The menu of strategies about prompts: what to push away from, what stands for no prompt, noise on the prompt."""

from functools import partial
from uuid import uuid4

import folder_paths
import torch
from comfy_api.latest import io
from safetensors.torch import load_file

from .. import guidance
from .bridge.guider import is_negative
from .inputs import number, used_when, window
from .strategy import Strategy

NO_FILE = "none"


class Negative(Strategy):
    node_id = "GuidanceNegative"
    title = "Negative prompt"
    about = (
        "Another negative prompt, with its own weight and its own part of the run. plain: it replaces the sampler's negative "
        "(no extra cost); with a late start the picture forms first and the unwanted thing is then removed with less "
        "damage. weighted and perp-neg push away from it beside the sampler's negative (1 row more each); perp-neg "
        "spares what the negative shares with the prompt, and wants an empty prompt as the sampler's negative. Put "
        "several in a row for several negatives; those of one length are computed in one forward."
    )
    aliases = ["negative prompt", "perp-neg", "PerpNegGuider", "PerpNeg", "delayed negative", "weighted negative"]
    when = window("Push away")
    inputs = [
        io.Conditioning.Input("negative", tooltip="What should not be in the picture."),
        io.Combo.Input("mode", options=["plain", "weighted", "perp-neg"], default="plain",
                       tooltip="plain replaces the sampler's negative; the others come on top of it."),
        number("weight", 1.0, -10.0, 10.0, "How strongly to push away (weighted, perp-neg). 0 is off and costs nothing.",
               **used_when(mode=["weighted", "perp-neg"])),
        *when,
    ]
    recipes = {
        "plain": lambda key, weight, window: guidance.negative_instead(key, window),
        "weighted": guidance.negative_weighted,
        "perp-neg": guidance.perp_neg,
    }

    @classmethod
    def prepare(cls, model, negative, mode, **knobs):
        key = f"guidance_{uuid4().hex}"
        return model, partial(cls.recipes[mode], key, **knobs), {key: as_negative(negative)}

    @classmethod
    def acts_at_1(cls, model, knobs):
        return knobs["mode"] != "plain"


def as_negative(conditioning):
    """Some models encode positive and negative prompts differently; the host asks the conditioning which it is."""
    return [[tokens, {**values, "prompt_type": "negative"}] for tokens, values in conditioning]


class Null(Strategy):
    node_id = "GuidanceNull"
    category = "guidance/more"
    title = "Null prompt"
    about = (
        "What stands for 'no prompt' in CFG, in place of the sampler's negative. Best is what the model was trained "
        "with: an empty prompt for SD1.5, zeros for SDXL. independent (ICG) is for models that were never trained "
        "without a prompt; mean is an experiment that nobody has published. 2 rows, like CFG; none where cfg is 1."
    )
    aliases = ["null prompt", "zero out", "ConditioningZeroOut", "icg", "independent condition guidance",
               "empty uncond", "Support empty uncond", "learned null", "unconditional"]
    when = window("Use it")
    inputs = [
        io.Combo.Input("null", options=["zeros", "empty prompt", "independent", "mean", "file"], default="zeros",
                       display_name="null prompt",
                       tooltip="zeros: tokens and pooled embedding all 0. empty prompt: needs clip. independent: random "
                       "tokens with the prompt's mean and deviation. mean: every token is the mean of the prompt's. "
                       "file: a learned null, see embedding."),
        io.Int.Input("seed", default=0, min=0, max=2**63 - 1, control_after_generate=True,
                     **used_when(null=["independent"]), tooltip="independent only: which random tokens."),
        io.Combo.Input("embedding", options=[NO_FILE], default=NO_FILE, display_name="embedding file",
                       **used_when(null=["file"]), tooltip="file only: a .safetensors in the "
                       "embeddings folder with what the text encoder would have put out: a tensor (tokens, width), and "
                       "one (width) for the pooled embedding if the model has it. For a textual inversion write "
                       "embedding:name in the negative prompt instead."),
        *when,
        io.Clip.Input("clip", optional=True, display_name="clip (for empty prompt)", tooltip="empty prompt only."),
    ]

    @classmethod
    def define_schema(cls):
        cls.list_files()
        return super().define_schema()

    @classmethod
    def check(cls, knobs):
        cls.list_files()
        return super().check(knobs)

    @classmethod
    def list_files(cls):
        files = [name for name in folder_paths.get_filename_list("embeddings") if name.endswith(".safetensors")]
        next(given for given in cls.inputs if given.id == "embedding").options = [NO_FILE, *files]

    @classmethod
    def prepare(cls, model, null, seed, embedding, window, clip=None):
        key = f"guidance_{uuid4().hex}"
        if null == "empty prompt":
            if clip is None:
                raise ValueError("GuidanceNull: for the empty prompt connect clip.")
            made = as_negative(clip.encode_from_tokens_scheduled(clip.tokenize("")))
        elif null == "file":
            made = partial(from_prompt, partial(learned, read_null(embedding)))
        else:
            made = partial(from_prompt, {"zeros": zeros, "mean": mean, "independent": partial(independent, seed)}[null])
        return model, partial(guidance.negative_instead, key, window), {key: made}


def from_prompt(null, conds):
    """The guider's prompt with everything that its text became replaced; areas, masks and the like stay."""
    made = []
    for entry in conds.get("positive") or next(cond for name, cond in conds.items() if not is_negative(name)):
        entry = {**entry, "uuid": uuid4(), "prompt_type": "negative"}
        for name in ("cross_attn", "pooled_output", "conditioning_lyrics"):
            if entry.get(name) is not None:
                entry[name] = null(name, entry[name])
        made.append(entry)
    return made


def zeros(name, value):
    return torch.zeros_like(value)


def mean(name, value):
    """Each token is the mean of all. The pooled embedding, a summary already, becomes zeros."""
    return value.mean(1, keepdim=True).expand_as(value).contiguous() if name == "cross_attn" else zeros(name, value)


def independent(seed, name, value):
    """Noise with the prompt's mean and deviation. Sadat et al. 2024 (ICG), https://arxiv.org/abs/2407.02687"""
    noise = torch.randn(value.shape[1:], generator=torch.Generator().manual_seed(seed)).to(value)
    return (value.mean() + value.std(correction=0) * noise).expand_as(value).contiguous()


def learned(null, name, value):
    """A null from a file, in place of tokens (batch, tokens, width) or of a pooled embedding (batch, width)."""
    rank = {"cross_attn": 2, "pooled_output": 1}.get(name)
    given = next((tensor for tensor in null.values() if tensor.ndim == rank), None)
    if given is None:
        if rank == 2:
            raise ValueError("GuidanceNull: the embedding has no tensor (tokens, width).")
        return zeros(name, value)
    if given.shape[-1] != value.shape[-1]:
        raise ValueError(f"GuidanceNull: the embedding is {given.shape[-1]} wide and this model's prompts are "
                         f"{value.shape[-1]}.")
    return given.to(value).expand(len(value), *given.shape)


def read_null(name):
    """The tensors of an embedding file, without a batch dimension of 1, as floats."""
    named = name != NO_FILE and name.endswith(".safetensors")
    path = folder_paths.get_full_path("embeddings", name) if named else None
    if path is None:
        raise ValueError(f"GuidanceNull: embedding is {name!r}; it has to be a .safetensors file in the "
                         "embeddings folder.")
    try:
        tensors = load_file(path)
    except Exception:  # of several kinds, none of them documented
        raise ValueError(f"GuidanceNull: {name} is damaged, or no safetensors file.") from None
    if not any(tensor.ndim in (2, 3) for tensor in tensors.values()):
        raise ValueError(f"GuidanceNull: {name} has no tensor (tokens, width).")
    for tensor in tensors.values():
        if not tensor.is_floating_point():
            raise ValueError(f"GuidanceNull: {name} holds {str(tensor.dtype).removeprefix('torch.')}; it has to hold "
                             "floating point numbers.")
        if 0 in tensor.shape:
            raise ValueError(f"GuidanceNull: {name} holds an empty tensor of shape {tuple(tensor.shape)}.")
        if not tensor.float().isfinite().all():
            raise ValueError(f"GuidanceNull: {name} holds numbers that are not finite.")
    return {key: tensor[0] if tensor.ndim == 3 and len(tensor) == 1 else tensor for key, tensor in tensors.items()}


class CADS(Strategy):
    node_id = "GuidanceCADS"
    category = "guidance/more"
    title = "CADS"
    about = (
        "More variety from one prompt, even from models that make much the same picture for every seed: noise on the "
        "prompt while the picture takes shape, none afterwards. Costs nothing. The paper measures it on "
        "class-conditional models; how much noise a text encoder bears has to be found by trying."
    )
    aliases = ["cads", "condition annealed", "diversity", "variety", "noise conditioning", "turbo", "lightning"]
    inputs = [
        number("noise", 0.1, 0.0, 5.0, "How strong the noise is, in units of the deviation of the prompt's embedding. The "
               "paper tries 0.025 to 0.25; more is more varied and less faithful. 0 is off.",
               display_name="noise on the prompt"),
        io.Float.Input("start", default=0.6, min=0.0, max=1.0, step=0.01, display_name="start of noise (tau1)",
                       tooltip="tau1: the prompt is left alone when no "
                       "more than this share of the run's time remains. 1 is off."),
        io.Float.Input("full", default=0.9, min=0.0, max=1.0, step=0.01, display_name="full noise (tau2)",
                       tooltip="tau2: only noise is left of the prompt "
                       "while at least this share remains."),
        io.Float.Input("restore", default=1.0, min=0.0, max=1.0, step=0.01, display_name="restore spread (psi)",
                       tooltip="psi: how far to bring the "
                       "embedding's mean and deviation back to what they were. Less is more varied, and riskier."),
        io.Int.Input("seed", default=0, min=0, max=2**63 - 1, control_after_generate=True,
                     tooltip="Which noise. Every picture of a batch has its own."),
    ]

    @classmethod
    def prepare(cls, model, start, full, **knobs):
        if start > full:
            raise ValueError(f"start is {start:g} and full is {full:g}; start has to be the smaller, because less time "
                             "remains then.")
        return model, partial(guidance.cads, start=start, full=full, **knobs), {}

    @classmethod
    def acts_at_1(cls, model, knobs):
        return True
