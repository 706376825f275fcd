"""A strategy is a step: what it wants before the model is called, and what it does with the predictions after.

Steps chain. Before each evaluation the chain plans (which scale, which predictions); the host computes all of
them in one forward; then the chain is applied, in order, to the answer that the host would have given.
"""

from bisect import bisect_left
from collections.abc import Callable, Hashable, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from functools import cached_property
from math import ceil, isclose, isfinite
from typing import NamedTuple

from torch import Tensor

from .space import EPS, Space


class Branch:
    """One more prediction that a step may ask for. Hashable: two equal branches are computed once.

    rows: how many predictions of the network it takes.
    forward: which forward of the network it is computed in; None is that of the prompt.
    instead: whether guidance starts from it in the place of uncond.
    lasting: what is the same about it throughout a run.
    """

    rows = 1
    forward: Hashable = None
    instead = False

    @property
    def lasting(self) -> Hashable:
        return self


@dataclass(frozen=True)
class Uncond(Branch):
    """The prediction without the prompt."""


@dataclass(frozen=True)
class Prompt(Branch):
    """The prediction for another conditioning, which the host knows by this key."""

    key: str


@dataclass(frozen=True)
class Perturbed(Branch):
    """The prediction for the prompt by a model that is weakened in some layers.

    kind: "identity" (the picture's attention to itself sees only its own place), "blur" (of what it looks for, over
    `amount` tokens), "temperature" (what it looks for times `amount`), "skip" (the layers are left out), "shuffle" (a share
    of `amount` of the tokens, by `seed`). seed: of what was drawn, where something was.
    """

    kind: str
    layers: tuple[str, ...]
    amount: float = 0.0
    seed: int = 0

    @property
    def lasting(self):
        return replace(self, seed=0, layers=()) if self.seed else self  # each step draws by another seed


@dataclass(frozen=True)
class Unprompted(Branch):
    """The prediction without the prompt, by a network that makes it in the prompt's own row, along with that for it; but in
    a row `apart` where it is weakened."""

    apart: bool = False

    @property
    def rows(self):
        return int(self.apart)


@dataclass(frozen=True)
class Weak(Branch):
    """The prediction for the prompt by another, weaker model, which the host knows by this key."""

    key: str
    instead = True


@dataclass(frozen=True)
class Mistimed(Branch):
    """The prediction for the prompt by a network that gets the very same input, of noise level `sigma`, and is told
    another noise level."""

    sigma: float
    told: float

    @property
    def lasting(self):
        return Mistimed


@dataclass(frozen=True)
class Ahead(Branch):
    """The prediction at `sigma`, where the prompt's own prediction leads to in a straight line: for the prompt, or
    without it. It has to wait for the prompt's own, so it takes another forward."""

    sigma: float
    prompt: bool
    instead = True

    @property
    def forward(self):
        return Ahead, self.sigma

    @property
    def lasting(self):
        return Ahead, self.prompt


@dataclass(frozen=True)
class Cropped(Branch):
    """The prediction for the prompt by a model that sees the picture through windows, each on its own: `count` of them
    along height and as many along width, each with this share of it. Where they overlap it is their mean."""

    share: float
    count: int

    @property
    def rows(self):
        return self.count**2

    @property
    def forward(self):
        return self

    def windows(self, side: int) -> list[tuple[int, int]]:
        """(where it starts, how long it is) of each window along a side; together they cover it."""
        unit = 8 if side >= 64 else 2  # what networks halve and patch
        size = min(ceil(self.share * side / unit) * unit, side)
        even = [(side - size) * i // (self.count - 1) for i in range(self.count)]
        aligned = [*(start // unit * unit for start in even[:-1]), even[-1]]
        return [(start, size) for start in (aligned if aligned[-1] - aligned[-2] <= size else even)]


@dataclass(frozen=True)
class Beside:
    """What the prompt's own row reads beside the prompt, at no row of its own; prompts by the keys of the host.

    negative: which attention is led away from, with NAG's scale, tau and alpha. pushed: (prompt, weight) pairs, whose
    tokens count against the others.
    """

    negative: str | None = None
    scale: float = 0.0
    tau: float = 2.5
    alpha: float = 0.25
    pushed: tuple[tuple[str, float], ...] = ()

    def __bool__(self):
        return self.negative is not None or bool(self.pushed)


class Sparse(NamedTuple):
    """How much sparser attention to the text is than softmax: PLADIS's scale and function."""

    scale: float
    function: str


UNCOND = Uncond()


@dataclass(frozen=True)
class Timeline:
    """The noise levels of one run.

    sigmas: as handed to the sampler, one more than there are steps.
    percent, sigma_at: from sigma to ComfyUI's percent (0 at the most noise, 1 at none) and back. The defaults are
        those of a flow model without shift.
    landing: from (sigma, next sigma) to the noise level at which the sampler uses this prediction's noise again;
        an ancestral sampler lands lower than the next sigma, and one that takes fresh noise lands at 0.
    evaluations: how often the sampler evaluates a step, at most; None where nobody knows.
    """

    sigmas: tuple[float, ...]
    space: Space = EPS
    percent: Callable[[float], float] = lambda sigma: 1 - sigma
    sigma_at: Callable[[float], float] = lambda percent: 1 - percent
    landing: Callable[[float, float], float] = lambda sigma, sigma_next: sigma_next
    evaluations: int | None = 1

    def locate(self, sigma: float) -> float:
        """The step that an evaluation at `sigma` belongs to, with a fraction where it falls between two.

        Samplers miss their own grid a little (float noise, an offset first sigma), so near counts as on it.
        """
        if sigma in self._places:
            return self._places[sigma]
        grid, last = self.sigmas, len(self.sigmas) - 2
        falls = grid[0] >= grid[-1]
        after = bisect_left(grid, -sigma, key=lambda s: -s) if falls else bisect_left(grid, sigma)
        near = range(max(after - 1, 0), min(after + 1, last + 2))
        if self._turns:  # a run that adds noise, or another that goes up and down
            near = range(last + 2)
        nearest = min(near, key=lambda i: abs(grid[i] - sigma))
        if abs(grid[nearest] - sigma) <= 1e-3 * sigma:
            return float(min(nearest, last))
        if after == 0:
            return 0.0
        if after > last + 1:
            return float(last)
        before, after = grid[after - 1], grid[after]
        place = float(grid.index(before)) + (before - sigma) / (before - after)
        return place if isfinite(place) else 0.0  # no number is no place

    @cached_property
    def _places(self):
        last = len(self.sigmas) - 2
        return {sigma: float(min(i, last)) for i, sigma in reversed(list(enumerate(self.sigmas)))}

    @cached_property
    def _turns(self):
        falls, pairs = self.sigmas[0] >= self.sigmas[-1], list(zip(self.sigmas, self.sigmas[1:]))
        return any((a <= b) if falls else (a >= b) for a, b in pairs)  # equal neighbours too: the first of them counts

    def moment(self, sigma: float, scale: float, share: float = 1.0, stream: int = 0) -> "Moment":
        return Moment(sigma, scale, self, share, stream)

    def moments(self, scale: float, share: float = 1.0, stream: int = 0) -> list["Moment"]:
        """One moment for each step of the run, as a sampler with one evaluation per step meets them."""
        return [self.moment(sigma, scale, share, stream) for sigma in self.sigmas[:-1]]


@dataclass(frozen=True)
class Moment:
    """Just before an evaluation: where the run is, which scale is in force, and what the steps asked for."""

    sigma: float
    scale: float
    timeline: Timeline
    share: float = 1.0  # of the guidance that a strategy sets; the sampler may guide sound more than video
    stream: int = 0  # which part of a packed latent this is about: 0 is the video, or all there is
    asked: frozenset[Branch] = frozenset()
    uncond: Branch = UNCOND
    rescaled: bool = False  # whether a step has chosen the scale
    skip: bool = False  # leave uncond out of this evaluation, unless a step has asked for it
    beside: Beside = Beside()
    weakened: Perturbed | None = None  # what happens in uncond's own row
    sparse: Sparse | None = None  # what happens where any row reads its text
    distilled: float | None = None  # the scale that the model takes as an input; None leaves it as the prompts say
    embed: Callable[[Tensor], Tensor] | None = None  # what happens to the prompt's embedding (B, tokens, width) first

    @cached_property
    def step(self) -> float:
        return self.timeline.locate(self.sigma)

    @property
    def sigma_start(self) -> float:
        """Where the step that this evaluation belongs to starts; its own sigma may be further down."""
        return self.timeline.sigmas[int(self.step)]

    @property
    def sigma_next(self) -> float:
        return self.timeline.sigmas[int(self.step) + 1]

    @property
    def percent(self) -> float:
        return self.timeline.percent(self.sigma)

    @property
    def landing(self) -> float:
        start, end = self.sigma_start, self.sigma_next
        return self.timeline.landing(start, end) if end < start else end  # a step upwards takes no noise away

    @property
    def space(self) -> Space:
        return self.timeline.space

    def at_scale(self, scale: float) -> "Moment":
        """This scale instead of the sampler's, for every guider's every scale."""
        return replace(self, scale=scale, rescaled=True)

    def choose_scale(self, scale: float) -> "Moment":
        """This scale for the whole latent: of several streams, each keeps its share of the guidance."""
        return self.at_scale(1 + (scale - 1) * self.share if self.share != 1 else scale)

    def unguided(self) -> "Moment":
        """Cond alone, whatever the scale was. Some samplers read uncond itself, at any scale: for them it is cond too."""
        return replace(self.at_scale(1.0), skip=True)

    @property
    def is_plain(self) -> bool:
        """Whether no step wants anything of the predictions, whatever the scale."""
        return all(getattr(self, name) is default for name, default in _WISHES)

    def ask(self, *branches: Branch) -> "Moment":
        return replace(self, asked=self.asked | set(branches))

    @property
    def skips(self) -> bool:
        return self.skip and UNCOND not in self.asked

    @property
    def combined(self) -> float:
        """The scale with which the host combines: 1, that is cond alone, where uncond is left out."""
        return 1.0 if self.skips else self.scale

    @property
    def needs(self) -> frozenset[Branch]:
        """Every prediction to compute besides cond. At scale 1 uncond cancels out, so nobody computes it."""
        if isclose(self.combined, 1) and UNCOND not in self.asked:
            return self.asked
        return self.asked - {UNCOND} | {self.uncond}

    @property
    def rows(self) -> int:
        """Predictions for each picture, those of weak models included."""
        return 1 + sum(branch.rows for branch in self.needs)

    @property
    def calls(self) -> int:
        """Forwards of the model itself."""
        return len(forwards(self.needs))


def needed(moments) -> frozenset[Branch]:
    """What an evaluation of several streams computes besides cond."""
    return frozenset().union(*(moment.needs for moment in moments))


def forwards(branches) -> set[Hashable]:
    """Those in which these branches and cond are computed."""
    return {None} | {branch.forward for branch in branches}


_WISHES = [(wish.name, wish.default) for wish in fields(Moment)
           if wish.default is not MISSING and wish.name not in ("share", "stream", "rescaled")]


@dataclass(frozen=True)
class State:
    """Just after an evaluation: the predictions, and the answer so far. All are x0, fp32, shaped like x."""

    moment: Moment
    x: Tensor
    cond: Tensor
    uncond: Tensor
    denoised: Tensor
    branches: Mapping[Branch, Tensor] = field(default_factory=dict)
    steered: Tensor | None = None

    @property
    def scale(self) -> float:
        return self.moment.combined

    @property
    def is_cond(self) -> bool:
        """Whether the answer is cond itself, so that nothing has to be brought back to it."""
        return self.denoised is self.cond

    @property
    def direction(self) -> Tensor:
        """Where guidance points: cond - uncond, as edited by the steps before."""
        return self.cond - self.uncond if self.steered is None else self.steered

    def steer(self, direction: Tensor) -> "State":
        """Point guidance elsewhere, and move the answer by the difference."""
        moved = (direction - self.direction).mul_(self.scale - 1).add_(self.denoised)
        return replace(self, steered=direction, denoised=moved)

    def bend(self, change: Tensor, weight: float | None = None) -> "State":
        """Steer by a change of the direction, which this takes over, and move the answer by `weight` (scale - 1,
        unless another is meant) times it. Needs less memory than `steer`."""
        moved = self.denoised.add(change, alpha=self.scale - 1 if weight is None else weight)
        steered = change.add_(self.cond).sub_(self.uncond) if self.steered is None else change.add_(self.steered)
        return replace(self, steered=steered, denoised=moved)

    def redirect(self, direction: Tensor) -> "State":
        """Steer, also where uncond was left out: for the steps after, it is as if it had been computed."""
        if not self.moment.skips:
            return self.steer(direction)
        moment, moved = replace(self.moment, skip=False), self.denoised + (self.moment.scale - 1) * direction
        return replace(self, moment=moment, uncond=self.cond - direction, steered=None, denoised=moved)

    def add(self, term: Tensor, weight: float = 1.0) -> "State":
        """Add weight * term to the answer."""
        return replace(self, denoised=self.denoised.add(term, alpha=weight))


def unchanged(value):
    return value


class Step(NamedTuple):
    """A strategy at work: what it plans before an evaluation, and what it does after.

    Where it is off or idle, such as at scale 1, its plan asks for nothing and its `apply` hands back the very State
    that came in, so that whoever runs it can tell.

    sets: chooses the scale. Of several in a chain the last one counts.
    limits: changes the scale that was chosen, wherever in the chain it was chosen.
    asks: wants further predictions, or does without uncond, now that the scale is known.
    grounds: puts another prediction in the place of uncond, before anybody edits what guidance starts from.
    apply: edits the answer.
    """

    asks: Callable[[Moment], Moment] = unchanged
    apply: Callable[[State], State] = unchanged
    limits: Callable[[Moment], Moment] = unchanged
    sets: Callable[[Moment], Moment] = unchanged
    grounds: Callable[[State], State] = unchanged

    def plan(self, moment: Moment) -> Moment:
        return self.asks(self.limits(self.sets(moment)))

    def answer(self, state: State) -> State:
        return self.apply(self.grounds(state))


Recipe = Callable[[], Step]  # called once per sampling run, so that what a step remembers ends with the run


def chain(*steps: Step) -> Step:
    """One step that does all of them, left to right; but every scale is chosen before any is limited, and limited
    before anybody asks, so that the order of the wire loses nothing."""
    return Step(*(_one_by_one(part) for part in zip(*steps))) if steps else Step()


def _one_by_one(functions):
    functions = [function for function in functions if function is not unchanged]

    def run(value):
        for function in functions:
            value = function(value)
        return value

    return run if functions else unchanged


def begin(moment: Moment, x, cond, uncond, denoised, branches=None) -> State:
    """The predictions of one evaluation as the State that steps edit, in fp32.

    x, cond, uncond, denoised: (B, ...) of any rank. uncond None: nobody computed it, and cond stands in.
    """
    precise = cond.float()
    uncond = precise if uncond is None else uncond.float()
    branches = {branch: prediction.float() for branch, prediction in (branches or {}).items()}
    return State(moment, x.float(), precise, uncond, precise if denoised is cond else denoised.float(), branches)


def guide(step: Step, moment: Moment, x, cond, uncond, denoised, branches=None) -> Tensor:
    """Apply a planned step to the predictions of one evaluation (see `begin`); the answer has denoised's dtype."""
    return step.answer(begin(moment, x, cond, uncond, denoised, branches)).denoised.to(denoised.dtype)
