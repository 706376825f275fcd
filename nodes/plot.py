"""A picture of a schedule over one run: its value at every step, above the step, percent and sigma it is used at."""

from math import ceil, floor, isclose, log10

from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT, SHARP = 960, 480, 2  # drawn SHARP times as large, then scaled down
LEFT, RIGHT, TOP, BOTTOM = 70, 20, 58, 110
BACK, PANEL, GRID, TEXT, DIM, LINE, ON = "#1b1d21", "#23262b", "#343840", "#e6e6e6", "#9aa0a8", "#5cb8ff", "#28435a"


def plot(title, caption, moments, values, between, off):
    """values: at each of `moments`; between: [(step, value), ...] for the line; off: the value that does nothing."""
    image = Image.new("RGB", (WIDTH * SHARP, HEIGHT * SHARP), BACK)
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(13 * SHARP)
    heights = [off, *values, *(y for _, y in between)]
    low, high = min(0.0, *heights), max(heights)
    high += 0.08 * (high - low) or 1.0

    def x_of(step):
        return (LEFT + (step + 0.5) / len(moments) * (WIDTH - LEFT - RIGHT)) * SHARP

    def y_of(value):
        return (TOP + (high - value) / (high - low) * (HEIGHT - TOP - BOTTOM)) * SHARP

    def write(x, y, text, color=TEXT, anchor="mm", halo=0):
        draw.text((x, y), text, fill=color, font=font, anchor=anchor, stroke_width=halo * SHARP, stroke_fill=PANEL)

    left, right, bottom = LEFT * SHARP, (WIDTH - RIGHT) * SHARP, y_of(low)
    draw.rectangle((left, TOP * SHARP, right, bottom), fill=PANEL)
    half = (right - left) / len(moments) / 2
    for step, value in enumerate(values):
        if not isclose(value, off):
            draw.rectangle((x_of(step) - 0.86 * half, min(y_of(value), y_of(off)), x_of(step) + 0.86 * half, max(y_of(value), y_of(off))), fill=ON)
    for value in round_values(low, high):
        draw.line((left, y_of(value), right, y_of(value)), fill=GRID, width=SHARP)
        write(left - 8 * SHARP, y_of(value), f"{value:g}", DIM, "rm")
    draw.line((left, y_of(off), right, y_of(off)), fill=DIM, width=SHARP)
    draw.line([(x_of(step), y_of(value)) for step, value in between], fill=LINE, width=2 * SHARP, joint="curve")
    radius = min(4 * SHARP, half)
    every = -(-len(moments) // 20)  # room for 20 numbers side by side
    for step, (moment, value) in enumerate(zip(moments, values)):
        x, y = x_of(step), y_of(value)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=LINE, outline=BACK, width=SHARP)
        if step % every == 0:
            write(x, max(y - 14 * SHARP, (TOP + 8) * SHARP), f"{round(value, 6) + 0.0:.3g}", halo=2)
            for row, text in enumerate((str(step), f"{100 * moment.percent:.0f}%", f"{moment.sigma:.3g}")):
                write(x, bottom + (16 + 20 * row) * SHARP, text, TEXT if row == 0 else DIM)
    for row, text in enumerate(("step", "percent", "sigma")):
        write(left - 8 * SHARP, bottom + (16 + 20 * row) * SHARP, text, DIM, "rm")
    write(left, 26 * SHARP, shortened(title, 110), TEXT, "lm")
    write(left, (HEIGHT - 22) * SHARP, caption, TEXT, "lm")
    return image.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)


def round_values(low, high):
    """Four to nine round numbers in the range."""
    power = 10 ** floor(log10((high - low) / 4))
    step = next(digit * power for digit in (5, 2, 1) if digit * power <= (high - low) / 4)
    return [round(i * step, 9) for i in range(ceil(low / step), floor(high / step) + 1)]


def shortened(text, most):
    return text if len(text) <= most else text[: most - 3] + "..."
