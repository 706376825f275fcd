"""One call of the host's attention, parts of which can be asked for, whatever its layout and mask."""

from functools import lru_cache

import torch

from .rows import narrowed


class Call:
    """One call of the host's attention, parts of which can be asked for.

    Its layouts: q, k, v are (batch, tokens, heads x width), v perhaps (batch, tokens, heads, width); with skip_reshape
    they are (batch, heads, tokens, width). The answer is (batch, tokens, heads x width), or with skip_output_reshape
    (batch, heads, tokens, width). A mask may lack any leading dimension and may have 1 for batch, heads or queries.
    """

    def __init__(self, attend, q, k, v, args, kwargs):
        self.attend, self.q, self.k, self.v = attend, q, k, v
        self.args, self.kwargs = args, kwargs
        self.axis = 2 if kwargs.get("skip_reshape") else 1
        self.out_axis = 2 if kwargs.get("skip_output_reshape") else 1

    @property
    def queries(self):
        return self.q.shape[self.axis]

    @property
    def keys(self):
        return self.k.shape[self.axis]

    @property
    def mask(self):
        return self.args[1] if len(self.args) > 1 else self.kwargs.get("mask")

    @property
    def features(self):
        return (1, 3) if self.out_axis == 2 else (-1,)

    @property
    def shares(self):
        """Whether this is torch's own attention without anything that would change it, so that it may be taken apart."""
        plain = (getattr(self.attend, "__name__", "") == "attention_pytorch" and self.mask is None
                 and len(self.args) < 3 and not self.kwargs.keys() - PLAIN and self.k.shape == self.q.shape)
        trained = torch.is_grad_enabled() and self.q.requires_grad
        return plain and not trained and partial_works(self.q.device, self.q.dtype, self.by_head()[0].shape[-1])

    def by_head(self):
        """q, k, v as (batch, heads, tokens, width)."""
        if self.axis == 2:
            heads = self.q.shape[1]  # of which several may share keys and values
            return [t if t.shape[1] == heads else t.repeat_interleave(heads // t.shape[1], 1) for t in (self.q, self.k, self.v)]
        heads = self.args[0] if self.args else self.kwargs["heads"]
        return [t.reshape(*t.shape[:2], heads, -1).transpose(1, 2) for t in (self.q, self.k, self.v)]

    def laid_out(self, answer):
        """An answer (batch, heads, tokens, width) as the host wants it."""
        return answer if self.out_axis == 2 else answer.transpose(1, 2).flatten(2)

    def mask_by_head(self):
        """The mask as what is added to (batch, heads, queries, keys); None where there is none."""
        mask = self.mask
        if mask is None:
            return None
        if mask.dtype == torch.bool:
            mask = torch.zeros_like(mask, dtype=torch.float32).masked_fill_(~mask, float("-inf"))
        return mask.unsqueeze(1) if mask.ndim == 3 else mask

    def with_queries(self, q):
        """The same for other queries (batch, heads, tokens, width)."""
        q = q if self.axis == 2 else q.transpose(1, 2).flatten(2)
        return Call(self.attend, q, self.k, self.v, self.args, self.kwargs)

    def with_mask(self, mask):
        if len(self.args) > 1:
            return (self.args[0], mask, *self.args[2:]), self.kwargs
        return self.args, {**self.kwargs, "mask": mask} if "mask" in self.kwargs else self.kwargs

    def with_option(self, name, value):
        """The same with one more of the transformer_options."""
        kwargs = {**self.kwargs, "transformer_options": {**self.kwargs["transformer_options"], name: value}}
        return Call(self.attend, self.q, self.k, self.v, self.args, kwargs)

    def __call__(self):
        return self.attend(self.q, self.k, self.v, *self.args, **self.kwargs)

    def rows(self, start, stop, entries):
        """The same for some of the batch."""
        mask = self.mask
        if mask is not None and mask.ndim > 2 and mask.shape[0] == self.q.shape[0]:
            mask = mask[start:stop]
        args, kwargs = self.with_mask(mask)
        kwargs = {**kwargs, "transformer_options": narrowed(kwargs["transformer_options"], entries)}
        q, k, v = (tensor[start:stop] for tensor in (self.q, self.k, self.v))
        return Call(self.attend, q, k, v, args, kwargs)

    def part(self, queries, keys):
        """The same for some tokens. queries, keys: lists of (start, stop)."""
        mask = self.mask
        if mask is not None:
            mask = pick(mask, keys, mask.ndim - 1)
            mask = pick(mask, queries, mask.ndim - 2) if mask.ndim > 1 and mask.shape[-2] == self.queries else mask
        args, kwargs = self.with_mask(mask)
        k, v = pick(self.k, keys, self.axis), pick(self.v, keys, self.axis)
        return Call(self.attend, pick(self.q, queries, self.axis), k, v, args, kwargs)

    def weighted(self, start, weights):
        """The same with the values of some keys pushed away."""
        stop = start + len(weights)
        pushed = self.v.narrow(self.axis, start, len(weights))
        if len(set(weights)) == 1:
            pushed = pushed * -weights[0]
        else:
            shape = [-1 if axis == self.axis else 1 for axis in range(self.v.ndim)]
            pushed = pushed * self.v.new_tensor(weights).neg().view(shape)
        before, after = (pick(self.v, [piece], self.axis) for piece in ((0, start), (stop, self.keys)))
        v = torch.cat([before, pushed, after], dim=self.axis)
        return Call(self.attend, self.q, self.k, v, self.args, self.kwargs)


PLAIN = {"heads", "mask", "attn_precision", "skip_reshape", "skip_output_reshape", "transformer_options",
         "_inside_attn_wrapper", "low_precision_attention"}


def pick(tensor, pieces, axis):
    pieces = [tensor.narrow(axis, start, stop - start) for start, stop in pieces]
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=axis)


def partial_attention(q, k, v):
    """Attention (batch, heads, tokens, width), and the logarithm of what each query's softmax was divided by."""
    if q.device.type == "cpu":
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v)[:2]
    return torch.ops.aten._scaled_dot_product_flash_attention(q, k, v)[:2]


@lru_cache(None)
def partial_works(device, dtype, width):
    """Whether this torch has a kernel that says what it divided by. Tried once: it is not in torch's public API."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 2, 40, width, generator=generator).to(device, dtype) for _ in range(3))
    try:
        first, mass = partial_attention(q, k[:, :, :9], v[:, :, :9])
        second, other = partial_attention(q, k[:, :, 9:], v[:, :, 9:])
        merged = torch.lerp(first.float(), second.float(), torch.sigmoid(other - mass).unsqueeze(-1))
        whole = torch.nn.functional.scaled_dot_product_attention(q, k, v).float()
    except (RuntimeError, AttributeError, TypeError, NotImplementedError):
        return False
    return float((merged - whole).abs().max()) < 16 * torch.finfo(dtype).eps
