"""The mixture as a MODEL of ComfyUI: grey pictures of 4 x 4 that differ in two patterns, denoised in closed form."""

import comfy.latent_formats
import comfy.model_base
import comfy.model_patcher
import comfy.model_sampling
import comfy.supported_models_base
import torch

from ...guidance.space import EPS, FLOW
from .exact import Mixture

SIDE = 4
CPU = torch.device("cpu")  # where thousands of such pictures take a second
TYPES = {"eps": comfy.model_base.ModelType.EPS, "flow": comfy.model_base.ModelType.FLOW}
SPACES = {"eps": EPS, "flow": FLOW}

# How much of the two patterns, weight, and class of each mode. The prompt asks for class 0.
MODES = [
    (-3.0, 1.8, 0.09, 0), (2.2, 2.9, 0.07, 0), (1.7, -1.2, 0.06, 0), (-1.3, -2.4, 0.04, 0),
    (-1.6, 1.6, 0.15, 1), (3.2, 1.9, 0.13, 1), (3.0, -1.9, 0.12, 1),
    (-2.7, -1.9, 0.14, 2), (0.6, -2.1, 0.10, 2), (0.9, 3.3, 0.10, 2),
]
WIDTH, GRAIN = 0.45, 0.1  # of a mode along the two patterns, and along all others


def patterns():
    """An orthonormal basis of the pictures, (16, 16): left less right half, then a chess board, then the other Walsh
    patterns."""
    two = torch.tensor([[1.0, 1.0], [1.0, -1.0]])
    walsh = torch.kron(torch.kron(two, two), torch.kron(two, two)) / SIDE
    halves, board = 2, SIDE + 1
    return walsh[[halves, board, *(i for i in range(SIDE**2) if i not in (halves, board))]]


def pictures():
    """The Mixture, in coordinates along the patterns."""
    table = torch.tensor(MODES)
    means = torch.zeros(len(MODES), SIDE**2)
    means[:, :2] = table[:, :2]
    variance = torch.full((SIDE**2,), GRAIN**2)
    variance[:2] = WIDTH**2
    return Mixture(means, table[:, 2], table[:, 3].long(), variance)


class Exact(torch.nn.Module):
    """The network: noise (eps) or velocity (flow) of x (B, 1, 4, 4) for prompts (B, 1, classes) of log-odds.

    blur: how much wider than they are it takes the modes to be, with a prompt and without. 1 and 1 is exact.
    rows: how many it has been asked for.
    """

    dtype = torch.float32

    def __init__(self, sampling, prediction, blur=(1.0, 1.0)):
        super().__init__()
        self.sampling, self.space, self.blur, self.rows = sampling, SPACES[prediction], blur, 0
        self.mixture, self.patterns = pictures(), patterns()

    def forward(self, x, timesteps, context, **kwargs):
        self.rows += len(x)
        sigma, prompt = self.sampling.sigma(timesteps).view(-1, 1), context[:, 0]
        coordinates = x.flatten(1) @ self.patterns.T
        if self.space is EPS:  # the host has brought x to unit variance
            coordinates = coordinates * (sigma**2 + 1).sqrt()
        blur = torch.where(prompt.any(1, keepdim=True), *self.blur)
        denoised = self.mixture.wider(blur).denoised(coordinates, sigma, self.space, prompt)
        return ((coordinates - denoised) / sigma @ self.patterns).view(x.shape)


class Config(comfy.supported_models_base.BASE):
    unet_extra_config: dict = {}
    sampling_settings = {"linear_end": 0.02}  # noise up to sigma 64, which hides the mean; Stable Diffusion's 14.6 does not
    memory_usage_factor = 0.2

    class latent_format(comfy.latent_formats.LatentFormat):
        latent_channels = 1


class Between(comfy.model_sampling.ModelSamplingDiscrete, comfy.model_sampling.EPS):
    """Noise levels as Stable Diffusion has them, of which the network is told also those between two."""

    def timestep(self, sigma):
        log = sigma.log()
        after = torch.searchsorted(self.log_sigmas, log).clamp(1, len(self.sigmas) - 1)
        low, high = self.log_sigmas[after - 1], self.log_sigmas[after]
        return after - 1 + (log - low) / (high - low)


def load(prediction="eps", blur=(1.0, 1.0)):
    """The mixture as a ModelPatcher, an "eps" or a "flow" model."""
    model = comfy.model_base.BaseModel(Config({"disable_unet_model_creation": True}), TYPES[prediction], CPU)
    if prediction == "eps":
        model.model_sampling = Between(model.model_config)
    model.diffusion_model = Exact(model.model_sampling, prediction, blur)
    return comfy.model_patcher.ModelPatcher(model, CPU, CPU)


def conditioning(prompt):
    """A CONDITIONING of a prompt (classes,)."""
    return [[prompt.view(1, 1, -1), {"pooled_output": None}]]


class Classifier:
    """log p(one of the prompt's classes | x) of noisy pictures, exactly."""

    channels = 1

    def __init__(self, prediction, prompt):
        self.space, self.prompt = SPACES[prediction], prompt

    def __call__(self, latents, sigma):
        return pictures().log_class(latents.flatten(1) @ patterns().T, sigma, self.space, self.prompt)
