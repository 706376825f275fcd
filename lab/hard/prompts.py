"""Prompts that should run, drawn from what a server says of its nodes: a chain of strategies from the bundled model to a
sampler, each knob somewhere in its range, and sometimes more of the pack's nodes around them."""
from ...nodes.demo.text import BACKGROUNDS, COLORS, SHAPES, SIZES
from .menu import LOADER, OURS

MOST = 6  # strategies in a chain
SIDES = (16, 16, 16, 24, 32)  # of a picture; the bundled model's own is 32
FAR = 20.0  # how far from 0 most numbers are, where their input allows more
FORMS = ("0:{}, 1:{}", "0:{}, 0.4:{} smooth", "0:{}, 0.5:{} step", "0:{}, 1:{} steps", "9:{}, 1:{} sigma")  # of schedules
LAYERS = ("auto", "middle", "all", "output", "middle, output", "input.?, middle", "40%-60%")
SET = {  # so that a prompt takes no time, or where inputs have to fit each other
    "EmptyLatentImage": lambda rng: {"width": rng.choice(SIDES), "height": rng.choice(SIDES),
                                     "batch_size": rng.choice([1, 1, 1, 2, 3])},
    "EmptyImage": lambda rng: {"width": 16, "height": 16, "batch_size": 1, "color": 0},
    "CLIPTextEncode": lambda rng: {"text": caption(rng)},
    "GuidanceTextEncode": lambda rng: {"text": caption(rng) + rng.choice(["", ", (blue:-1)", ", (a ring:-0.5), (red:-2)"])},
    "KSampler": lambda rng: {"steps": rng.choice([1, 1, 2]), "denoise": rng.choice([1.0, 1.0, 0.6])},
    "BasicScheduler": lambda rng: {"steps": rng.choice([1, 1, 2]), "denoise": 1.0},
    "CurveEditor": lambda rng: {"curve": {"points": [[0.0, rng.random()], [1.0, rng.random()]],
                                          "interpolation": rng.choice(["linear", "monotone_cubic"])}},
    "GuidanceDemoModel": lambda rng: {"prediction": rng.choices(["v", "eps", "flow"], [18, 1, 1])[0]},
    "GuidanceModelPreset": lambda rng: {"variant": "auto"},
    "GuidanceNull": lambda rng: {"null": rng.choice(["zeros", "independent", "mean"])},
    "GuidancePAG": lambda rng: {"unit": "percent"},  # whose start and end may be left out
    "GuidanceCADS": lambda rng: dict(zip(["start", "full"], sorted([rng.random(), rng.random()]))),
    "GuidanceSWG": lambda rng: {"size": rng.choice([0.5, 0.625, 0.75]), "count": rng.choice([2, 3, 4])},
}
# Samplers that choose their steps themselves, and schedulers that have no levels, or NaN, for one step.
LEFT_OUT = {"dpm_fast", "dpm_adaptive", "beta", "kl_optimal"}
WORDS = {"size": SIZES, "color": COLORS, "shape": SHAPES, "background": BACKGROUNDS}


def caption(rng):
    return rng.choice(["", f"a {rng.choice(SIZES)} {rng.choice(COLORS)} {rng.choice(SHAPES)} on {rng.choice(BACKGROUNDS)}"])


class Drawing:
    """A prompt as it is drawn, by a random.Random; `nodes` is what /prompt takes."""

    def __init__(self, menu, rng):
        self.menu, self.rng, self.nodes = menu, rng, {}
        self.loaded = self.add(LOADER)
        self.wire = [self.loaded, 0]
        for _ in range(rng.randint(0, MOST)):
            self.wire = [self.add(rng.choice(menu.strategies)), 0]
        self.latent = self.sampled()
        self.shown(self.latent)
        if rng.random() < 0.15:
            self.add(rng.choice(menu.others))
        for probe in [number for number, node in self.nodes.items() if node["class_type"] == "GuidanceProbe"]:
            self.node("GuidanceProbePlot", probe=[probe, 1], latent=self.latent)
        if rng.random() < 0.05:
            self.sweep()
        if rng.random() < 0.02:
            self.inverted()

    def node(self, name, **inputs):
        number = str(len(self.nodes) + 1)
        self.nodes[number] = {"class_type": name, "inputs": inputs}
        return number

    def add(self, name):
        """A node with what it needs; its number."""
        inputs = SET[name](self.rng) if name in SET else {}
        for input, (required, type, options) in self.menu.inputs(name).items():
            if input not in inputs and (required or self.rng.random() < 0.3):
                value = self.value(input, type, options)
                if value is not None:
                    inputs[input] = value
        if "unit" in inputs and "start" in self.menu.inputs(name):
            self.set_window(inputs)
        if name == "PerpNegGuider":  # of two prompts that are the same it makes 0 / 0
            for input, text in (("positive", "a red ring"), ("empty_conditioning", "")):
                inputs[input] = [self.node("CLIPTextEncode", text=text, clip=[self.loaded, 1]), 0]
        if name == "GuidanceDemoClassifier":
            inputs["value"] = self.rng.choice(WORDS[inputs["attribute"]])
        return self.node(name, **inputs)

    def value(self, input, type, options):
        """A value or a link that an input takes, or None where there is nothing."""
        rng = self.rng
        if isinstance(type, list) or type == "COMBO":
            choices = [choice for choice in (type if isinstance(type, list) else options["options"]) if choice not in LEFT_OUT]
            return rng.choice(choices) if choices else None
        kinds = type.split(",")
        if "GUIDANCE_SCHEDULE" in kinds:
            return self.schedule(options)
        if "FLOAT" in kinds:
            return self.number(options)
        if "INT" in kinds:
            return options.get("default", 0) if rng.random() < 0.5 else rng.randint(options["min"], min(options["max"], 12))
        if "BOOLEAN" in kinds:
            return rng.random() < 0.5
        if "STRING" in kinds:
            return rng.choice(LAYERS) if input == "layers" else options.get("default", "")
        return self.link(input, kinds)

    def number(self, options):
        low, high, default = options.get("min", -FAR), options.get("max", FAR), options.get("default")
        near = max(low, -FAR), min(high, FAR)
        drawn = round(self.rng.uniform(*near), 3)
        return self.rng.choice([drawn, drawn, drawn, low, high] + [default] * 5 * isinstance(default, (int, float)))

    def schedule(self, options):
        """A number, or what stands for one: a text, a link, or a curve as its widget has it."""
        way, y = self.rng.random(), lambda: self.number({key: options[key] for key in ("min", "max") if key in options})
        if way < 0.2:
            return self.rng.choice(FORMS).format(y(), y())
        if way < 0.25:
            return {"__value__": [y(), y(), y()]}
        if way < 0.28:
            return {"points": [[0, y()], [1, y()]], "interpolation": "linear"}
        if way < 0.33 and options.get("min", -1) <= 0 and options.get("max", 1) >= 1:
            return self.link("curve", ["CURVE"]) or self.number(options)  # which lies between 0 and 1
        if way < 0.38:
            return [self.node("GuidanceSchedule", schedule=f"0:{y()}, 1:{y()}"), 0]
        return self.number(options)

    def link(self, input, types):
        """To an output of one of the types: one that is there, or of another node."""
        if "MODEL" in types:
            return self.wire if input == "model" else [self.weaker(), 0]
        sources = [source for type in types for source in self.menu.sources(type)]
        there = [[number, self.menu.info[node["class_type"]]["output"].index(type)] for number, node in self.nodes.items()
                 for type in types if type in self.menu.info[node["class_type"]]["output"]]
        if not sources or there and self.rng.random() < 0.7:
            return self.rng.choice(there) if there else None
        name, output = self.rng.choice(sources)
        return [self.add(name), output]

    def weaker(self):
        """Another model beside the first one. The host would run a node once for two that are the same."""
        kind = {"v": "eps", "eps": "v", "flow": "flow"}[self.nodes[self.loaded]["inputs"]["prediction"]]
        return self.node(LOADER, prediction=kind)

    def set_window(self, inputs):
        """Have it begin before it ends: at a lower percent, or at a higher sigma."""
        start, end = sorted(round(self.rng.random(), 2) for _ in range(2)) if self.rng.random() < 0.6 else (0.0, 1.0)
        if inputs["unit"] == "sigma":
            start, end = 20 * end, 20 * start
        if inputs["unit"] in ("percent", "sigma"):
            inputs.update(start=start, end=end)

    def sampled(self):
        """The link of a latent that a sampler has made with the chain."""
        way = self.rng.random()
        return [self.add("KSampler" if way < 0.7 else "SamplerCustom" if way < 0.8 else "SamplerCustomAdvanced"), 0]

    def shown(self, latent):
        if self.menu.look:
            self.node(self.menu.look, latent=latent)
        else:
            self.node("PreviewImage", images=self.decoded(latent))

    def decoded(self, latent):
        return [self.node("VAEDecode", samples=latent, vae=[self.loaded, 2]), 0]

    def inverted(self):
        """A picture that is taken back into noise, and made again."""
        latent = [self.node("VAEEncode", pixels=[self.add("EmptyImage"), 0], vae=[self.loaded, 2]), 0]
        positive, negative = ([self.add("CLIPTextEncode"), 0] for _ in range(2))
        sigmas, sampler = ([self.add(name), 0] for name in ("BasicScheduler", "KSamplerSelect"))
        found = self.node("GuidanceNullText", model=self.wire, latent=latent, positive=positive, negative=negative,
                          sigmas=sigmas, cfg=7.5, iterations=2, rate=0.01)
        guider = self.node("CFGGuider", model=self.wire, positive=positive, negative=[found, 1], cfg=7.5)
        self.shown([self.node("SamplerCustomAdvanced", noise=[found, 0], guider=[guider, 0], sampler=sampler, sigmas=sigmas,
                              latent_image=latent), 0])

    def sweep(self):
        """A sheet of pictures over one knob of the sampler."""
        values = self.node("GuidanceValues", first="1, 3", first_name="seed", second="", second_name="")
        seeded, name = next((node["inputs"], name) for node in self.nodes.values() for name in ("seed", "noise_seed")
                            if name in node["inputs"] and not node["class_type"].startswith(OURS))
        seeded[name] = [values, 0]
        each = self.node("GuidanceSweep", image=self.decoded(self.latent), cell=[values, 3])
        self.node("GuidanceGrid", images=[each, 0], labels=[values, 2], columns=0, notes=[each, 1])
