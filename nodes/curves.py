"""A picture of what a probe saw: boxes of curves over the steps, one below the other, on a light ground.

It is looked at on a node, at a third of its size, so its letters are as large as those of the preview (plot.py).
"""

from math import ceil
from typing import NamedTuple

from PIL import Image, ImageDraw

from .letters import letters, wrapped
from .plot import SHARP, SMALL, WIDTH, columns, round_values

LEFT, RIGHT, BOX, LINE, GAP = 140, 28, 220, 46, 30  # pixels: around the boxes; their height; of a line of text; between
BACK, PANEL, GRID, TEXT, DIM = "#f6f6f4", "#ffffff", "#dcdcd8", "#16181d", "#5b6270"
COLORS = ("#1460aa", "#c2410c", "#2f7d32", "#8b2fa8", "#a16a00", "#0f7c86", "#c2185b", "#4b5563")
FEW = 40  # evaluations, up to which each has a dot


class Box(NamedTuple):
    """lines: by label, a number for each step, None where there is none."""

    title: str
    lines: dict


def boxes(stream):
    """What is drawn of a stream; lines that are 0 throughout are left out."""
    added, along = ({name: values for name, values in stream[part].items() if any(values)} for part in ("added", "along"))
    return [
        Box("direction of guidance", {"length (cond's = 1)": stream["direction"], "cosine to cond": stream["cosine_to_cond"],
                                      "cosine to the last one": stream["cosine_to_last"]}),
        Box("added: length, as a share of the answer's", added),
        Box("of it along the answer (they add up to 1)", along),
        Box("answer", {"deviation (cond's = 1)": stream["std_ratio"], "share beyond cond's 99.9%": stream["beyond_share"]}),
    ]


def curves(record, stream):
    """The picture of one stream. record: as a probe keeps it."""
    seen, count = record["streams"][stream], len(record["step"])
    took = sum(record["ms"]) / count
    return picture(boxes(seen), record["step"], {"sigma": record["sigma"], "cfg": seen["scale"]}, (
        f"{count} evaluations, {sum(record['rows'])} rows in {sum(record['calls'])} calls, {took:,.0f} ms each"))


def picture(shown, steps, facts, caption):
    """shown: Boxes, over these steps. facts: by name, what is written below some of the steps."""
    font = letters(SMALL * SHARP)
    legends = [legend(box.lines, font) for box in shown]
    height = sum(LINE * (1 + len(rows)) + BOX + GAP for rows in legends) + LINE * (2 + len(facts)) + 20
    sheet, top = Sheet(height, steps, font), 14
    for box, rows in zip(shown, legends):
        top = sheet.panel(box, rows, top) + GAP
    sheet.footer({"step": steps, **facts}, caption, top - GAP)
    return sheet.image.resize((WIDTH, height), Image.Resampling.LANCZOS)


def legend(labels, font):
    """Rows of (label, color, where it starts)."""
    rows: list[list[tuple]] = [[]]
    x = LEFT
    for label, color in zip(labels, COLORS * ceil(len(labels) / len(COLORS))):
        width = font.getlength(label) / SHARP + 64
        if rows[-1] and x + width > WIDTH:
            rows.append([])
            x = LEFT
        rows[-1].append((label, color, x))
        x += width
    return rows


class Sheet:
    def __init__(self, height, steps, font):
        self.image = Image.new("RGB", (WIDTH * SHARP, height * SHARP), BACK)
        self.draw, self.font, self.steps = ImageDraw.Draw(self.image), font, steps
        self.last = max([1.0, *(step for step in steps if step is not None)])

    def x(self, step):
        return LEFT + 24 + (step or 0) / self.last * (WIDTH - LEFT - RIGHT - 48)

    def write(self, x, y, text, color=TEXT, anchor="lm"):
        self.draw.text((x * SHARP, y * SHARP), text, fill=color, font=self.font, anchor=anchor)

    def line(self, points, color, width):
        self.draw.line([(x * SHARP, y * SHARP) for x, y in points], fill=color, width=width * SHARP, joint="curve")

    def panel(self, box, rows, top):
        """Draw a box under its title and its legend; returns where it ends."""
        self.write(24, top + LINE / 2, box.title)
        for i, row in enumerate(rows):
            for label, color, x in row:
                y = top + (i + 1.5) * LINE
                self.line([(x, y), (x + 26, y)], color, 8)
                self.write(x + 36, y, label, color)
        top += (1 + len(rows)) * LINE
        known = [value for values in box.lines.values() for value in values if value is not None]
        low, high = min(0.0, *known, 0.0), max(0.0, *known, 0.0)
        high = high if high > low else low + 1.0
        pad = 0.06 * (high - low)

        def y_of(value):
            return top + (high + pad - value) / (high - low + 2 * pad) * BOX

        corners = LEFT, top, WIDTH - RIGHT, top + BOX
        self.draw.rectangle(tuple(SHARP * corner for corner in corners), fill=PANEL, outline=GRID)
        for value in round_values(low, high):
            self.line([(LEFT, y_of(value)), (WIDTH - RIGHT, y_of(value))], DIM if value == 0 else GRID, 2)
            self.write(LEFT - 12, y_of(value), f"{value:g}", DIM, "rm")
        for row in rows:
            for label, color, _ in row:
                self.curve([(self.x(step), y_of(value)) if value is not None else None
                            for step, value in zip(self.steps, box.lines[label])], color)
        return top + BOX

    def curve(self, points, color):
        """A line through the points, with gaps where there is none."""
        for one, other in zip(points, points[1:]):
            if one and other:
                self.line([one, other], color, 5)
        for i, point in enumerate(points):
            alone = point and not any(points[max(i - 1, 0):i] + points[i + 1:i + 2])
            if point and (alone or len(points) <= FEW):
                (x, y), r = point, 7
                self.draw.ellipse(((x - r) * SHARP, (y - r) * SHARP, (x + r) * SHARP, (y + r) * SHARP), fill=color)

    def footer(self, facts, caption, top):
        """Under the last box: what is known of some of the steps, and a line of text."""
        for row, (name, values) in enumerate(facts.items()):
            y = top + (row + 0.7) * LINE
            self.write(24, y, name, DIM)
            for i in columns(len(self.steps)):
                text = "-" if values[i] is None else f"{values[i]:.3g}"
                x = min(self.x(self.steps[i]), WIDTH - 12 - self.font.getlength(text) / SHARP / 2)
                self.write(x, y, text, TEXT if row == 0 else DIM, "mm")
        y = top + (len(facts) + 1) * LINE
        self.write(24, y, wrapped(caption, self.font, (WIDTH - 48) * SHARP, 1)[0])
