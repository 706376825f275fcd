"""Schedules as text: `0:7.5, 0.5:6, 1:1 smooth percent`, or a number for each step: `12, 12, 10, 8`.

    schedule      = item { separator item } [ separator ] { word [ separator ] }
    item          = number ":" number                            position : value
                  | number                                       a value; one is a constant, more are one for each step
    separator     = "," | ";" | line break                       one "," or ";", with any line breaks around it
    word          = interpolation | axis                         each at most once, in capitals or not
    interpolation = "linear" | "smooth" | "step"                 linear when absent
    axis          = "percent" | "sigma" | "steps"                percent when absent; of a list, steps
    number        = plain | "(" plain ")"
    plain         = [ "+" | "-" ] up to 6 digits [ "." up to 9 digits ]

All items have a position, or none has. Positions are 0 to 1 on the percent axis (ComfyUI's percent) and not negative
on the others; steps count from 0. No two points share a position; any order will do, and the canonical one, str(), is
the run's, in which sigma falls. A list is stretched over a run with another number of steps.
web/js/curve.js reads and draws the same texts; tests/schedules.json holds the two together.
"""

import re

from .schedule_values import AXES, INTERPOLATIONS, MOST_POINTS, PerStep, Schedule, ScheduleError, at, per_step

__all__ = ["AXES", "INTERPOLATIONS", "MOST_POINTS", "PerStep", "Schedule", "ScheduleError", "at", "parse", "per_step"]

_BLANKS = re.compile(r"[ \t\r\n]*")
_TOKEN = re.compile(r"(?P<number>[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))|(?P<word>[A-Za-z_]+)|(?P<mark>.)", re.DOTALL)
_PLAIN = re.compile(r"[+-]?(?:[0-9]{1,6}(?:\.[0-9]{0,9})?|\.[0-9]{1,9})")
_PIECE = re.compile(r"[^ \t\r\n,;:()]{0,20}")
_PIECE_BEFORE = re.compile(r"[^ \t\r\n,;:()]*\Z")
_NUMBER = "a number with up to 6 digits and 9 decimals"


def parse(text: str) -> Schedule:
    """The schedule that a text means. `parse(str(s)) == s` for every schedule s. Raises ScheduleError.

    The time is linear in the text, which is read up to the first mistake.
    """
    reader = _Reader(text)
    items: list = []  # numbers, or positions with numbers
    positions, separated = False, True
    while not items or (separated and (reader.kind == "number" or reader.token == "(")):
        if len(items) == MOST_POINTS:
            raise ScheduleError(f"The schedule {_around(text, 0)} has more than {MOST_POINTS} points, which is the "
                                f"most.")
        number = reader.number()
        positions = positions or (not items and reader.token == ":")
        if positions:
            reader.mark(":", "a colon and a value, as in 0.5:6,")
        items.append((number, reader.number()) if positions else number)
        separated = reader.separator()
    is_list = not positions and len(items) > 1
    words = dict.fromkeys(INTERPOLATIONS, "interpolation") | dict.fromkeys(["steps"] if is_list else AXES, "axis")
    chosen: dict[str, str] = {}
    while reader.kind == "word":
        kind = words.get(reader.token.lower())
        if kind is None or kind in chosen:
            break
        chosen[kind] = reader.token.lower()
        reader.step()
        reader.separator()
    if reader.kind != "end":
        first = [] if chosen else [_NUMBER if separated else "a comma"]
        reader.fail(*first, *(word for word, kind in words.items() if kind not in chosen), "the end")
    if not positions:
        return per_step(items, chosen.get("interpolation", "linear"))
    try:
        return Schedule(tuple(items), **chosen)
    except ScheduleError as error:
        raise ScheduleError(f"In {_around(text, 0)}: {error}") from None


class _Reader:
    """A text from left to right: `token` is the next one, `kind` what it is."""

    def __init__(self, text):
        self.text, self.end = text, 0
        self.step()

    def step(self):
        before = self.end
        self.start = before + len(_found(_BLANKS.match(self.text, before)))
        self.new_line = any(self.text.find(end, before, self.start) >= 0 for end in "\n\r")
        found = _TOKEN.match(self.text, self.start)
        self.kind, self.token = (found.lastgroup, found[0]) if found else ("end", "")
        self.end = self.start + len(self.token)

    def number(self):
        bracket = self.token == "("
        if bracket:
            self.step()
        if self.kind != "number" or not _PLAIN.fullmatch(self.token):
            self.fail(_NUMBER)
        number = float(self.token)
        self.step()
        if bracket:
            self.mark(")", "a closing bracket after a plain number")
        return number

    def mark(self, mark, meaning):
        if self.token != mark:
            self.fail(meaning)
        self.step()

    def separator(self):
        """Whether there is one here; it is read."""
        separated = self.new_line
        if self.token in (",", ";"):
            separated = True
            self.step()
        return separated

    def fail(self, *allowed):
        start = self.start
        if self.kind == "end":
            found = "ends"
        else:
            if _found(_PIECE.match(self.token)):  # to the user 1e3 is one piece, not a number with something after it
                start -= len(_found(_PIECE_BEFORE.search(self.text, max(start - 20, 0), start)))
            piece = _found(_PIECE.match(self.text, start)) or self.token
            if start < self.start and piece[0] in "+-.0123456789":
                allowed = [_NUMBER]
            found = f"has {piece!r} as character {start + 1},"
        *others, last = allowed
        choice = f"{', '.join(others)} or {last}" if others else last
        raise ScheduleError(f"The schedule {_around(self.text, start)} {found} where {choice} belongs; "
                            "examples are 0:7.5, 0.5:6, 1:1 smooth and the list 8, 7, 6.")


def _found(match: re.Match[str] | None) -> str:
    return match[0] if match else ""


def _around(text, place):
    """At most 60 characters of the text, quoted."""
    first = max(min(place - 25, len(text) - 60), 0)
    return repr("..." * (first > 0) + text[first:first + 60] + "..." * (len(text) > first + 60))
