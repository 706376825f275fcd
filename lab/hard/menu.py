"""What a server says of its nodes, and which of them the prompts are made of."""

OURS = "Guidance"  # what the ids of the pack's nodes begin with
LOADER = "GuidanceDemoModel"
# Take a model, a classifier or a latent that does not come with the pack, or are wired in one way only.
ELSEWHERE = {"GuidanceLikeness", "GuidanceTextLikeness", "GuidanceDistilled", "GuidanceValues", "GuidanceSweep", "GuidanceGrid",
             "GuidanceCost", "GuidanceProbePlot", "GuidanceNullText"}
SOURCES = {  # the host's nodes that give a type
    "CONDITIONING": ["CLIPTextEncode"], "LATENT": ["EmptyLatentImage"], "IMAGE": ["EmptyImage"], "SIGMAS": ["BasicScheduler"],
    "SAMPLER": ["KSamplerSelect"], "NOISE": ["RandomNoise"], "CURVE": ["CurveEditor"],
    "GUIDER": ["CFGGuider", "BasicGuider", "DualCFGGuider", "PerpNegGuider"],
}


class Menu:
    """What a server says of its nodes at /object_info."""

    def __init__(self, info):
        self.info = info
        ours = [name for name in info if name.startswith(OURS) and name not in ELSEWHERE]
        self.strategies = [name for name in ours if "model" in self.inputs(name) and "MODEL" in info[name]["output"]]
        self.others = [name for name in ours if name not in self.strategies and name != LOADER]
        self.look = "HardLook" if "HardLook" in info else None  # is there if the server is ours

    def inputs(self, name):
        """{input: (whether it is required, its type or choices, its options)}"""
        groups = self.info[name]["input"]
        return {input: (group == "required", given[0], given[1] if len(given) > 1 else {})
                for group in ("required", "optional") for input, given in groups.get(group, {}).items()}

    def sources(self, type):
        """The nodes that give a type, and at which output."""
        names = [name for name in self.others if type in self.info[name]["output"]] + SOURCES.get(type, [])
        return [(name, self.info[name]["output"].index(type)) for name in names if name in self.info]
