"""What is done to a prompt so that it is wrong: its values, its wires, its form."""
from .menu import OURS

MEGABYTE = 2**20
NUMBERS = [float("nan"), float("inf"), -float("inf"), 1e308, -1e308, 1e-308, -1, 0, -0.0, 10**400, -(2**63), 2**64, True]
LARGE = [7, 999, 10_000, 999_999]  # in the range of some input, and much work for the host's own nodes
ODD = [None, "", [], {}, [[]], [None, 0], {"a": 1}, {"points": []}, {"points": [[1]]}, {"points": [[0, "x"], [None, 2]]},
       {"points": [[0, float("nan")], [1, 2]]}, {"__value__": None}, {"__value__": []}, {"__value__": [1, 2]},
       {"__value__": {"points": 3}}, {"__value__": [float("nan")]}, {"__type__": "CURVE", "__value__": 3}]
TEXTS = [
    "nan", "inf", "-1", "1e999", "0x10", "٣", "½", "1_000", " ", "\x00", "\ud800", "\u202eabc", "💥", "a\nb", "None", "true",
    "../../../../etc/passwd", "<script>alert(1)</script>", "%s%s%n", "{0.__class__}", "$(reboot)", "'; DROP TABLE nodes; --",
    "0:7,", ":", "0:", "0:1, 0:2", "1:0, 0:1", "0:nan", "0:1e308, 1:-1e308", "0:1, 1:2 sideways", "0:1 percent sigma",
    "1..", "1..9 by 0", "0..1 by 1e-30", "1e-999999", "0e999999999", "1..1e19", "(", "(a:", "(a:1e999)",
    "((((a:-1):-1):-1):-1)", "(a:nan)", "embedding:x", "middle.?", "?", "-1", "7-", "9-1", "0%-999999999%",
    "input.99999999999999999999",
]
LONG = [
    "x", "9", "(", ")", "((a:-1)", "0:1, ", "0.5:1,", "1,", "1\n", "middle, ", "\x00", "💥", "a ", "- ", ".", "%", "1..2,",
    "0..9 by 1,", "1-2,", "(a:-1) ", "\\(", "e", "+", "[", "{", "🏳️‍🌈", "\n", "\t",
]


def text(rng):
    if rng.random() < 0.75:
        return rng.choice(TEXTS)
    part = rng.choice(LONG)
    return part * (rng.choice([50, 5000, MEGABYTE, MEGABYTE]) // len(part) + 1)


def hostile(rng, ours):
    """A value that hardly any input takes. ours: whether of one of the pack's nodes."""
    way = rng.random()
    if way < 0.4:
        return rng.choice(NUMBERS + LARGE * ours)
    if way < 0.75:
        return text(rng)
    if way < 0.8:
        return {"__value__": [rng.random()] * rng.choice([3, 100_000])}
    if way < 0.85:
        return [1.5] * rng.choice([1, 3, 100_000])
    return rng.choice(ODD)


def wrong_value(rng, nodes):
    number = some_node(rng, nodes)
    inputs = nodes[number]["inputs"]
    if inputs:
        name = rng.choice(sorted(inputs))
        inputs[name] = hostile(rng, nodes[number]["class_type"].startswith(OURS))


def missing_input(rng, nodes):
    inputs = nodes[some_node(rng, nodes)]["inputs"]
    if inputs:
        del inputs[rng.choice(sorted(inputs))]


def unknown_input(rng, nodes):
    name = rng.choice(["", "x", "cls", "self", "model.x", "unique_id", "prompt"])
    nodes[some_node(rng, nodes)]["inputs"][name] = hostile(rng, True)


def wrong_link(rng, nodes):
    """To any node at any output: another type, a cycle, an output or a node that there is not."""
    number = some_node(rng, nodes)
    inputs = nodes[number]["inputs"]
    if inputs:
        links = [name for name, value in inputs.items() if isinstance(value, list)]
        to = rng.choice([*nodes, number, number, "999", "", None, 3, "-1"])
        inputs[rng.choice(sorted(links or inputs))] = [to, rng.choice([0, 0, 0, 1, 2, 7, -1, "0", 0.5, None])]


def other_node(rng, nodes):
    """Another node's class under the same inputs."""
    number, other = (some_node(rng, nodes) for _ in range(2))
    nodes[number]["class_type"] = nodes[other]["class_type"]


def wrong_form(rng, nodes):
    """A node that is none."""
    number = some_node(rng, nodes)
    way = rng.randrange(4)
    if way == 0:
        nodes[number]["class_type"] = rng.choice([None, "", "GuidanceCfg", "TCFG", ["GuidanceCFG"], 3])
    elif way == 1:
        nodes[number]["inputs"] = rng.choice([None, [], "x", 3])
    elif way == 2:
        nodes[number] = rng.choice([None, [], "x", {}, {"inputs": {}}])
    else:
        nodes.pop(number)


WAYS = [wrong_value] * 10 + [missing_input, unknown_input, wrong_link, wrong_link, wrong_link, other_node]


def spoil(rng, nodes):
    """Make a prompt wrong in one to three places; what was done, by name."""
    done, ways = [], [rng.choice(WAYS) for _ in range(rng.choice([1, 1, 1, 2, 3]))]
    if unknown_input in ways or other_node in ways:
        # A link to nowhere at an input that a node does not have ends the host's worker, whoever's node it is.
        ways = [way for way in ways if way is not wrong_link]
    for way in ways:
        way(rng, nodes)
        done.append(way.__name__)
    if rng.random() < 0.03:  # last, as nothing else can be done to what is no node
        wrong_form(rng, nodes)
        done.append("wrong_form")
    return done


def some_node(rng, nodes):
    ours = [number for number, node in nodes.items() if node["class_type"].startswith(OURS)]
    return rng.choice(ours if ours and rng.random() < 0.8 else list(nodes))
