"""The maths of guidance, in pure torch. One paper, one file; what they share is in core, ops, space and schedule."""

from .cfg import cfg
from .cfgpp import cfgpp
from .core import UNCOND, Branch, Moment, Perturbed, Prompt, Recipe, State, Step, Timeline, chain, guide
from .interval import interval
from .negative import negative_instead, negative_weighted
from .pag import pag
from .perp import perp_cfg
from .perp_neg import perp_neg
from .schedule import Schedule, ScheduleError, parse
