"""The maths of guidance, in pure torch. One paper, one file; what they share is in core, ops, space and schedule."""

from .adaptive import adaptive
from .alternate import alternate
from .apg import apg
from .auto_range import auto_range
from .autoguidance import autoguidance
from .beta import beta_cfg
from .budget import budget
from .cads import cads
from .cfg import cfg
from .cfgpp import cfgpp
from .classifier import classifier
from .compress import compress
from .core import UNCOND, Branch, Moment, Perturbed, Prompt, Recipe, State, Step, Timeline, chain, guide
from .distilled import distilled
from .erg import erg
from .fbg import fbg
from .fdg import fdg
from .fresca import fresca
from .interval import ALWAYS, Window, interval
from .mambo import mambo_g
from .mimic import mimic
from .momentum import momentum_guidance
from .nag import attention_away
from .negative import negative_instead, negative_weighted
from .pag import pag
from .perp import perp_cfg
from .perp_neg import perp_neg
from .pladis import pladis
from .power_law import power_law
from .push_away import push_away
from .rect_cfgpp import rect_cfgpp
from .renorm import renorm
from .rescale import rescale
from .s2_guidance import s2_guidance
from .schedule import Schedule, ScheduleError, parse
from .seg import seg
from .skimmed import skimmed_cfg
from .skip_layers import skip_layers, skip_layers_in_uncond
from .smc import smc_cfg
from .streams import stream_cfg
from .superconditioning import superconditioning
from .swg import swg
from .tcfg import tcfg
from .threshold import dynamic_threshold
from .tpg import tpg
from .tsg import tsg
from .zero_star import cfg_zero_star
