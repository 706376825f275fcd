"""Negative prompts to begin with, by what the picture is of: texts for any text encoder."""

from comfy_api.latest import io

from .inputs import checked

FLAWS = "blurry, low resolution, compression artefacts, noise, watermark, signature, stray text"
NO_PHOTO = "photograph, 3d render, muddy colours, uneven line width"
NO_DRAWING = "drawing, painting, cartoon, 3d render, oversharpened, oversaturated"

TEXTS = {
    "universal": FLAWS,
    "photo: portrait": f"{FLAWS}, {NO_DRAWING}, waxy skin, airbrushed, crossed eyes, uneven pupils, extra fingers, fused "
                       "fingers, distorted teeth, head cut off",
    "photo: landscape": f"{FLAWS}, {NO_DRAWING}, tilted horizon, halos around trees, grey haze, repeated patterns, power lines",
    "photo: architecture": f"{FLAWS}, {NO_DRAWING}, leaning walls, bent lines, windows out of line, warped perspective, "
                           "stairs that lead nowhere, fisheye",
    "photo: product": f"{FLAWS}, {NO_DRAWING}, cluttered background, fingerprints, dust, scratches, dented edges, misspelt "
                      "label, harsh reflections, hands",
    "illustration": f"{FLAWS}, {NO_PHOTO}, unfinished sketch, smudged lines, cropped subject",
    "anime": f"{FLAWS}, {NO_PHOTO}, bad anatomy, extra digits, missing digits, extra limbs, asymmetrical eyes, off model",
    "anime: portrait": f"{FLAWS}, {NO_PHOTO}, asymmetrical eyes, empty eyes, blank face, bad hands, extra digits, hair merged "
                       "with clothes, cropped head",
    "anime: scenery": f"{FLAWS}, {NO_PHOTO}, flat background, empty background, wrong perspective, floating objects, people",
}


class NegativeTexts(io.ComfyNode):
    inputs = [
        io.Combo.Input("subject", options=[*TEXTS], default="universal", tooltip="What the picture is of.",
                       extra_dict={"guidance_texts": TEXTS}),  # for web/js/texts.js
        io.String.Input("text", default="", multiline=True, tooltip="To be edited; choosing a subject writes its text here. "
                        "Empty: the text for the subject."),
        io.String.Input("more", default="", multiline=True, display_name="more (added words)",
                        tooltip="Words of your own, after the text."),
    ]

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="GuidanceNegativeTexts",
            display_name="Texts for negatives",
            category="guidance",
            description="A negative prompt to begin with, by what the picture is of: names flaws that such pictures have. "
                        "Link it to the text of any text encoder. At cfg 1 a negative is ignored: use it with NAG there.",
            search_aliases=["negative prompt", "negative prompt preset", "bad hands", "quality words", "embedding", "styles"],
            inputs=cls.inputs,
            outputs=[io.String.Output(display_name="text")],
        )

    @classmethod
    def execute(cls, **knobs):
        subject, text, more = checked(cls.inputs, knobs).values()
        return io.NodeOutput(", ".join(filter(None, [text.strip() or TEXTS[subject], more.strip()])))
