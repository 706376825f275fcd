"""How pictures of the pack are lettered: the font that comes with Pillow, so that they look the same everywhere."""

import re
from functools import lru_cache

from PIL import ImageFont


@lru_cache(64)
def letters(size):
    """The font, `size` pixels high."""
    return ImageFont.load_default(size)


def words(text):
    """Those that a line may end with; a no-break space holds two together."""
    return [word for word in re.split(r"[^\S\xa0]+", text) if word]


def wrapped(text, font, room, most):
    """The text in lines of this width in pixels, at most so many; dots at the end of a line say that there is more."""
    lines, more = [""], False
    for word in words(text):
        longer = f"{lines[-1]} {word}".strip()
        if not lines[-1] or font.getlength(longer) <= room:
            lines[-1] = longer
        elif len(lines) < most:
            lines.append(word)
        else:
            more = True
            break
    return [cut(line, font, room, more and i + 1 == len(lines)) for i, line in enumerate(lines)]


def cut(line, font, room, more=False):
    """A line that fits, with dots at its end where letters are missing or `more` is to come."""
    line = line.replace("\xa0", " ")
    if not more and font.getlength(line) <= room:
        return line
    while line and font.getlength(f"{line} ...") > room:
        line = line.rpartition(" ")[0] if " " in line else line[:-1]
    return f"{line} ...".strip()
