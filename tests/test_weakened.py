"""Weakened attention and blocks, on a tiny model of every architecture: what is weakened, what is left alone, what it costs."""

import re
import shutil
from functools import partial

import comfy.ops
import pytest
import torch
from comfy.ldm.modules.diffusionmodules import mmdit
from comfy_extras.nodes_torch_compile import TorchCompileModel
from pack.guidance.core import Perturbed
from pack.nodes.bridge import weakened
from pack.nodes.bridge.blocks import anatomy_of, choose_layers
from pack.tests.architectures import ARCHITECTURES
from pack.tests.host import NODES, node
from pack.tests.joined import RowForEach
from pack.tests.weakened import KINDS, Seen, branch_of, layers_of

NO_SHUFFLE = {"sd3", "aura"}  # where shuffled tokens that are put back are what they were


@pytest.fixture(scope="module", params=ARCHITECTURES)
def model(request):
    return request.param, ARCHITECTURES[request.param].model()


def off(answer, right):
    """How far, as a share of what is right."""
    return float((answer - right).norm() / right.norm())


# ------------------------------------------------------------------------------------------------ every architecture

@pytest.mark.parametrize("kind", KINDS)
def test_one_row_is_weakened_and_the_others_stay_what_they_are(kind, model):
    name, model = model
    architecture, layers = ARCHITECTURES[name], layers_of(model)
    if kind == "shuffle" and name in NO_SHUFFLE:
        with pytest.raises(ValueError, match="tells tokens their places only at its start"):
            branch_of(model, kind)
        return
    negative = architecture.prompt(2, architecture.text)
    plain = Seen(architecture, model, [], negative=negative)
    late = branch_of(model, kind, layers[-1])
    seen = Seen(architecture, model, [late], negative=negative)
    assert (seen.rows, seen.calls) == (3, 1)
    assert torch.equal(seen.cond, plain.cond)
    assert torch.equal(seen.uncond, plain.uncond)
    assert off(seen.branches[0], seen.cond) > 1e-3
    # Computed whole: a few products of fewer rows are rounded otherwise.
    whole = Seen(architecture, model, [late], shares=False, negative=negative)
    rounded = name in ("wan_i2v", "wan_camera", "ltxav")
    assert off(seen.branches[0], whole.branches[0]) < 1e-6 if rounded else torch.equal(seen.branches[0], whole.branches[0])


def test_nothing_is_left_in_the_network(model):
    name, model = model
    Seen(ARCHITECTURES[name], model, [branch_of(model, "identity", "all"), branch_of(model, "skip")])
    assert not any("forward" in module.__dict__ for module in model.model.diffusion_model.modules())


# ------------------------------------------------------------------------------------------------ against a reference

class Reference:
    """The prompt's prediction while one block is changed by torch's own hooks, and attention in it by a plain override."""

    def __init__(self, architecture, model, layer, kind, size, grid):
        self.kind, self.size, self.grid, self.inside = kind, size, grid, False
        self.model = model.clone()
        network = model.model.diffusion_model
        found = anatomy_of(network)
        block = next(block for block in found.blocks if block.name == layer)
        watched = [block.module.get_submodule(name) for name in block.attention] or [block.module]
        handles = [part.register_forward_pre_hook(self.enter) for part in watched] + [part.register_forward_hook(self.leave) for part in watched]
        if kind == "skip":
            self.takes = block.takes
            handles = [block.module.register_forward_pre_hook(self.keep, with_kwargs=True),
                       block.module.register_forward_hook(lambda module, args, output: self.kept)]
        self.model.model_options["transformer_options"]["optimized_attention_override"] = self.attend
        try:
            self.answer = architecture.predict(self.model, cfg=1.0).cond
        finally:
            for handle in handles:
                handle.remove()

    def enter(self, module, args):
        self.inside = True

    def leave(self, module, args, output):
        self.inside = False

    def keep(self, module, args, kwargs):
        given = [kwargs[name] if name in kwargs else args[place] for name, place in self.takes]
        given = [tensor.clone() for tensor in given]  # blocks write into what they are given
        self.kept = given[0] if len(given) == 1 else tuple(given)

    def attend(self, attend, q, k, v, heads, mask=None, *args, **kwargs):
        reshape = kwargs.get("skip_reshape")
        axis = 2 if reshape else 1
        words = q.shape[axis] - self.size
        if not self.inside or self.kind == "skip" or k.shape[axis] < self.size or words < 0:
            return attend(q, k, v, heads, mask, *args, **kwargs)
        if self.kind == "identity":
            seen = torch.zeros(q.shape[axis], q.shape[axis])
            seen[words:, words:] = float("-inf")
            seen.fill_diagonal_(0)
            mask = seen if mask is None else seen + mask
        elif self.kind == "temperature":
            own = torch.arange(q.shape[axis]) >= words
            q = torch.where(own.view(-1, 1), 0.3 * q, q)
        else:
            q = self.blur(q, axis, words)
        return attend(q, k, v, heads, mask, *args, **kwargs)

    def blur(self, q, axis, words):
        """As SEG's authors do it: a convolution over the picture, whose edges mirror."""
        t, h, w = self.grid
        flat = q.transpose(1, 2).flatten(2) if axis == 2 else q
        picture = flat[:, words:words + t * h * w].reshape(-1, h, w, flat.shape[-1]).permute(0, 3, 1, 2)
        if self.kind == "mean":
            picture = picture.mean((2, 3), keepdim=True).expand_as(picture)
        else:
            taps = torch.exp(-0.5 * torch.arange(-3, 4) ** 2)
            kernel = (torch.outer(taps, taps) / taps.sum() ** 2).expand(picture.shape[1], 1, 7, 7)
            padded = torch.nn.functional.pad(picture, (3, 3, 3, 3), mode="reflect")
            picture = torch.nn.functional.conv2d(padded, kernel, groups=picture.shape[1])
        picture = picture.permute(0, 2, 3, 1).reshape(len(flat), t * h * w, -1)
        flat = torch.cat([flat[:, :words], picture, flat[:, words + t * h * w:]], 1)
        return flat.unflatten(2, (q.shape[1], -1)).transpose(1, 2) if axis == 2 else flat


REFERENCES = {  # picture tokens in the attention of the last layer, and their frames, rows and columns
    "sd15": (192, (1, 16, 12)), "flux": (48, (1, 8, 6)), "kontext": (60, (1, 8, 6)), "flux2": (48, (1, 8, 6)), "sd3": (48, (1, 8, 6)),
    "chroma": (48, (1, 8, 6)), "wan": (40, (2, 5, 4)), "ltxv": (48, (2, 6, 4)), "qwen": (48, (1, 8, 6)), "qwen_edit": (60, (1, 8, 6)),
    "lumina2": (48, (1, 8, 6)), "z_image": (48, (1, 8, 6)), "hunyuan_video": (40, (2, 5, 4)), "hunyuan_image": (48, (1, 8, 6)),
    "cosmos_predict2": (40, (2, 5, 4)), "krea2": (48, (1, 8, 6)), "ideogram4": (48, (1, 8, 6)), "aura": (48, (1, 8, 6)),
}
AMOUNTS = {"identity": 0.0, "blur": 1.0, "mean": 1000.0, "temperature": 0.3, "skip": 0.0}


@pytest.mark.parametrize("kind", AMOUNTS)
def test_what_is_done_is_what_its_paper_says(kind, model):
    name, model = model
    if name not in REFERENCES or (kind == "blur" and min(REFERENCES[name][1][1:]) < 4):
        return
    architecture, layer = ARCHITECTURES[name], layers_of(model)[-1]
    branch = Perturbed("blur" if kind == "mean" else kind, (layer,), AMOUNTS[kind])
    seen = Seen(architecture, model, [branch])
    right = Reference(architecture, model, layer, kind, *REFERENCES[name]).answer
    assert off(seen.branches[0], right) < 1e-4 * off(right, seen.cond)


def test_a_shuffled_block_is_the_block_with_its_tokens_in_another_order():
    """Flux: in front of the block and back behind it; a UNet's tokens stay where they went."""
    for name in ("flux", "sd15"):
        architecture = ARCHITECTURES[name]
        model = architecture.model()
        number, layer = max((i, block.name) for i, block in enumerate(anatomy_of(model.model.diffusion_model).blocks) if block.name)
        seen = Seen(architecture, model, [Perturbed("shuffle", (layer,), 1.0, 9)])
        size, words = (48, architecture.text) if name == "flux" else (192, 0)
        order = torch.cat([torch.arange(words), words + weakened.another_order(size, 1.0, 9 + number)])
        module = next(block.module for block in anatomy_of(model.model.diffusion_model).blocks if block.name == layer)
        handles = [module.register_forward_pre_hook(lambda module, args: (args[0][:, order], *args[1:]))]
        if name == "flux":
            handles.append(module.register_forward_hook(lambda module, args, output: output[:, order.argsort()]))
        right = architecture.predict(model, cfg=1.0).cond
        [handle.remove() for handle in handles]
        assert off(seen.branches[0], right) < 1e-4 * off(right, seen.cond)


def test_a_share_of_the_tokens_is_shuffled_by_a_generator_of_its_own():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    order = weakened.another_order(100, 0.3, 5)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(order.sort().values, torch.arange(100))
    assert 20 <= int((order != torch.arange(100)).sum()) <= 30
    assert torch.equal(weakened.another_order(100, 0.0, 5), torch.arange(100))
    assert not torch.equal(weakened.another_order(100, 0.3, 6), order)


# ------------------------------------------------------------------------------------------------ rows that are not computed

def rows_of_each_layer(architecture, model, branches, **how):
    """How many rows each layer computes in one evaluation of cond, uncond and these branches."""
    layers = [block.module for block in anatomy_of(model.model.diffusion_model).blocks if block.name]
    return rows_inside(layers, lambda: Seen(architecture, model, branches, negative=architecture.prompt(2, architecture.text), **how))


def rows_inside(modules, run):
    """How many rows the first part of each of these modules gets, in their order."""
    seen = []
    handles = [next(module.children()).register_forward_pre_hook(lambda part, args: seen.append(len(args[0]))) for module in modules]
    run()
    [handle.remove() for handle in handles]
    return seen


@pytest.mark.parametrize("name", ["flux", "sd15", "wan"])
def test_a_row_is_computed_from_its_first_weakened_layer_on_and_not_in_those_that_it_skips(name):
    architecture = ARCHITECTURES[name]
    model = architecture.model()
    layers = layers_of(model)
    last = len(layers) - 1
    assert rows_of_each_layer(architecture, model, [Perturbed("identity", (layers[1],))]) == [2] + [3] * last
    assert rows_of_each_layer(architecture, model, [Perturbed("skip", (layers[1],))]) == [2, 2] + [3] * (last - 1)
    both = [Perturbed("skip", (layers[1],)), Perturbed("blur", (layers[-1],), 1.0)]
    assert rows_of_each_layer(architecture, model, both) == [2, 2] + [3] * (last - 2) + [4]
    assert rows_of_each_layer(architecture, model, [Perturbed("identity", (layers[1],))], shares=False) == [3] * (last + 1)


def test_a_unet_is_not_computed_for_a_row_before_its_first_weakened_layer_either():
    architecture = ARCHITECTURES["sd15"]
    model, given = architecture.model(), {"negative": architecture.prompt(2, architecture.text)}
    resnets = [module for module in model.model.diffusion_model.modules() if type(module).__name__ == "ResBlock"]
    blind = [Perturbed("identity", ("middle.0.0",))]
    assert rows_inside(resnets, lambda: Seen(architecture, model, blind, **given)) == [2, 2, 2] + [3] * (len(resnets) - 3)


FEW = pytest.mark.parametrize("name", ["sd15", "flux", "wan", "ltxav"])


@FEW
def test_where_memory_splits_the_batch_the_numbers_are_the_same(name, monkeypatch):
    """No row is beside the one that it copies."""
    architecture = ARCHITECTURES[name]
    model, negative = architecture.model(), architecture.prompt(2, architecture.text)
    branches = [branch_of(model, "identity"), branch_of(model, "skip")]
    together = Seen(architecture, model, branches, negative=negative)
    monkeypatch.setattr(model.model, "memory_required", lambda *args, **kwargs: 1e30 if "cond_shapes" in kwargs else 1)
    apart = Seen(architecture, model, branches, negative=negative)
    assert (apart.calls, apart.rows) == (4, 4)
    for one, other in zip(apart.branches, together.branches):
        assert off(one, other) < 1e-5


@FEW
def test_a_batch_is_its_samples(name):
    architecture = ARCHITECTURES[name]
    model, noise = architecture.model(), architecture.noise(2)
    branches = [branch_of(model, kind, "all") for kind in ("identity", "blur", "shuffle")] + [branch_of(model, "skip")]
    both = Seen(architecture, model, branches, noise=noise)
    parts = noise.unbind() if noise.is_nested else [noise]
    second = [part[1:] for part in parts]
    second = type(noise)(second) if noise.is_nested else second[0]
    alone = Seen(architecture, model, branches, noise=second)
    for one, other in zip(both.branches, alone.branches):
        assert off(one[1:], other) < 1e-5


@FEW
def test_each_of_several_prompts_is_weakened(name):
    """Left and right half each have a prompt; weakened, they give what each weakened alone does."""
    architecture = ARCHITECTURES[name]
    if name == "ltxav":
        return  # packed streams have no areas
    model = architecture.model()
    branch = branch_of(model, "identity", "all")
    two = architecture.prompt(1, strength=0.25) + architecture.prompt(6, architecture.text, strength=0.75)
    seen = Seen(architecture, model, [branch], positive=two)
    parts = [Seen(architecture, model, [branch], positive=architecture.prompt(seed, architecture.text)).branches[0] for seed in (1, 6)]
    assert off(seen.branches[0], 0.25 * parts[0] + 0.75 * parts[1]) < 1e-5


@FEW
def test_a_row_reads_several_prompts_and_is_weakened(name):
    """NAG in the weakened layers too: as if each of its two answers had been weakened before they meet."""
    architecture = ARCHITECTURES[name]
    model = architecture.model()
    guided = node(NODES["GuidanceNAG"], model, negative=architecture.prompt(7, architecture.text), scale=3.0)
    branch = branch_of(model, "identity", "all")
    with_nag, without = Seen(architecture, guided, [branch]), Seen(architecture, model, [branch])
    assert off(with_nag.cond, without.cond) > 1e-3
    assert off(with_nag.branches[0], without.branches[0]) > 1e-3
    same = node(NODES["GuidanceNAG"], model, negative=architecture.prompt(1), scale=3.0)  # away from the prompt itself: nowhere
    assert off(Seen(architecture, same, [branch]).branches[0], without.branches[0]) < 1e-5


class WeakenedRowForEach(RowForEach):
    """Each prompt in a row of its own, and in all of them the picture's part of attention weakened."""

    def __init__(self, model, pushed, kind, size):
        super().__init__(model, pushed=pushed, image=size)
        self.kind, self.size = kind, size

    def attend(self, name, meeting, func, *args):
        return super().attend(name, meeting, partial(self.weakened, func), *args)

    def weakened(self, func, q, k, v, heads, mask=None, **kwargs):
        own, words, place = q.shape[2] - self.size, k.shape[2] - self.size, torch.arange(q.shape[2])
        if self.kind == "temperature":
            return func(torch.where(place.view(-1, 1) < own, q, 0.3 * q), k, v, heads, mask, **kwargs)
        hidden = torch.zeros(q.shape[2], k.shape[2])
        hidden[own:, words:] = torch.full((self.size, self.size), float("-inf")).fill_diagonal_(0)
        return func(q, k, v, heads, hidden if mask is None else mask + hidden, **kwargs)


@pytest.mark.parametrize("tokens", [7, 60])
@pytest.mark.parametrize("kind", ["identity", "temperature"])
@pytest.mark.parametrize("name", ["flux", "qwen"])
def test_a_row_from_which_words_are_pushed_away_is_weakened_where_the_picture_looks(name, kind, tokens):
    """Before: `narrow(): length must be non-negative` or, without a word, the text weakened too, which looks apart there; and
    the longer text taken for the picture."""
    architecture = ARCHITECTURES[name]
    model, away = architecture.model(), architecture.prompt(8, tokens)
    pushed = node(NODES["GuidancePushAway"], model, away=away)
    seen = Seen(architecture, pushed, [branch_of(model, kind, "all")])
    right = architecture.predict(WeakenedRowForEach(model, away, kind, 48).model, cfg=1.0).cond
    assert off(seen.branches[0], right) < 1e-4 * off(right, seen.cond)


# ------------------------------------------------------------------------------------------------ torch.compile

def chain(model):
    """A row that is weakened late, one that skips, and an uncond that skips too."""
    model = node(NODES["GuidancePAG"], model, layers="all" if "input.1.0" in layers_of(model) else layers_of(model)[-1], scale="0:1, 0.5:0")
    model = node(NODES["GuidanceSLG"], model, layers=layers_of(model)[-1], end=1.0)
    return node(NODES["GuidanceSLG"], model, layers=layers_of(model)[0], row="the negative's", start=0.0, end=0.7)


def compiled_is_as_without(name, backend, limit):
    torch._dynamo.reset()
    architecture = ARCHITECTURES[name]
    model = architecture.model()
    given = {"cfg": 3.0, "steps": 2, "negative": architecture.prompt(2, architecture.text)}
    right, plain = architecture.sample(chain(model), **given), architecture.sample(model, **given)
    compiled = TorchCompileModel.execute(chain(model), backend).result[0]
    assert float((architecture.sample(compiled, **given) - right).norm() / (right - plain).norm()) < limit
    torch._dynamo.reset()


@pytest.mark.parametrize("name", ["flux", "wan"])
def test_compiled_is_as_without(name):
    compiled_is_as_without(name, "eager", 1e-4)


def test_compiled_a_forward_without_a_weakened_row_follows_one_that_has_some():
    """KeyError: 'guidance_weakened' before."""
    torch._dynamo.reset()
    architecture = ARCHITECTURES["flux"]
    guided, given = node(NODES["GuidanceSWG"], node(NODES["GuidanceSLG"], architecture.model(), start=0.0, end=0.6)), {"steps": 2}
    compiled = TorchCompileModel.execute(guided, "eager").result[0]
    assert off(architecture.sample(compiled, **given), architecture.sample(guided, **given)) < 1e-5
    torch._dynamo.reset()


if shutil.which("g++") or shutil.which("clang++"):

    def test_compiled_by_inductor_is_as_without():
        compiled_is_as_without("flux", "inductor", 1e-3)


# ------------------------------------------------------------------------------------------------ layers as text

NAMES = {
    "double.1": ["double.1"], "double": ["double.0", "double.1"], "single.0-1": ["single.0", "single.1"],
    "single.1, double.0": ["double.0", "single.1"], "all": ["double.0", "double.1", "single.0", "single.1"],
    "0%-50%": ["double.0", "double.1"], "50-75%": ["single.0"], "middle": ["single.0"], "AUTO": ["single.0"], "double.1-7": ["double.1"],
}


@pytest.mark.parametrize("text", NAMES)
def test_layers_by_name_range_and_share(text):
    network = ARCHITECTURES["flux"].model().model.diffusion_model
    assert list(choose_layers(network, text, "identity", "PAG")) == NAMES[text]


@pytest.mark.parametrize("text", ["double.2", "input.1", "3", "7-9", "double.5-9", "60%-55%", "x" * 10 ** 6, "double.0-99999999999",
                                  "double.2-" + "9" * 10 ** 5])
def test_a_layer_that_does_not_exist_is_refused_with_those_that_do(text):
    network = ARCHITECTURES["flux"].model().model.diffusion_model
    if text == "double.0-99999999999":
        assert choose_layers(network, text, "skip", "SLG") == ("double.0", "double.1")
        return
    with pytest.raises(ValueError, match=r"SLG: this model has no layer .{1,70}; it has double.0 to double.1, single.0 to single.1\.$"):
        choose_layers(network, text, "skip", "SLG")


def test_numbers_alone_where_there_is_one_kind_of_block():
    network = ARCHITECTURES["wan"].model().model.diffusion_model
    assert choose_layers(network, "2, 0-1", "skip", "SLG") == ("double.0", "double.1", "double.2")


@pytest.mark.parametrize("text, says", [
    ("9" * 10 ** 5, "this model has no layer '9{60}'; it has double.0 to double.2"),  # Python's own words before
    (",".join(f"0-{last}" for last in range(10 ** 5)), "layers has 100000 names; it has to have at most 1000"),  # minutes before
], ids=["digits", "ranges"])
def test_a_hostile_text_is_refused_at_once(text, says):
    with pytest.raises(ValueError, match=rf"^SLG: {says}\.$"):
        choose_layers(ARCHITECTURES["wan"].model().model.diffusion_model, text, "skip", "SLG")


def test_a_question_mark_lets_a_layer_be_missing_but_not_all_of_them():
    network = ARCHITECTURES["flux"].model().model.diffusion_model
    assert choose_layers(network, "double.1?, double.9?, single.7-9?", "skip", "SLG") == ("double.1",)
    with pytest.raises(ValueError, match="SLG: name at least one layer; this model has double.0"):
        choose_layers(network, "double.9?", "skip", "SLG")


def test_published_layers_where_a_model_is_deep_enough():
    deep = mmdit.OpenAISignatureMMDITWrapper(depth=24, device="meta", operations=comfy.ops.disable_weight_init)
    assert choose_layers(deep, "auto", "skip", "SLG") == ("double.7", "double.8", "double.9")
    assert choose_layers(deep, "auto", "blur", "SEG") == choose_layers(deep, "middle", "blur", "SEG") == ("double.12",)
    unet = ARCHITECTURES["sd15"].model().model.diffusion_model
    assert choose_layers(unet, "auto", "identity", "PAG") == ("middle.0.0",)
    assert choose_layers(unet, "auto", "shuffle", "TPG") == ("input.1.0", "input.3.0")
    assert choose_layers(deep, "auto", "draw", "S2") == choose_layers(deep, "double.1-23", "skip", "SLG")


def test_a_network_that_is_not_known_is_refused_in_one_sentence():
    with pytest.raises(ValueError, match=re.escape("PAG: the layers of this model, a Linear, are not known.")):
        choose_layers(torch.nn.Linear(1, 1), "middle", "identity", "PAG")
