"""What all strategy nodes share: a MODEL in and out, knobs checked at the node, one more link on the chain."""

from functools import partial
from inspect import Parameter, Signature

from comfy_api.latest import io

from ..guidance.interval import inside
from ..guidance.schedule import Schedule
from .host import attach
from .inputs import checked, schema


class Strategy(io.ComfyNode):
    """A node with a MODEL in and out that puts one more strategy on the wire."""

    node_id: str
    title: str
    about: str  # what the user will see, and what it costs
    aliases: list[str]
    inputs: list[io.Input]
    category = "guidance"

    def __init_subclass__(cls, **kwargs):
        """Have the host call `validate_inputs` with the knobs that may be schedules, and only with those: whatever
        a node names there, the host stops checking itself."""
        super().__init_subclass__(**kwargs)
        own = vars(cls)
        schedulable = [input.id for input in own.get("inputs", []) if isinstance(input, io.MultiType.Input)]
        if schedulable and "validate_inputs" not in own:  # the host makes locked copies of node classes
            def validate_inputs(cls, **knobs):
                try:
                    cls.check({name: value for name, value in knobs.items() if value is not None})  # None: a link
                except ValueError as error:
                    return str(error)
                return True

            names = ["cls", *schedulable]
            validate_inputs.__signature__ = Signature([Parameter(n, Parameter.POSITIONAL_OR_KEYWORD) for n in names])
            cls.validate_inputs = classmethod(validate_inputs)

    @classmethod
    def define_schema(cls):
        return schema(
            node_id=cls.node_id,
            display_name=cls.title,
            category=cls.category,
            description=cls.about,
            search_aliases=cls.aliases,
            inputs=[io.Model.Input("model"), *cls.inputs],
            outputs=[io.Model.Output()],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, model, **knobs):
        knobs = cls.check(knobs)
        patched, recipe, conds = cls.prepare(model, **knobs)
        node_id = getattr(cls.hidden, "unique_id", None)
        schedules = tuple((knob, partial(cls.applied, knobs, knob)) for knob in knobs.values() if isinstance(knob, Schedule))
        return io.NodeOutput(attach(patched, cls.title, recipe, conds, node_id, schedules))

    @classmethod
    def check(cls, knobs):
        """The given knobs as recipes take them. Raises ValueError with one sentence."""
        return checked(cls.inputs, knobs)

    @classmethod
    def prepare(cls, model, **knobs):
        """From checked knobs to (model, recipe, further conditionings by key)."""
        raise NotImplementedError

    @classmethod
    def applied(cls, knobs, schedule, moment):
        """What a knob's schedule came to at a planned moment; None where the strategy was off."""
        if "unit" in knobs and not inside(moment, knobs["start"], knobs["end"], knobs["unit"]):
            return None
        return schedule(moment)


def window(tooltip):
    """Three inputs that say when: start, end and their unit."""
    return [
        io.Float.Input("start", default=0.0, min=0.0, max=1000.0, step=0.01, tooltip=f"{tooltip} from here (included)."),
        io.Float.Input("end", default=1.0, min=0.0, max=1000.0, step=0.01, tooltip=f"{tooltip} until here."),
        io.Combo.Input("unit", options=["percent", "sigma"], default="percent",
                       tooltip="percent runs from 0 (all noise) to 1 (none); sigma falls from the model's highest to 0."),
    ]


def check_window(start, end, unit):
    if unit == "percent" and not 0 <= start <= end <= 1:
        raise ValueError(f"start is {start:g} and end is {end:g}; in percent they have to be 0 <= start <= end <= 1.")
    if unit == "sigma" and start < end:
        raise ValueError(f"start is {start:g} and end is {end:g}; sigma falls during the run, so start has to be the larger.")
    return {"start": start, "end": end, "unit": unit}
