"""A picture of a schedule over one run: its value at every step, above the step, percent and sigma it is used at.

It is looked at on a node, at a fifth to a third of its size and on any background, so its letters are large and it
brings its own background. What does not fit (each step's number, a long text) is left out rather than made smaller.
"""

from math import ceil, floor, isclose, log10

from PIL import Image, ImageDraw

from .letters import letters, wrapped

WIDTH, HEIGHT, SHARP = 960, 720, 2  # drawn SHARP times as large, then scaled down
LEFT, RIGHT, TOP, BOTTOM = 148, 24, 92, 262  # around the box
LARGE, SMALL = 38, 34  # letters
COLUMNS = 4  # steps with their numbers below
BACK, PANEL, GRID, TEXT, DIM, LINE, ON = "#20242a", "#2a2f37", "#454c57", "#ffffff", "#c3c9d2", "#6cc0ff", "#35597a"


def plot(title, caption, moments, values, between, off):
    """values: at each of `moments`; between: [(step, value), ...] for the line; off: the value that does nothing."""
    image = Image.new("RGB", (WIDTH * SHARP, HEIGHT * SHARP), BACK)
    draw = ImageDraw.Draw(image)
    large, small = (letters(size * SHARP) for size in (LARGE, SMALL))
    heights = [off, *values, *(y for _, y in between)]
    low, high = min(0.0, *heights), max(heights)
    high += 0.16 * (high - low) or 1.0  # room for the numbers above the dots

    def x_of(step):
        return (LEFT + (step + 0.5) / len(moments) * (WIDTH - LEFT - RIGHT)) * SHARP

    def y_of(value):
        return (TOP + (high - value) / (high - low) * (HEIGHT - TOP - BOTTOM)) * SHARP

    def write(x, y, text, color=TEXT, anchor="mm", font=small, halo=0):
        draw.text((x, y), text, fill=color, font=font, anchor=anchor, stroke_width=halo * SHARP, stroke_fill=PANEL)

    left, right, bottom = LEFT * SHARP, (WIDTH - RIGHT) * SHARP, y_of(low)
    draw.rectangle((left, TOP * SHARP, right, bottom), fill=PANEL)
    half = (right - left) / len(moments) / 2
    for step, value in enumerate(values):
        if not isclose(value, off):
            edges = sorted((y_of(value), y_of(off)))
            draw.rectangle((x_of(step) - 0.86 * half, edges[0], x_of(step) + 0.86 * half, edges[1]), fill=ON)
    for value in round_values(low, high):
        draw.line((left, y_of(value), right, y_of(value)), fill=GRID, width=2 * SHARP)
        write(left - 14 * SHARP, y_of(value), f"{value:g}", DIM, "rm")
    draw.line((left, y_of(off), right, y_of(off)), fill=DIM, width=2 * SHARP)
    draw.line([(x_of(step), y_of(value)) for step, value in between], fill=LINE, width=5 * SHARP, joint="curve")
    radius = min(8 * SHARP, 0.8 * half)
    for step, value in enumerate(values):
        x, y = x_of(step), y_of(value)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=TEXT)
    for step in columns(len(moments)):
        moment, value, x = moments[step], values[step], x_of(step)
        text = f"{round(value, 6) + 0.0:.3g}"
        side = draw.textlength(text, small) / 2
        slope = values[min(step + 1, len(values) - 1)] - values[max(step - 1, 0)]
        away = x + (0 if isclose(slope, 0.0, abs_tol=0.02 * (high - low)) else side if slope < 0 else -side)
        at = min(max(away, left + side), right - side)
        write(at, max(y_of(value) - 32 * SHARP, (TOP + 20) * SHARP), text, halo=5)
        for row, text in enumerate((str(step), f"{100 * moment.percent:.0f}%", f"{moment.sigma:.3g}")):
            at = min(x, (WIDTH - 12) * SHARP - draw.textlength(text, small) / 2)
            write(at, bottom + (30 + 44 * row) * SHARP, text, TEXT if row == 0 else DIM)
    start, room = 24 * SHARP, (WIDTH - 48) * SHARP
    for row, text in enumerate(("step", "run", "sigma")):
        write(start, bottom + (30 + 44 * row) * SHARP, text, DIM, "lm")
    write(start, 44 * SHARP, wrapped(title, large, room, 1)[0], TEXT, "lm", large)
    for row, line in enumerate(wrapped(caption, small, room, 2)):
        write(start, (HEIGHT - 80 + 44 * row) * SHARP, line, TEXT, "lm")
    return image.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)


def columns(steps):
    """The steps that have their numbers below: every nth, and the last one where there is room for it."""
    every = -(-steps // COLUMNS)
    shown = list(range(0, steps, every))
    return shown + [steps - 1] if steps - 1 - shown[-1] > 0.7 * every else shown


def round_values(low, high):
    """Three to six round numbers in the range."""
    power = 10 ** floor(log10((high - low) / 3))
    step = next(digit * power for digit in (5, 2, 1) if digit * power <= (high - low) / 3)
    return [round(i * step, 9) for i in range(ceil(low / step), floor(high / step) + 1)]
