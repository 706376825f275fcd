"""A picture, or a text, as a classifier: how much latents, decoded, look like it to CLIP."""

import torch
import torch.nn.functional as F
from comfy_api.latest import io

from .bridge.gradients import with_gradients
from .checked import Checked
from .inputs import ClassifierType

CERTAINTY = 100.0  # CLIP's own factor from cosines to logits, where its training left it
MODEL_INPUT = io.Model.Input("model", tooltip="The model to guide; only what its latents mean is taken from it.")
VISION_INPUT = io.ClipVision.Input("clip_vision", tooltip="The model that looks at the picture.")
VAE_INPUT = io.Vae.Input("vae", tooltip="Decodes the latent for it, with gradients.")
CERTAINTY_INPUT = io.Float.Input("certainty", default=CERTAINTY, min=0.0, max=10000.0, step=1.0, tooltip="How sharply "
                                 "CLIP tells likenesses apart. 100 is CLIP's own.")


class Likeness:
    """The log-likelihood of latents as CLIP vision and a VAE tell it. models: what the host has to load for it."""

    def __init__(self, latent_format, vae, clip_vision, reference, certainty=CERTAINTY):
        self.latent_format, self.vae, self.clip_vision, self.certainty = latent_format, vae, clip_vision, certainty
        self.reference = F.normalize(reference.float(), dim=-1)
        self.models = [vae.patcher, clip_vision.patcher]

    def __call__(self, latents, sigma):
        vae, clip = self.vae, self.clip_vision
        latents = self.latent_format.process_out(latents).to(vae.device, vae.vae_dtype)
        pictures = (with_gradients(vae.first_stage_model, vae.first_stage_model.decode, latents).float() + 1) / 2
        seen = with_gradients(clip.model, clip.model, as_clip_sees(pictures.to(clip.load_device), clip))[2].float()
        # As likely as its best likeness to one of the pictures.
        cosines = F.normalize(seen, dim=-1) @ self.reference.clone().to(seen.device).T
        return (self.certainty * cosines.amax(1)).to(latents.device)


def as_clip_sees(pictures, clip):
    """(B, 3, height, width) in 0..1, prepared like the host's, which rounds to whole colours and so has no gradient."""
    size, short = clip.image_size, min(pictures.shape[2:])
    scaled = [round(side * size / short) for side in pictures.shape[2:]]
    pictures = F.interpolate(pictures, scaled, mode="bicubic", antialias=True).clamp(0, 1)
    top, left = ((side - size) // 2 for side in scaled)
    mean, std = (
        torch.tensor(colors, device=pictures.device).view(3, 1, 1) for colors in (clip.image_mean, clip.image_std)
    )
    return (pictures[..., top:top + size, left:left + size] - mean) / std


class LikenessNode(Checked):
    inputs = [
        MODEL_INPUT, VISION_INPUT, VAE_INPUT,
        io.Image.Input("image", tooltip="What the result should resemble; of several pictures, any of them."),
        CERTAINTY_INPUT,
    ]

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="GuidanceLikeness",
            display_name="Likeness (CLIP vision)",
            category="guidance/more",
            description="Pictures as a classifier for classifier guidance: guides towards what CLIP vision takes to be "
                        "like them. Costly: at every step the picture is decoded, and the gradient goes back through "
                        "CLIP and the VAE, which takes more time and memory than the step itself.",
            search_aliases=["clip guidance", "clip vision guidance", "image guidance", "style guidance"],
            inputs=cls.inputs,
            outputs=[ClassifierType.Output()],
        )

    @classmethod
    def execute(cls, **knobs):
        model, clip_vision, vae, image, certainty = cls.check(knobs).values()
        check_vae("GuidanceLikeness", vae)
        reference, latent_format = clip_vision.encode_image(image)["image_embeds"], model.get_model_object("latent_format")
        return io.NodeOutput(Likeness(latent_format, vae, clip_vision, reference, certainty))


class TextLikenessNode(Checked):
    inputs = [
        MODEL_INPUT, VISION_INPUT,
        io.Clip.Input("clip", tooltip="A text encoder that was trained together with it, with its projection: a CLIP-L or "
                      "CLIP-G file of its own, or SDXL's."),
        VAE_INPUT,
        io.String.Input("text", default="", multiline=True, tooltip="What the result should show."),
        CERTAINTY_INPUT,
    ]

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="GuidanceTextLikeness",
            display_name="Likeness to a text (CLIP)",
            category="guidance/more",
            description="A text as a classifier for classifier guidance: guides towards what CLIP takes to go with it, also on "
                        "models that were never trained on texts. Costly: at every step the picture is decoded, and the "
                        "gradient goes back through CLIP and the VAE.",
            search_aliases=["clip guidance", "clip text guidance", "guided diffusion"],
            inputs=cls.inputs,
            outputs=[ClassifierType.Output()],
        )

    @classmethod
    def execute(cls, **knobs):
        model, clip_vision, clip, vae, text, certainty = cls.check(knobs).values()
        check_vae("GuidanceTextLikeness", vae)
        projection = getattr(getattr(clip_vision.model, "visual_projection", None), "weight", None)
        if projection is None:
            raise ValueError("GuidanceTextLikeness: clip_vision has no projection into a space that it shares with texts; it "
                             "has to be a CLIP vision model.")
        reference = text_embedding(clip, text, projection.shape[0])
        latent_format = model.get_model_object("latent_format")
        return io.NodeOutput(Likeness(latent_format, vae, clip_vision, reference, certainty))


def check_vae(node_id, vae):
    if vae.latent_dim != 2:
        raise ValueError(f"{node_id}: vae is for video; only pictures can be compared.")


def text_embedding(clip, text, width):
    """(1, width): a text where CLIP vision's embeddings of that width are. Raises ValueError with one sentence."""
    name, encoder = text_encoder(clip, width)
    parts = clip.tokenize(text)[name.removeprefix("clip_")]
    if len(parts) > 1:
        raise ValueError(f"GuidanceTextLikeness: text takes {len(parts)} times what CLIP reads at once; it has to be at most "
                         "75 tokens long.")
    clip.load_model()
    encoder.set_clip_options({"projected_pooled": True})
    try:
        return encoder.encode_token_weights(parts)[1]
    finally:
        encoder.reset_clip_options()


def text_encoder(clip, width):
    """(name, encoder) of those in a CLIP: the one with a learnt projection that is so wide."""
    found = []
    for name, encoder in clip.cond_stage_model.named_children():
        projection = getattr(getattr(encoder, "transformer", None), "text_projection", None)
        if projection is None:
            continue
        weight = projection.weight
        # Checkpoints such as SD1.5's come without it, and the host puts an identity in its place.
        learnt = not torch.equal(weight, torch.eye(*weight.shape, device=weight.device, dtype=weight.dtype))
        if learnt and weight.shape[0] == width:
            return name, encoder
        found.append(f"{name} ({weight.shape[0]} wide{'' if learnt else ', without its projection'})")
    raise ValueError(f"GuidanceTextLikeness: clip has {', '.join(found) or 'no CLIP text encoder'}; it has to have one that is "
                     f"{width} wide, as this clip_vision is, with its projection.")
