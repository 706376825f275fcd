"""Guidance: steer diffusion models in ComfyUI. The maths is in guidance/, the nodes are in nodes/."""

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    # Imported here so that the pure maths can be used, and tested, where there is no ComfyUI.
    from .nodes import Guidance

    return Guidance()
