"""How far two answers are apart. Pure: no ComfyUI."""


def error(a, b):
    """The largest difference, as a share of b's largest value."""
    return float((a - b).abs().max() / b.abs().max())


def off(answer, right, without):
    """How wrong an answer is, as a share of the effect: that of the right answer on the one without it."""
    return float((answer - right).norm() / (right - without).norm())


def close(a, b, relative=1e-5):
    assert error(a, b) <= relative


def far(a, b):
    assert error(a, b) > 1e-2
