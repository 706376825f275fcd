"""What all strategy nodes share: a MODEL in and out, knobs checked at the node, one more link on the chain."""

from collections.abc import Callable
from functools import partial

from comfy_api.latest import io

from ..guidance.interval import Window
from ..guidance.schedule import Schedule
from .bridge.hooks import attach
from .checked import Checked
from .inputs import MODEL, check


class Strategy(Checked):
    """A node with a MODEL in and out that puts one more strategy on the wire."""

    node_id: str
    title: str
    about: str  # what the user will see, and what it costs
    aliases: list[str]
    inputs: list[io.Input]
    when: list[io.Input] = []  # those of the inputs that say when, which recipes take as one value, `window`
    outputs: list[io.Output] = [io.Model.Output()]
    category = "guidance"
    recipe: Callable  # of guidance/, from checked knobs to a Step
    joins = False  # whether rows read their text otherwise, or other prompts too
    saves = False  # whether the node is there to leave out the negative

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id=cls.node_id,
            display_name=cls.title,
            category=cls.category,
            description=cls.about,
            search_aliases=cls.aliases,
            inputs=[MODEL, *cls.inputs],
            outputs=cls.outputs,
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, model, **knobs):
        return io.NodeOutput(cls.patched(check(MODEL, model), cls.check(knobs)))

    @classmethod
    def patched(cls, model, knobs):
        """The model with this strategy behind those that it has, set by checked knobs."""
        if cls.when:
            knobs["window"] = Window(*(knobs.pop(input.id, input.default) for input in cls.when))
        patched, recipe, brought = cls.prepare(model, **knobs)
        node_id = getattr(cls.hidden, "unique_id", None)
        schedules = tuple((knob, partial(cls.applied, knobs, knob)) for knob in knobs.values() if isinstance(knob, Schedule))
        return attach(patched, cls.title, recipe, brought, node_id=node_id, schedules=schedules,
                      acts_at_1=cls.acts_at_1(model, knobs), saves=cls.saves, joins=cls.joins, window=knobs.get("window"),
                      rehearsal=cls.rehearsal(knobs), rows=cls.most_rows(knobs))

    @classmethod
    def prepare(cls, model, **knobs):
        """From checked knobs to (model, recipe, further conditionings and models by key)."""
        return model, partial(cls.recipe, **knobs), {}

    @classmethod
    def acts_at_1(cls, model, knobs):
        """Whether it does anything where the scale is 1, as it is with distilled models."""
        return False

    @classmethod
    def rehearsal(cls, knobs):
        """Recipes to plan with where the strategy's own looks at the picture or calls a network: one, or two where the
        picture decides between them. None where its own will do."""
        return ()

    @classmethod
    def most_rows(cls, knobs):
        """How many rows it is told to allow a run; 0 where that is no matter of this strategy."""
        return 0

    @classmethod
    def applied(cls, knobs, schedule, moment):
        """What a knob's schedule came to at a planned moment; None where the strategy was off."""
        return schedule(moment) if not cls.when or knobs["window"].holds(moment) else None
