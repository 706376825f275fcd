"""The ComfyUI side: every file that imports ComfyUI is in this folder."""

from comfy_api.latest import ComfyExtension


class Guidance(ComfyExtension):
    async def get_node_list(self):
        from .conditioning import CONDITIONING
        from .demo_model import DemoModel
        from .likeness import LikenessNode
        from .models import MODELS, DemoClassifier
        from .saving import SAVING
        from .schedules import SCHEDULES
        from .shaping import SHAPING
        from .strategies import STRATEGIES

        return [*STRATEGIES, *SHAPING, *SCHEDULES, *SAVING, *MODELS, *CONDITIONING, DemoModel, DemoClassifier, LikenessNode]
