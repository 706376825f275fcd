"""Methods of a network's modules, changed for as long as one forward takes."""

from contextlib import contextmanager
from weakref import WeakKeyDictionary, ref


class Hook:
    """Stands in for one method of the network during a forward. rows: what is known of that forward's rows."""

    def __init__(self, owner, name, change):
        self.owner, self.name, self.change = ref(owner), name, change
        self.network = self.rows = self.original = self.before = None

    def enter(self, network, rows):
        owner = self.owner()
        self.network, self.rows, self.original = network, rows, getattr(owner, self.name)
        self.before = owner.__dict__.get(self.name)
        owner.__dict__[self.name] = self.call

    def leave(self):
        methods = self.owner().__dict__
        if self.before is None:
            del methods[self.name]
        else:
            methods[self.name] = self.before
        self.network = self.rows = self.original = self.before = None

    def call(self, *args, **kwargs):
        return self.change(self, *args, **kwargs)


# Of each network, made once for torch.compile. Each device has a network of its own, which runs one forward at a time.
_hooks: WeakKeyDictionary = WeakKeyDictionary()


@contextmanager
def hooked(network, what, changes, rows):
    """Within, methods of the network's modules are changed.

    what: a name for these changes. changes: (network) -> [(module, name of its method, what takes its place)], where
    the last is called with the Hook and the method's own arguments.
    """
    known = _hooks.setdefault(network, {})
    if what not in known or any(hook.owner() is None for hook in known[what]):
        known[what] = [Hook(*change) for change in changes(network)]
    entered = []
    try:
        for hook in known[what]:
            hook.enter(network, rows)
            entered.append(hook)
        yield
    finally:
        for hook in reversed(entered):
            hook.leave()
