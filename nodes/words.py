"""Negative weights written in a prompt: what stays in it, and which words to push away, encoded without anything else."""

import re
from itertools import accumulate, takewhile

import comfy.sd1_clip as host

PERHAPS = re.compile(r":\s*-")  # without it no weight is negative
SEPARATORS = " \t\r\n,"
GAP = "\0\3"  # where something was; ComfyUI writes escaped parentheses in this way
DEEPEST, MOST, STRONGEST = 20, 64, 10.0


def taken_apart(text):
    """(the text without what has a negative weight, {words: how strongly they are pushed away}).

    Weights are read as ComfyUI reads them: a number replaces the weight around it, parentheses alone make 1.1 of it.
    Raises ValueError with one sentence.
    """
    if not PERHAPS.search(text):
        return text, {}
    escaped = host.escape_important(text)
    depth = max(accumulate((char == "(") - (char == ")") for char in escaped))
    if depth > DEEPEST:
        raise ValueError(f"text has parentheses {depth} deep; they have to be at most {DEEPEST} deep.")
    away: dict[str, float] = {}
    kept = _kept(escaped, 1.0, away)
    return _escaped_again(kept), {_escaped_again(words): weight for words, weight in away.items()}


def _kept(text, weight, away):
    """What stays of a text of this weight; the words that do not are added to `away`."""
    return _closed("".join(_stays(part, weight, away) or GAP for part in host.parse_parentheses(text)))


def _stays(part, weight, away):
    """The same for a part that is in parentheses as a whole, or has none."""
    inner, inside, number = _weighted(part, weight)
    if inner is not None:
        kept = _kept(inner, inside, away)
        if inside < 0 or not kept:
            return kept
        return part if kept == inner else f"({kept}{number})"
    if weight >= 0:
        return part
    words = part.strip(SEPARATORS)
    if words:
        away[words] = away.get(words, 0.0) - weight
        if not away[words] <= STRONGEST:
            raise ValueError(f"text gives '{_escaped_again(words[:40])}' the weight {-away[words]:g}; it has to be at least "
                             f"{-STRONGEST:g}.")
        if len(away) > MOST:
            raise ValueError(f"text has more than {MOST} parts with a negative weight; it has to have at most {MOST}.")
    return ""


def _weighted(part, weight):
    """(what is in the parentheses, its weight, the number as it is written); no text where there are none."""
    if len(part) < 2 or part[0] != "(" or part[-1] != ")":
        return None, weight, ""
    inner = part[1:-1]
    colon = inner.rfind(":")
    if colon > 0:
        try:
            return inner[:colon], float(inner[colon + 1:]), inner[colon:]
        except ValueError:
            pass
    return inner, weight * 1.1, ""


def _closed(text):
    """A text without its gaps: of the separators around one the first comma stays, or else the first of them."""
    first, *others = text.split(GAP)
    if not others:
        return text
    pieces, around = [first.rstrip(SEPARATORS)], [first[len(first.rstrip(SEPARATORS)):]]
    for piece in others:
        words = piece.strip(SEPARATORS)
        around.append(piece[:len(piece) - len(piece.lstrip(SEPARATORS))])
        if words:
            if any(pieces):
                pieces.append(next((s for s in around if "," in s), next(filter(None, around), " ")))
            pieces.append(words)
            around = [piece[len(piece.rstrip(SEPARATORS)):]]
    return "".join(pieces) + (around[0] if len(around) == 1 else "")


def _escaped_again(text):
    return text.replace("\0\1", "\\)").replace("\0\2", "\\(")


# ---------------------------------------------------------------------------------------------------- encoding

def encoded(clip, text):
    """A text as CLIPTextEncode encodes it."""
    return clip.encode_from_tokens_scheduled(clip.tokenize(text))


def words_alone(clip, text):
    """A text's conditioning cut down to its words, because begin, end and padding stand in every prompt, and pushed away
    they would be missing from it; None where it has no word."""
    conditioning = encoded(clip, text)
    at = _places(clip, text, conditioning[0][0].shape[1])
    if at is None:
        return conditioning
    cut = [[tokens[:, at], {name: value[..., at] if name == "attention_mask" else value for name, value in values.items()}]
           for tokens, values in conditioning]
    return cut if at else None


def _places(clip, text, count):
    """Which of an encoded text's tokens are words; None where that cannot be known.

    Words are not what the empty text has as well, in front and at the end. Several text encoders stand side by side, or
    one behind the other (SD3); and one may drop tokens in front (Qwen-Image's instructions).
    """
    tokens, empty = (
        {name: [token for batch in batches for token in batch] for name, batches in
         clip.tokenize(words, return_word_ids=True).items()} for words in (text, ""))
    found = {name: _words(tokens[name], empty[name]) for name in tokens}
    sizes = {name: len(tokens[name]) for name in tokens}
    alike = [name for name in tokens if sizes[name] == count]
    if alike:
        return sorted({place for name in alike for place in found[name][0]})
    if {"l", "t5xxl"} <= sizes.keys() and sizes["l"] + sizes["t5xxl"] == count:
        return [*found["l"][0], *(sizes["l"] + place for place in found["t5xxl"][0])]
    if len(tokens) == 1:
        [(places, start)], [size] = found.values(), sizes.values()
        if 0 < size - count <= start:
            return [place - (size - count) for place in places]
    return None


def _words(tokens, empty):
    """(the places of words among the tokens, where the first may stand)"""
    def common(ours, others):
        return sum(1 for _ in takewhile(lambda pair: _same(*pair), zip(ours, others)))

    start = common(tokens, empty)
    stop = max(len(tokens) - common(tokens[::-1], empty[::-1]), start)
    return [place for place in range(start, stop) if tokens[place][2]], start


def _same(token, other):
    return isinstance(token[0], int) and token[0] == other[0]  # an embedding is a tensor
