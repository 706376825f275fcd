"""Joined prompts on a sampler, without the rest of the pack; and what they have to equal: every prompt in a row of its own.

The reference runs one forward for each prompt, all at the same time in threads of their own. At each attention they meet:
the image's tokens get what NAG makes of both answers, so that all rows keep the same image, and each keeps its own text.
"""

from threading import Barrier, Thread

import comfy.sampler_helpers
import torch
from comfy.patcher_extension import WrappersMP
from pack.guidance.nag import nag as normalized
from pack.nodes.bridge import attention as bridge
from pack.nodes.bridge import joined

DEFAULT = joined.Nag(4.0)


class OnModel:
    """A model whose cond is changed by other prompts, and what is counted on the way: forwards and their rows."""

    def __init__(self, model, negative=None, pushed=None, nag=DEFAULT, weight=1.0):
        self.given = {"nag_negative": negative, "nag_pushed": pushed}
        self.nag, self.weight = nag, weight
        self.calls = self.rows = 0
        self.model = model.clone()
        self.model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, "joined", self.start)
        self.model.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, "joined", self.batch)
        self.model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "count", self.count)

    def start(self, executor, *args, **kwargs):
        self.guider = executor.class_obj
        for name, conditioning in self.given.items():
            if conditioning is not None:
                self.guider.conds[name] = comfy.sampler_helpers.convert_cond(conditioning)
        return executor(*args, **kwargs)

    def processed(self, name):
        return self.guider.conds[name][0] if name in self.guider.conds else None

    def count(self, executor, x, *args, **kwargs):
        self.calls += 1
        self.rows += len(x)
        return executor(x, *args, **kwargs)


class OneRow(OnModel):
    """The cond's rows carry all prompts. attention: one of the host's, in the place of the one that it has chosen."""

    def __init__(self, *args, attention=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "joined", bridge.apply_model)
        options = self.model.model_options["transformer_options"]
        before = options.get("optimized_attention_override")
        options["optimized_attention_override"] = lambda attend, *args, **kwargs: bridge.override(
            before, attention or attend, *args, **kwargs)

    def batch(self, executor, model, conds, *args):
        network = model.diffusion_model
        others = {"negative": self.processed("nag_negative"), "pushed": self.processed("nag_pushed")}
        cond = [joined.join(entry, network, **others, weight=self.weight, nag=self.nag) for entry in conds[0]]
        rest = [other and [joined.beside(entry, network) for entry in other] for other in conds[1:]]
        return executor(model, [cond, *rest], *args)


class RowForEach(OnModel):
    """Each prompt has a row of its own; see above. image: the number of image tokens where text joins their attention."""

    def __init__(self, model, negative=None, pushed=None, image=None, **kwargs):
        super().__init__(model, negative, pushed, **kwargs)
        self.image = image

    def batch(self, executor, model, conds, x, timestep, options):
        cond, *rest = conds
        outs = executor(model, [None, *rest], x, timestep, options)
        entries = {"prompt": cond[0], "pushed": self.processed("nag_pushed"), "negative": self.processed("nag_negative")}
        names = [name for name, entry in entries.items() if entry is not None]
        meeting, answers = Meeting(len(names)), {}
        inference = torch.is_inference_mode_enabled()

        def run(name):
            def attend(func, q, k, v, *args, **kwargs):
                return self.attend(name, meeting, func, q, k, v, args, kwargs)

            own = {**options, "transformer_options": {**options["transformer_options"], "optimized_attention_override": attend}}
            try:
                with torch.inference_mode(inference):
                    read = ("c_crossattn", "attention_mask", "num_tokens")
                    conds = {key: value for key, value in cond[0]["model_conds"].items() if key not in read}
                    conds |= {key: value for key, value in entries[name]["model_conds"].items() if key in read}
                    entry = {**cond[0], "model_conds": conds}
                    answers[name] = executor(model, [[entry]], x, timestep, own)[0]
            except BaseException as error:
                answers[name] = error
                meeting.barrier.abort()

        threads = [Thread(target=run, args=(name,)) for name in names]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        for answer in answers.values():
            if isinstance(answer, BaseException):
                raise answer
        return [answers["prompt"], *outs[1:]]

    def attend(self, name, meeting, func, q, k, v, args, kwargs):
        axis = 2 if kwargs.get("skip_reshape") else 1
        own = func(q, k, v, *args, **kwargs)
        seen = meeting.tell(name, (k, v, own))
        crossing = self.image is None
        if not crossing and q.shape[axis] <= self.image:
            return own  # text alone, or image alone
        count = q.shape[axis] if crossing else self.image
        text = own.narrow(1, 0, q.shape[axis] - count)
        plus = self.pushing(seen, func, q, k, v, args, kwargs, axis, count) if "pushed" in seen else seen["prompt"][2]
        plus = plus.narrow(1, plus.shape[1] - count, count)
        if "negative" in seen:
            away = seen["negative"][2]
            plus = normalized(plus, away.narrow(1, away.shape[1] - count, count), *self.nag)
        return torch.cat([text, plus], dim=1)

    def pushing(self, seen, func, q, k, v, args, kwargs, axis, count):
        (keys, values, own), (away, turned, _) = seen["prompt"], seen["pushed"]
        if self.image is None:
            if keys.shape[axis] == q.shape[axis] or torch.equal(keys, away):
                return own  # not the text's
        else:
            network = self.guider.inner_model.diffusion_model
            length = self.given["nag_pushed"][0][0].shape[1]  # without padding and registers, which are not pushed
            front = network.register_tokens.shape[1] if hasattr(network, "register_tokens") else 0
            if type(network).__name__ == "Flux":
                front = away.shape[axis] - self.image - length
            away, turned = away.narrow(axis, front, length), turned.narrow(axis, front, length)
        mask = args[1] if len(args) > 1 else kwargs.get("mask")
        if mask is not None:
            args, kwargs = args[:1], {**kwargs, "mask": torch.nn.functional.pad(mask, (away.shape[axis], 0))}
        image = q.narrow(axis, q.shape[axis] - count, count)
        return func(image, torch.cat([away, keys], axis), torch.cat([-self.weight * turned, values], axis), *args, **kwargs)


class Meeting:
    """A point at which threads wait for each other and see what each brought."""

    def __init__(self, count):
        self.barrier, self.brought = Barrier(count, timeout=30), {}

    def tell(self, name, value):
        self.brought[name] = value
        self.barrier.wait()
        seen = dict(self.brought)
        self.barrier.wait()
        return seen
