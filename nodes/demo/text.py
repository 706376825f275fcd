"""The demo model's language: 20 tokens, and the small transformer that encodes them."""
import torch
from torch import nn

SIZES = ("small", "big")
COLORS = BACKGROUNDS = ("red", "orange", "yellow", "green", "blue", "purple", "white", "black")
SHAPES = ("circle", "square", "triangle", "cross", "ring", "star")
PAD, BOS = 0, 1
WORDS = ("<pad>", "<bos>", "a", "on", *SIZES, *COLORS, *SHAPES)
LENGTH = 8  # tokens per prompt: <bos>, up to seven words, <pad>
WIDTH = 64
LONGEST = 30  # characters of an unknown word that a sentence quotes


def word_ids(text: str) -> list[int]:
    """Token ids of the words in a text, without <bos> and <pad>. Commas and full stops mean nothing."""
    words = text.lower().replace(",", " ").replace(".", " ").split()
    for word in words:
        if word not in WORDS[2:]:
            named = word if len(word) <= LONGEST else f"{word[:LONGEST]}..."
            raise ValueError(f"The demo model does not know the word '{named}'; it knows: {', '.join(WORDS[2:])}.")
    if len(words) > LENGTH - 1:
        raise ValueError(f"The demo model reads at most {LENGTH - 1} words, and this prompt has {len(words)}.")
    return [WORDS.index(word) for word in words]


def tokenize(text: str) -> torch.Tensor:
    """Tokens (LENGTH,) of a prompt; the empty prompt is <bos> and padding, the null of the conditioning dropout."""
    ids = [BOS, *word_ids(text)]
    return torch.tensor(ids + [PAD] * (LENGTH - len(ids)))


class TextEncoder(nn.Module):
    """Tokens (n, LENGTH) to embeddings (n, LENGTH, WIDTH)."""

    def __init__(self, dtype=None, device=None):
        super().__init__()
        at = {"dtype": dtype, "device": device}
        self.words = nn.Embedding(len(WORDS), WIDTH, **at)
        self.places = nn.Parameter(torch.empty(LENGTH, WIDTH, **at).normal_(std=.02))
        self.mix = nn.TransformerEncoderLayer(WIDTH, 4, 2 * WIDTH, dropout=0., activation="gelu",
                                              batch_first=True, norm_first=True, **at)
        self.norm = nn.LayerNorm(WIDTH, **at)

    def forward(self, tokens):
        return self.norm(self.mix(self.words(tokens) + self.places))
