"""What a strategy remembers from one step of a run to the next."""


class Memory:
    """One value, kept per step of the run and not per evaluation.

    Second-order samplers evaluate a step more than once. All evaluations of a step see what the step before it left,
    and only the last of them is remembered, so that a momentum is as quick with heun as with euler. After a jump
    (guidance was off in between, or the sampler went back up) nothing is remembered.
    """

    def __init__(self):
        self.step = self.before = self.after = None

    def recall(self, moment):
        """What the step before this one left, or None."""
        step = int(moment.step)
        if self.step is None or step - self.step not in (0, 1):
            self.before = None
        elif step > self.step:
            self.before = self.after
        self.step = step
        return self.before

    def keep(self, value):
        self.after = value
