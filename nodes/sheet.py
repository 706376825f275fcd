"""Pictures on one labelled sheet, which can be read where it is shown 1024 pixels wide."""

from math import ceil
from typing import NamedTuple

from PIL import Image, ImageDraw

from .letters import letters, words, wrapped

SHOWN, LETTER = 1024, 17  # pixels: how wide a sheet is looked at, and how high its letters are then
MOST = 6144  # pixels of a sheet, across and down
BACK, TEXT, DIM = "#f4f4f2", "#111111", "#555555"
LINES = 3  # of a heading or a caption
ROOM = 7  # letters' heights that the headings of rows are wide, at most


class Shown(NamedTuple):
    """A picture with what stands below it: strong, and then dim."""

    picture: Image.Image
    label: str = ""
    note: str = ""


def sheet(table, columns=(), rows=(), notes=()):
    """The sheet as a PIL image. table: rows of Shown, of which the last may be shorter. columns, rows: their headings, if
    any. notes: what stands dim below the headings of columns."""
    across = max(map(len, table))
    sides = box([shown.picture for row in table for shown in row], across, len(table))
    width, height = sides
    size = fitting(ceil(across * width * LETTER / (SHOWN - ROOM * LETTER * bool(rows))), columns, width)
    gap, line = max(4, size // 3), ceil(1.25 * size)
    font, small = letters(size), letters(ceil(0.85 * size))
    heads = [[*wrapped(text, font, width, LINES)] for text in columns]
    dims = [[part for text in note.split("\n") for part in wrapped(text, small, width, LINES)] for note in notes]
    captions = [[(wrapped(shown.label, font, width, LINES) if shown.label else [],
                  wrapped(shown.note, small, width, LINES) if shown.note else []) for shown in row] for row in table]
    left = gap + (ceil(max(font.getlength(part) for text in rows for part in wrapped(text, font, ROOM * size, LINES))) + gap
                  if rows else 0)
    top = gap + line * (max(map(len, heads), default=0) + max(map(len, dims), default=0))
    below = [line * max(len(label) + len(note) for label, note in row) for row in captions]
    image = Image.new("RGB", (left + across * (width + gap), top + sum(height + gap + deep for deep in below) + gap), BACK)
    draw = ImageDraw.Draw(image)

    def write(x, y, lines, color, font, anchor="ma"):
        for i, text in enumerate(lines):
            draw.text((x, y + line * i), text, color, font, anchor=anchor)

    for i, head in enumerate(heads):
        x = left + i * (width + gap) + width // 2
        write(x, gap // 2, head, TEXT, font)
        write(x, gap // 2 + line * max(map(len, heads)), dims[i] if i < len(dims) else [], DIM, small)
    y = top
    for j, row in enumerate(table):
        if rows:
            lines = wrapped(rows[j], font, left - 2 * gap + 1, LINES)
            write(gap, y + (height - line * len(lines)) // 2, lines, TEXT, font, "la")
        for i, shown in enumerate(row):
            x = left + i * (width + gap)
            picture = resized(shown.picture, sides)
            image.paste(picture, (x + (width - picture.width) // 2, y + (height - picture.height) // 2))
            label, note = captions[j][i]
            write(x + width // 2, y + height + gap // 4, label, TEXT, font)
            write(x + width // 2, y + height + gap // 4 + line * len(label), note, DIM, small)
        y += height + gap + below[j]
    return image


def fitting(size, texts, room):
    """This size of letters, or down to three quarters of it where words of the texts would not fit otherwise."""
    whole = {word for text in texts for word in words(text)}
    sizes = range(max(13, size), max(12, size * 3 // 4), -1)
    return next((size for size in sizes if all(letters(size).getlength(word) <= room for word in whole)), sizes[-1])


def box(pictures, across, down):
    """(width, height) of a cell: of the largest picture, or so many times as large that the sheet can be read."""
    width, height = (max(getattr(picture, side) for picture in pictures) for side in ("width", "height"))
    times = max(1, round(SHOWN / (across * width)))
    scale = min(times, MOST / (across * width), MOST / (down * height))
    return max(1, int(width * scale)), max(1, int(height * scale))


def resized(picture, room):
    """As large as fits: whole pixels are repeated where it is enlarged, and averaged where it is shrunk."""
    scale = min(side / own for side, own in zip(room, picture.size))
    size = [max(1, int(own * (int(scale) if scale >= 1 else scale))) for own in picture.size]
    return picture.resize(size, Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS)
