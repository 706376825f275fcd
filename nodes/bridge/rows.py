"""What each row of a forward is: known to us, and told to other packs in the two words that they know, 0 and 1."""

from typing import NamedTuple

from ...guidance.core import Branch, Mistimed, Perturbed

LABELS = "guidance_labels"  # in one batch's transformer_options: its Labels
ROWS = "guidance_rows"  # in one forward's: its Rows
JOINED = "guidance_joined"  # in an entry's model_conds, then in apply_model's keywords, then in one forward's options
TOLD = "guidance_told"  # in one forward's: which of its entries are told another time, or None where none is
WEAKENED = "guidance_weakened"  # in one forward's options: what weakens which of its entries


class Label(NamedTuple):
    """One entry of a batch. kin: the place of the host's entry that other packs should take it for. branch: what the
    chain wanted it for; None for the host's own. weakened: what happens to its attention and blocks on the way.
    unprompted: whether it is a prompt of which the network's prediction without it is wanted; see halves.py."""

    kin: int
    branch: Branch | None = None
    weakened: Perturbed | None = None
    unprompted: bool = False


class Labels:
    """The labels of one batch. No list: the host copies those on their way.

    twins: of an entry's uuid, that of the entry which it copies. done: what has weakened something somewhere.
    """

    def __init__(self, labels, twins):
        self.labels, self.twins, self.done = list(labels), twins, set()

    def kin(self, order):
        """cond_or_uncond as other packs know it: the host's own entries, and ours as the entries they resemble."""
        return [self.labels[i].kin for i in order]

    def rows(self, order, uuids):
        at = {uuid: place for place, uuid in enumerate(uuids)}
        twins = [at.get(self.twins.get(uuid)) for uuid in uuids] or [None] * len(order)
        return Rows([self.labels[i].weakened for i in order], twins, self.done, [self.labels[i].unprompted for i in order])

    def told(self, order):
        """The Mistimed branch of each entry that has one; None if none has."""
        branches = [branch if isinstance(branch := self.labels[i].branch, Mistimed) else None for i in order]
        return branches if any(branches) else None


class Rows(NamedTuple):
    """The entries of one forward, whose rows lie one behind the other.

    weakened: what weakens each, or None. twins: of each, the place of the entry that it copies; None where that is not
    in this forward. done: what has weakened something. unprompted: whether each wants the other half of what a network
    predicts that makes two predictions in a row; see halves.py.
    """

    weakened: list
    twins: list
    done: set
    unprompted: list

    def only(self, places):
        """Some of the entries."""
        at = {place: i for i, place in enumerate(places)}
        return Rows([self.weakened[i] for i in places], [at.get(self.twins[i]) for i in places], self.done,
                    [self.unprompted[i] for i in places])


class TellingControl:
    """A ControlNet that is told the rows as other packs know them: the host calls it before APPLY_MODEL."""

    def __init__(self, control, labels):
        self.control, self.labels = control, labels

    def __getattr__(self, name):
        return getattr(self.control, name)

    def get_instance_for_device(self, device):
        return TellingControl(self.control.get_instance_for_device(device), self.labels)

    def get_control(self, x_noisy, t, cond, batched_number, transformer_options):
        told = {**transformer_options, "cond_or_uncond": self.labels.kin(transformer_options["cond_or_uncond"])}
        return self.control.get_control(x_noisy, t, cond, batched_number, told)


def arranged(conds, perturbed, prompts, cond_at, uncond_at, weakened=None, unprompted=False):
    """The entries (label, conditioning) of a batch with ours among the host's: [perturbed, cond, prompts, uncond]. The
    host turns their order round, so that its rows are those of its uncond, ours that are like it, its cond and ours
    that are like it; whoever looks for the first row of a kind finds the host's own. weakened, unprompted: its uncond's."""
    entries = []
    for i, cond in enumerate(conds):
        if i == (cond_at or 0):
            entries += perturbed
        if i == uncond_at:
            entries += prompts
        entries.append((Label(i, None, weakened, unprompted) if i == uncond_at else Label(i), cond))
    return entries if uncond_at is not None else entries + prompts


def labelled(labels, conds, model_options):
    """(conds, options) of a batch whose entries are these."""
    controls: dict[int, TellingControl] = {}  # one for each, because the host only joins entries that have the very same

    def telling(entry):
        control = entry.get("control")
        if control is None:
            return entry
        return {**entry, "control": controls.setdefault(id(control), TellingControl(control, labels))}

    conds = [cond and [telling(entry) for entry in cond] for cond in conds]
    options = {**model_options, "transformer_options": {**model_options.get("transformer_options", {}), LABELS: labels}}
    wrapper = options.get("model_function_wrapper")
    if wrapper is not None:
        options["model_function_wrapper"] = lambda apply, args: wrapper(apply, {
            **args, "cond_or_uncond": labels.kin(args["cond_or_uncond"]),
            "c": {**args["c"], "transformer_options": told_apart(args["c"]["transformer_options"])},
        })
    return conds, options


def told_apart(transformer_options):
    """The options of one forward, with its Rows, and with rows that other packs know. Twice is as good as once."""
    labels = transformer_options.get(LABELS)
    if labels is None:
        return transformer_options
    order = transformer_options["cond_or_uncond"]
    rows = labels.rows(order, transformer_options.get("uuids", []))
    return {**transformer_options, ROWS: rows, TOLD: labels.told(order), "cond_or_uncond": labels.kin(order), LABELS: None}


def narrowed(options, entries):
    """The options of a forward as they are for some of its entries: another pack has to see what fits its rows."""
    fewer = {name: [options[name][i] for i in entries] for name in ("cond_or_uncond", "uuids") if name in options}
    ours = {name: options[name].only(entries) for name in (ROWS, JOINED, WEAKENED) if options.get(name) is not None}
    return {**options, **fewer, **ours}
