"""What a strategy remembers from one step of a run to the next."""

MOST = 3  # a sampler looks two steps ahead at most (heunpp2) before it comes back for the step between


class Memory:
    """One value, kept per step of the run and not per evaluation.

    Samplers of higher order evaluate a step more than once, look ahead, or go their own way between the run's steps.
    Every evaluation of a step sees what the nearest step before it left, and only the last evaluation of a step is
    remembered, so that a momentum is as quick with heun as with euler. A step that left nothing, because guidance was
    off there, ends what was remembered; so does a sampler that goes back up.
    """

    def __init__(self):
        self.left = {}  # by step; the last few of them

    def recall(self, moment):
        """What the nearest step before this one left, or None."""
        before = max((step for step in self.left if step < int(moment.step)), default=None)
        return self.left.get(before)

    def kept(self, moment):
        """What this very step has left so far, or None."""
        return self.left.get(int(moment.step))

    def keep(self, moment, value):
        """Leave a value, or None, for the steps after this one."""
        step = int(moment.step)
        self.left.pop(step, None)
        self.left[step] = value
        while len(self.left) > MOST:
            del self.left[next(iter(self.left))]
