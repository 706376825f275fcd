"""The ComfyUI side: every file that imports ComfyUI is in this folder."""

from comfy_api.latest import ComfyExtension


class Guidance(ComfyExtension):
    async def get_node_list(self):
        from .demo_model import DemoModel
        from .schedules import SCHEDULES
        from .strategies import STRATEGIES

        return [*STRATEGIES, *SCHEDULES, DemoModel]
