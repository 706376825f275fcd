"""Nodes whose knobs may be schedules: a wrong one is refused before anything runs."""

from inspect import Parameter, Signature

from comfy_api.latest import io

from .inputs import checked


class Checked(io.ComfyNode):
    """A node with a list `inputs`, whose knobs the host has checked by it as it takes in a prompt."""

    inputs: list[io.Input]

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
            parameters = [Parameter(name, Parameter.POSITIONAL_OR_KEYWORD) for name in names]
            validate_inputs.__signature__ = Signature(parameters)  # type: ignore[attr-defined]  # unknown to typeshed
            cls.validate_inputs = classmethod(validate_inputs)

    @classmethod
    def check(cls, knobs):
        """The given knobs, each within what its input allows. Raises ValueError with one sentence."""
        return checked(cls.inputs, knobs)
