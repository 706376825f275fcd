"""The example workflow of null-text inversion: a picture goes back into noise, and comes again with another prompt."""
from .canvas import GAP, HEAD, begun, sampler
from .lessons import SECOND, picture

EDITED = "a big green circle on blue"
NOTE = f"""\
# A picture edited by its prompt

**Null-text inversion** takes a picture back into noise, and learns for each step what to guide away from, so that CFG makes
it again. With another prompt only what the prompts differ in changes: here *{EDITED}*.

The picture is one of the model's own. For yours load an image, encode it, and write a prompt that describes it.

Sample with the same noise levels and cfg, and with **euler**."""


def files(known):
    return {"edit_a_picture.json": edit(known)}


def edit(known):
    canvas, shared = begun(known, NOTE, 370)
    first = len(canvas.nodes)
    made = sampler(canvas, (SECOND, 0), shared["model"], shared, {"steps": 16, "cfg": 3.0})
    shown(canvas, shared, (SECOND, 316), made)
    canvas.group("A picture", canvas.nodes[first:])
    first, x = len(canvas.nodes), SECOND + 280 + 2 * GAP
    levels = canvas.add("BasicScheduler", (x, 0), {"model": shared["model"]}, {"scheduler": "normal", "steps": 16})
    inverted = canvas.add("GuidanceNullText", (x, 180), {
        "model": shared["model"], "latent": (made, 0), "positive": shared["positive"], "negative": shared["negative"],
        "sigmas": (levels, 0)}, {"cfg": 3.0})
    canvas.group("Back into noise", canvas.nodes[first:])
    before, x = (inverted, levels, made), x + 300 + 2 * GAP
    first = len(canvas.nodes)
    made_again(canvas, shared, (x, 0), before, shared["positive"])
    top = canvas.group("The same prompt: the picture again", canvas.nodes[first:]) + 2 * HEAD
    first = len(canvas.nodes)
    prompt = canvas.add("CLIPTextEncode", (x, top + 290), {"clip": shared["clip"]}, {"text": EDITED}, "Edited", width=280,
                        height=80)
    made_again(canvas, shared, (x, top), before, (prompt, 0))
    canvas.group("Another prompt", canvas.nodes[first:])
    return canvas.text()


def made_again(canvas, shared, at, before, positive):
    """A sampler that starts from an inverted picture. before: the nodes of the inversion, its noise levels, the latent."""
    (x, y), (inverted, levels, latent) = at, before
    links = {"model": shared["model"], "positive": positive, "negative": (inverted, 1)}
    guider = canvas.add("CFGGuider", (x, y), links, {"cfg": 3.0}, width=280)
    euler = canvas.add("KSamplerSelect", (x, y + 164), values={"sampler_name": "euler"}, width=280)
    made = canvas.add("SamplerCustomAdvanced", (x + 280 + GAP, y), {
        "noise": (inverted, 0), "guider": (guider, 0), "sampler": (euler, 0), "sigmas": (levels, 0),
        "latent_image": (latent, 0)}, width=280)
    shown(canvas, shared, (x + 280 + GAP, y + 180), made)


def shown(canvas, shared, at, made):
    """What a sampler has made, as a picture."""
    decoded = canvas.folded("VAEDecode", at, {"samples": (made, 0), "vae": shared["vae"]})
    picture(canvas, (at[0], at[1] + 50), decoded, (280, 240))
