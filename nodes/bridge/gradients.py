"""Gradients through a model that the host has loaded."""

import torch


class Calling(torch.nn.Module):
    """A module whose forward is a function that uses another one."""

    def __init__(self, module, function):
        super().__init__()
        self.module, self.function = module, function

    def forward(self, *args):
        return self.function(*args)


def with_gradients(module, function, *args):
    """Call a function of a loaded module, outside inference mode, with gradients through the module.

    The host loads models in inference mode, and autograd refuses such weights: these are copies, for this call.
    """
    calling = Calling(module, function)
    weights = {name: value.clone() for name, value in (*calling.named_parameters(), *calling.named_buffers())
               if value.is_inference()}
    return torch.func.functional_call(calling, weights, args)
