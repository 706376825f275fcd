"""Classifier-free guidance with a scale for each stream of a latent, as LTX-2 guides video and audio.
HaCohen et al. 2026, https://arxiv.org/abs/2601.03233"""

from .core import Step
from .schedule import at


def stream_cfg(video=None, audio=None):
    """CFG at a scale for the first stream, and another for those behind it. None leaves a stream's scale as it is."""

    def sets(moment):
        scale = audio if moment.stream else video
        return moment if scale is None else moment.at_scale(at(scale, moment))

    return Step(sets=sets)
