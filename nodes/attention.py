"""The menu of strategies inside attention that cost no row: rows read their text otherwise, or other prompts too."""

from functools import partial
from uuid import uuid4

from comfy_api.latest import io

from .. import guidance
from ..guidance.pladis import FUNCTIONS
from .bridge.attention import install
from .bridge.joined import ITS_OWN, form_of
from .inputs import MODEL, check, number, window
from .prompts import as_negative
from .strategy import Strategy
from .words import encoded, taken_apart, words_alone


class Joining(Strategy):
    """A strategy that changes what the sampler's rows read: its conditioning too, where it has one."""

    joins = True

    @classmethod
    def joined(cls, model, conditioning, recipe):
        """What `prepare` gives back, for a model that can do it and a conditioning that can be joined."""
        key = new_key()
        return cls.reading(model, conditioning), partial(recipe, key), {key: as_negative(conditioning)}

    @classmethod
    def reading(cls, model, *conditionings):
        """The model, able to read these beside its prompt. Raises ValueError with one sentence."""
        network = model.get_model_object("diffusion_model")
        if form_of(network) is None:
            raise ValueError(f"{cls.node_id}: this model, a {type(network).__name__}, does not let attention be told apart by "
                             "prompt.")
        for conditioning in conditionings:
            if len(conditioning) != 1:
                raise ValueError(f"{cls.node_id}: the conditioning has {len(conditioning)} parts; it has to have one.")
            kept_apart = {"area", "mask"} & conditioning[0][1].keys()
            if kept_apart:
                raise ValueError(f"{cls.node_id}: the conditioning has {' and '.join(sorted(kept_apart))}; it is read by the "
                                 "whole picture, so it has to have none.")
        patched = model.clone()
        install(patched)
        return patched

    @classmethod
    def acts_at_1(cls, model, knobs):
        return True


def new_key():
    return f"guidance_{uuid4().hex}"


class NAG(Joining):
    node_id = "GuidanceNAG"
    title = "Negative in attention (NAG)"
    about = (
        "A negative prompt that works at cfg 1, for distilled models too: in attention the picture is led away from what it "
        "would see for the negative. Costs no row, but somewhat longer attention: a few per cent where text is read by "
        "cross-attention (SD, Wan, LTX), about a fifth in the example measured where text and picture share attention (Flux, "
        "SD3, Qwen-Image). Beside CFG it adds to the sampler's own negative."
    )
    aliases = ["nag", "normalized attention guidance", "negative at cfg 1", "negative prompt turbo", "lightning", "distilled",
               "NAGuidance", "KSamplerWithNAG", "WanVideoNAG"]
    when = window("Lead away")
    inputs = [
        io.Conditioning.Input("negative", tooltip="What should not be in the picture. Of any length."),
        number("scale", 4.0, 0.0, 100.0, "How strongly to lead away. 0 is off. Other packs and the paper count one more: "
               "their 5 is 4 here."),
        number("tau", 2.5, 0.1, 100.0, "How much longer than without guidance an answer of attention may get.",
               display_name="tau (limit)"),
        number("alpha", 0.25, 0.0, 1.0, "How much of the guided answer to use. 0.25 to 0.5 for most models; 0 is off.",
               display_name="alpha (share)"),
        *when,
    ]

    @classmethod
    def prepare(cls, model, negative, **knobs):
        return cls.joined(model, negative, partial(guidance.attention_away, **knobs))


class PushAway(Joining):
    node_id = "GuidancePushAway"
    title = "Push a word away (negative weight)"
    about = (
        "Words that count against the prompt, as a weight of -1 would: attention finds them as it finds other words, and takes "
        "what they would add away. Works at cfg 1. Costs no row and hardly any time."
    )
    aliases = ["negative weight", "negpip", "NegPip", "word:-1", "negative at cfg 1", "remove word"]
    when = window("Push away")
    inputs = [
        io.Conditioning.Input("away", tooltip="The words to push away. Of any length."),
        number("weight", 1.0, 0.0, 10.0, "How strongly. 1 is the weight -1 in a prompt; 0 is off."),
        *when,
    ]

    @classmethod
    def prepare(cls, model, away, **knobs):
        return cls.joined(model, away, partial(guidance.push_away, **knobs))


class PLADIS(Joining):
    node_id = "GuidancePLADIS"
    title = "Sparse attention to the text (PLADIS)"
    about = (
        "Closer to the prompt and cleaner in detail, with or without CFG: each place of the picture looks at few words, not a "
        "little at all of them. Costs no row, but attention to the text takes longer. For models that read text by "
        "cross-attention (SD1.5, SDXL, Wan, LTX, Cosmos)."
    )
    aliases = ["pladis", "sparse attention", "entmax", "sparsemax", "prompt adherence", "turbo", "lightning"]
    category = "guidance/more"
    recipe = staticmethod(guidance.pladis)
    when = window("Attend sparsely")
    inputs = [
        number("scale", 2.0, 0.0, 10.0, "How far to go from softmax: 1 is the sparse function itself, 2 as far again, which is "
               "the paper's. 0 is off and costs nothing."),
        io.Combo.Input("function", options=[*FUNCTIONS], default="entmax 1.5", tooltip="entmax 1.5 is the "
                       "paper's choice; sparsemax looks at fewer words still."),
        *when,
    ]

    @classmethod
    def prepare(cls, model, **knobs):
        network = model.get_model_object("diffusion_model")
        form = form_of(network)
        if form is None or not form.mixes:
            raise ValueError(f"{cls.node_id}: this model, a {type(network).__name__}, has no attention to the text alone that "
                             "is known.")
        return cls.reading(model), partial(cls.recipe, **knobs), {}


class TextEncode(Joining):
    node_id = "GuidanceTextEncode"
    title = "Prompt with negative weights"
    about = (
        "A prompt in which words may have negative weights, as in 'a cat, (collar:-1)': what they would add to the picture is "
        "taken away. Works at cfg 1. Everything else is as in CLIP Text Encode. Costs no row and hardly any time; without a "
        "negative weight the model is left as it is."
    )
    aliases = ["negative weight", "negpip", "NegPip", "CLIPTextEncode", "(word:-1)", "text prompt"]
    when = window("Push away")
    inputs = [
        io.Clip.Input("clip", tooltip="The text encoder, after any LoRA."),
        io.String.Input("text", multiline=True, dynamic_prompts=True, tooltip="The prompt. (word:-1) pushes the word away, "
                        "(word:-0.5) half as strongly; positive weights mean what they always do."),
        number("strength", 1.0, 0.0, 10.0, "Multiplies the negative weights. 0 is off."),
        *when,
    ]
    outputs = [io.Model.Output(), io.Conditioning.Output(tooltip="What the sampler gets as positive, with MODEL.")]

    @classmethod
    def execute(cls, model, clip, text, **knobs):
        if clip is None:
            raise ValueError(f"{cls.node_id}: clip is missing; the checkpoint may have no text encoder.")
        model, knobs = check(MODEL, model), cls.check({"clip": clip, "text": text, **knobs})
        clip, (kept, away) = knobs.pop("clip"), taken_apart(knobs.pop("text"))
        pushed = {new_key(): (words, weight) for part, weight in away.items() if (words := words_alone(clip, part))}
        prompt = encoded(clip, kept)
        if not pushed:
            return io.NodeOutput(model, prompt)
        return io.NodeOutput(cls.patched(model, {**knobs, "pushed": pushed}), marked(prompt, pushed))

    @classmethod
    def prepare(cls, model, pushed, strength, window):
        def recipe():
            return guidance.chain(*(guidance.push_away(key, strength, window, times) for key, (_, times) in pushed.items()))

        words = {key: marked(as_negative(conditioning), pushed) for key, (conditioning, _) in pushed.items()}
        return cls.reading(model, *words.values()), recipe, words


def marked(conditioning, keys):
    """So that the words of one prompt are pushed away in no other one."""
    return [[tokens, {**values, ITS_OWN: frozenset(keys)}] for tokens, values in conditioning]
