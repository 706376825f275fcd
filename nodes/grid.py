"""Pictures and their labels as one sheet: a table where the labels have two axes, one after the other elsewhere."""

import re
from math import ceil, sqrt

import numpy as np
import torch
from comfy_api.latest import io, ui
from PIL import Image

from .inputs import check
from .sheet import Shown, sheet
from .values import JOINT

A_ROW = 6  # pictures without axes that stay in one row
LONG = 200  # characters of a label, of which a sheet shows what fits
TYPED = 100 * LONG  # of all labels in one text


class Grid(io.ComfyNode):
    images = io.Image.Input("images", tooltip="A list, or one batch with a label for each picture. A batch with one label is "
                            "shown together.")
    columns = io.Int.Input("columns", default=0, min=0, max=100, display_name="columns (0: automatic)",
                           tooltip="Pictures in a row. 0: the values of the first axis, or what suits their number.")

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="GuidanceGrid",
            display_name="Labelled sheet",
            category="guidance/sweeps",
            description="All pictures on one sheet, with their labels: as headings of rows and columns where these are the "
                        "values of two knobs. Small pictures are enlarged.",
            search_aliases=["grid", "xy plot", "image grid", "compare images", "montage", "labels"],
            inputs=[
                cls.images,
                io.String.Input("labels", default="", tooltip="A text for each picture: linked, or typed and separated by "
                                "commas. Empty: none."),
                cls.columns,
                io.String.Input("notes", optional=True, force_input=True, tooltip="A text below each picture, such as what it "
                                "cost."),
            ],
            outputs=[io.Image.Output()],
            is_input_list=True,
            is_output_node=True,
        )

    @classmethod
    def execute(cls, images, labels, columns, notes=None):
        columns, pictures = check(cls.columns, columns[0]), [pixels(check(cls.images, image)) for image in images]
        if not all(pictures):
            raise ValueError("GuidanceGrid: images has a batch without pictures.")
        labels, notes = typed(texts("labels", labels), pictures), texts("notes", notes or [])
        if len(pictures) == 1 and len(labels or notes or pictures[0]) == len(pictures[0]):
            pictures = [[picture] for picture in pictures[0]]
        for name, given in (("labels", labels), ("notes", notes)):
            if given and len(given) != len(pictures):
                raise ValueError(f"GuidanceGrid: {name} are {len(given)} for {len(pictures)} pictures; there has to be one for "
                                 "each.")
        made = arranged([together(batch) for batch in pictures], labels, notes, columns)
        image = torch.from_numpy(np.asarray(made).astype(np.float32) / 255)[None]
        return io.NodeOutput(image, ui=ui.PreviewImage(image, cls=cls))


def texts(name, given):
    """What is given for each picture, bounded; an empty list where all are empty."""
    if not all(isinstance(text, str) for text in given):
        raise ValueError(f"GuidanceGrid: {name} have to be texts.")
    return [text[:TYPED if len(given) == 1 else LONG] for text in given] if any(text.strip() for text in given) else []


def typed(labels, batches):
    """The labels, where one text with commas or line breaks stands for those of all pictures; of one batch it may be a
    text with commas."""
    parts = re.split(r"[,\n]", labels[0]) if len(labels) == 1 else []
    alone = len(batches) == 1 and len(parts) != len(batches[0])
    return [label.strip()[:LONG] for label in (labels if len(parts) < 2 or alone else parts)]


def pixels(image):
    """(B, height, width, channels) in 0..1 as PIL images; what is no number is black."""
    values = (image[..., :3].float().nan_to_num(0.0).clamp(0, 1) * 255).round().byte().cpu()
    return [Image.fromarray(picture.squeeze(-1).numpy()).convert("RGB") for picture in values]


def together(batch):
    """The pictures of a batch as one, in a square or nearly."""
    if len(batch) == 1:
        return batch[0]
    (width, height), across = batch[0].size, ceil(sqrt(len(batch)))
    whole = Image.new("RGB", (across * width, ceil(len(batch) / across) * height))
    for i, picture in enumerate(batch):
        whole.paste(picture, (i % across * width, i // across * height))
    return whole


def arranged(pictures, labels, notes, columns):
    """The sheet of these pictures. columns: how many are in a row, or 0."""
    notes = notes or [""] * len(pictures)
    axes = axes_of(labels)
    if axes and columns in (0, len(axes[0])):
        shown = [Shown(picture, "", note) for picture, note in zip(pictures, notes)]
        return sheet(in_rows(shown, len(axes[0])), *axes)
    columns = min(columns or (len(pictures) if len(pictures) <= A_ROW else ceil(sqrt(1.5 * len(pictures)))), len(pictures))
    if labels and columns == len(pictures):
        return sheet([[Shown(picture, "", note) for picture, note in zip(pictures, notes)]], labels)
    labels = labels or [""] * len(pictures)
    return sheet(in_rows([*map(Shown, pictures, labels, notes)], columns))


def axes_of(labels):
    """(headings of columns, of rows) where the labels are all pairs of them, the columns running fastest; else None."""
    parts = [label.split(JOINT) for label in labels]
    if not parts or any(len(part) != 2 for part in parts):
        return None
    columns, rows = ([*dict.fromkeys(axis)] for axis in zip(*parts))
    return (columns, rows) if labels == [f"{x}{JOINT}{y}" for y in rows for x in columns] else None


def in_rows(shown, across):
    return [shown[i:i + across] for i in range(0, len(shown), across)]
