"""A mixture of Gaussians, and all that a diffusion model of it would have to learn, in closed form."""

from dataclasses import dataclass, replace
from math import pi

import torch
from torch import Tensor

NEVER = -1e4  # the log-odds of what a prompt rules out: finite, so that no sum of them is a NaN


@dataclass(frozen=True)
class Mixture:
    """Modes of several classes in D dimensions, alike in their variance.

    means (K, D), weights (K,) that add up to 1, classes (K,) the class of each mode, counted from 0.
    variance: of each coordinate in each mode, (D,), or (B, D) where each sample has its own.

    Noise is sigma with signal alpha(sigma), as a Space says; sigma is a number, or (B, 1). A prompt is a log-odds for each
    class, (classes,) or (B, classes); None and zeros are the empty prompt.
    """

    means: Tensor
    weights: Tensor
    classes: Tensor
    variance: Tensor

    def only(self, *wanted):
        """The prompt that rules out every class but these."""
        prompt = self.means.new_full((int(self.classes.max()) + 1,), NEVER)
        prompt[list(wanted)] = 0
        return prompt

    def wider(self, factor):
        """The mixture that a worse model believes in: every mode is `factor` times as wide. A number, or (B, 1)."""
        return replace(self, variance=self.variance * factor**2)

    def logs(self, x, sigma, space, prompt=None):
        """log p(x, mode) of each mode, (B, K), at this noise."""
        alpha = space.alpha(sigma)
        spread = alpha**2 * self.variance + sigma**2
        near = alpha * ((x / spread) @ self.means.T) - alpha**2 / 2 * ((1 / spread) @ self.means.square().T)
        scatter = (x.square() / spread + (2 * pi * spread).log()).sum(1, keepdim=True)
        prior = self.weights.log()
        if prompt is not None:
            prior = prior + prompt[..., self.classes]
            prior = prior - prior.logsumexp(-1, keepdim=True)
        return prior + near - scatter / 2

    def log_density(self, x, sigma, space, prompt=None):
        """log p(x | prompt), (B,)."""
        return self.logs(x, sigma, space, prompt).logsumexp(1)

    def denoised(self, x, sigma, space, prompt=None):
        """E[x0 | x, prompt], (B, D): what a perfect model predicts."""
        alpha = space.alpha(sigma)
        shrink = alpha * self.variance / (alpha**2 * self.variance + sigma**2)
        means = self.logs(x, sigma, space, prompt).softmax(1) @ self.means
        return means + shrink * (x - alpha * means)

    def log_class(self, x, sigma, space, prompt):
        """log p(one of the prompt's classes | x), (B,): what a perfect classifier of noisy x says."""
        logs = self.logs(x, sigma, space)
        return (logs + prompt[..., self.classes]).logsumexp(1) - logs.logsumexp(1)

    def nearest(self, x, prompt):
        """The mode of the prompt that each clean sample most likely is of, (B,)."""
        apart = ((x[:, None] - self.means).square() / self.variance).sum(2) / 2
        return (self.weights.log() + prompt[self.classes] - apart).argmax(1)

    def draw(self, n, rng, prompt=None):
        """n clean samples, (n, D)."""
        prior = self.weights.log() + (0 if prompt is None else prompt[self.classes])
        modes = torch.multinomial(prior.softmax(0), n, replacement=True, generator=rng)
        noise = torch.randn(n, self.means.shape[1], generator=rng, dtype=self.means.dtype)
        return self.means[modes] + noise * self.variance.sqrt()
