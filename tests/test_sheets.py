"""What a text of values means, and how pictures are laid out on a sheet; without a run."""

import time

import numpy as np
import pytest
import torch
from pack.nodes.grid import Grid, arranged, axes_of, pixels
from pack.nodes.inputs import LONGEST
from pack.nodes.letters import letters, wrapped
from pack.nodes.sheet import MOST as WIDEST
from pack.nodes.values import MOST, Values, cells, read
from PIL import Image

LONG = "x" * 1_000_000


@pytest.mark.parametrize("text, values", [
    ("1, 3, 8", [1, 3, 8]),
    ("1\n3\n\n8,", [1, 3, 8]),
    ("1..8 by 3", [1, 4, 7]),
    ("3..1", [3, 2, 1]),
    ("0..1 by 0.25", [0.0, 0.25, 0.5, 0.75, 1.0]),
    ("0..0.3 by 0.1", [0.0, 0.1, 0.2, 0.3]),
    ("1.0, 3", [1.0, 3.0]),
    ("1.5e1, -2", [15.0, -2.0]),
    ("1..2, 7", [1, 2, 7]),
    ("18446744073709551615", [2**64 - 1]),  # the last seed
    ("true, False", [True, False]),
    ("0:1, 0.5:8 smooth\n5", ["0:1, 0.5:8 smooth", "5"]),
    ("euler\nheun", ["euler", "heun"]),
    ("a cat, a dog", ["a cat, a dog"]),
    ("nan", ["nan"]),
])
def test_what_a_text_means(text, values):
    found = read("first", text)
    assert found == values and list(map(type, found)) == list(map(type, values))


@pytest.mark.parametrize("text, says", [
    ("", "no value"), (" ,\n", "no value"), ("1..2 by 0", "cannot be 0"), ("1..1e9", f"between 1 and {MOST}"), ("0..1 by 1e-30", "between 1 and"),
    ("1e999999999", "2^64"), ("1..1e999999999 by 1e-999999999", "2^64"), ("1," * 500_000, "between 1 and"),
    ("\n".join("ab" * 500_000), "between 1 and"), ("\n".join(["9" * 1_000_000 + "x"] * 101), "between 1 and"), ("9" * 1_000_000, "2^64"), ("1..2 by 0." + "0" * 100_000, "cannot be 0"),
], ids=lambda value: repr(value[:20]))
def test_what_is_no_list_is_refused_in_one_sentence_and_at_once(text, says):
    start = time.process_time()
    with pytest.raises(ValueError, match=says.replace("^", r"\^")) as error:
        cells(text)
    assert time.process_time() - start < 2
    assert str(error.value).startswith("first ") and "\n" not in str(error.value) and len(str(error.value)) < 200
    assert Values.validate_inputs(first=text) == str(error.value)


def test_cells_are_all_pairs_and_their_number_is_bounded():
    found = cells("1, 3", "cfg", "7, 8", "seed")
    assert [cell[:2] for cell in found] == [(1, 7), (3, 7), (1, 8), (3, 8)]
    assert [cell.label for cell in found] == ["cfg 1 · seed 7", "cfg 3 · seed 7", "cfg 1 · seed 8", "cfg 3 · seed 8"]
    assert cells("2", "", "", "") == [(2, None, "2")]
    assert cells("0.25, true", "on")[0].label == "on 0.25, true"  # a text
    with pytest.raises(ValueError, match="121 cells; they have to be 100 at most"):
        cells("1..11", "", "1..11", "")
    assert Values.validate_inputs(first="1..11", second="1..11") is not True and Values.validate_inputs() is True


def test_labels_are_short_and_without_the_sign_between_them():
    (cell,) = cells(LONG + " · " + LONG, LONG)
    assert len(cell.label) <= LONGEST and "·" not in cell.label


# ------------------------------------------------------------------------------------------------ sheets

def picture(color=(255, 0, 0), size=(32, 32)):
    return Image.new("RGB", size, color)


def test_labels_of_two_axes_are_headings():
    labels = [cell.label for cell in cells("1, 3, 8", "cfg", "1, 2", "seed")]
    assert axes_of(labels) == (["cfg 1", "cfg 3", "cfg 8"], ["seed 1", "seed 2"])
    assert axes_of(labels[:5]) is axes_of([labels[1], labels[0], *labels[2:]]) is axes_of(["cfg 1", "cfg 3"]) is axes_of([]) is None


def found(sheet, color):
    """(left, top, right, bottom) of all that has this color."""
    rows, columns = np.nonzero((np.asarray(sheet) == color).all(-1))
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


COLORS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255), (0, 255, 255), (99, 0, 0)]


@pytest.mark.parametrize("count, columns, shape", [(1, 0, (1, 1)), (3, 0, (3, 1)), (3, 1, (1, 3)), (5, 2, (2, 3)), (7, 0, (4, 2)),
                                                   (2, 9, (2, 1))])
@pytest.mark.parametrize("labelled", [True, False])
def test_pictures_stand_in_rows_whole_and_none_on_another(count, columns, shape, labelled):
    pictures = [picture(color) for color in COLORS[:count]]
    sheet = arranged(pictures, [f"label {i}" for i in range(count)] if labelled else [], [], columns)
    boxes = [found(sheet, color) for color in COLORS[:count]]
    sides = {(right - left, bottom - top) for left, top, right, bottom in boxes}
    assert len(sides) == 1 and all(side % 32 == 0 for side in sides.pop())
    assert (len({box[0] for box in boxes}), len({box[1] for box in boxes})) == shape
    assert boxes[0][:2] == (min(box[0] for box in boxes), min(box[1] for box in boxes))


@pytest.mark.parametrize("across", [1, 3, 6, 12])
@pytest.mark.parametrize("side", [32, 512])
def test_letters_can_be_read_where_a_sheet_is_shown_1024_wide(across, side):
    labels = [cell.label for cell in cells(f"1..{across}", "cfg", "1, 2", "seed")]
    sheet = arranged([picture(size=(side, side))] * 2 * across, labels, ["8 rows, 0.12 s"] * 2 * across, 0)
    dark = np.asarray(sheet.convert("L")) < 60
    heading = np.nonzero(dark[:found(sheet, COLORS[0])[1]].any(1))[0]
    assert (heading.max() - heading.min()) * min(1, 1024 / sheet.width) >= 11  # of letters about 17 high
    assert sheet.width >= 900


def test_small_pictures_are_enlarged_by_whole_pixels():
    noise = torch.rand(1, 32, 32, 3, generator=torch.Generator().manual_seed(1)).mul(200).round() / 255
    sheet = np.asarray(arranged(pixels(noise)[:1], [], [], 0))
    small = (noise[0].numpy() * 255).round().astype(np.uint8)
    top, left = (np.nonzero((sheet != sheet[0, 0]).any(-1))[axis].min() for axis in (0, 1))
    times = 1024 // 32
    assert (sheet[top:top + 32 * times, left:left + 32 * times] == small.repeat(times, 0).repeat(times, 1)).all()


def test_pictures_of_unequal_sizes_keep_their_shape():
    sheet = arranged([picture(COLORS[0], (64, 32)), picture(COLORS[1], (16, 32))], [], [], 0)
    wide, tall = (found(sheet, color) for color in COLORS[:2])
    assert (wide[2] - wide[0]) == 2 * (wide[3] - wide[1]) and 2 * (tall[2] - tall[0]) == tall[3] - tall[1]


def test_a_large_sheet_is_bounded():
    sheet = arranged([picture(size=(4096, 64))] * 2, [], [], 2)
    assert 0.9 * WIDEST < max(sheet.size) < 1.1 * WIDEST


def sheet_of(images, labels=(""), columns=0, **more):
    return Grid.execute([*images], [*labels] if not isinstance(labels, str) else [labels], [columns], **more)


def test_a_batch_is_one_cell_or_one_for_each_label():
    batch = torch.stack([torch.full((8, 8, 3), i / 4) for i in range(4)])
    together, apart = (sheet_of(images, labels).result[0] for images, labels in [([batch] * 2, ["a", "b"]), ([batch], "a\nb\nc\nd")])
    for sheet in (together, apart):
        assert all(((sheet - i / 4).abs() < 0.01).all(-1).any() for i in range(4))
    assert torch.equal(apart, sheet_of([batch], "a, b, c, d").result[0])
    alone = [sheet_of([pictures], label).result[0] for pictures in (batch, batch[:1]) for label in ("0:1, 1:8", "0:1")]
    assert [sheet.shape[1] for sheet in alone[::2]] == [sheet.shape[1] for sheet in alone[1::2]]  # it is one label
    assert sheet_of([batch], "", notes=["8 rows, 0.12 s"]).result[0].shape[1] == pytest.approx(alone[0].shape[1], rel=0.1)
    assert 0.5 < together.shape[1] / together.shape[2] < 0.7 and apart.shape[2] > 3 * apart.shape[1]


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_whatever_is_in_a_picture_a_sheet_has_colors(channels):
    image = torch.full((1, 4, 4, channels), float("nan"))
    image[0, 0] = float("inf")
    made = sheet_of([image]).result[0]
    assert made.shape[-1] == 3 and made.isfinite().all() and made.min() >= 0 and made.max() <= 1


@pytest.mark.parametrize("labels, more, says", [
    (["a"], {}, "labels are 1 for 2"), (["a", "b", "c"], {}, "labels are 3 for 2"), ("a\nb\nc", {}, "labels are 3 for 2"),
    ([7, 8], {}, "labels have to be texts"), (["a", "b"], {"notes": ["x"] * 3}, "notes are 3 for 2"),
    (["a", "b"], {"notes": [None, None]}, "notes have to be texts"), (["a", "b"], {"columns": -1}, "columns is -1"),
    (["a", "b"], {"columns": "many"}, "columns is 'many'"),
])
def test_a_sheet_that_cannot_be_made_is_refused_in_one_sentence(labels, more, says):
    with pytest.raises(ValueError, match=says) as error:
        sheet_of([torch.zeros(1, 8, 8, 3)] * 2, labels, **more)
    assert "\n" not in str(error.value) and len(str(error.value)) < 200


def test_a_batch_without_pictures_is_refused():
    with pytest.raises(ValueError, match="without pictures"):
        sheet_of([torch.zeros(0, 8, 8, 3)])


def test_a_megabyte_of_text_is_cut_at_once():
    start = time.process_time()
    sheet_of([torch.zeros(1, 8, 8, 3)] * 2, [LONG, "a " * 500_000], notes=[LONG, LONG])
    assert time.process_time() - start < 2


def test_lines_are_as_long_as_the_room_and_dots_say_that_there_is_more():
    font = letters(20)
    lines = wrapped("one two three four five six", font, 100, 2)
    assert len(lines) == 2 and lines[0] == "one two" and lines[1].endswith(" ...")
    for text in ("one two", "incomprehensibilities", LONG[:200], ""):
        for room in (1, 30, 100):
            assert all(font.getlength(line) <= max(room, font.getlength("...")) for line in wrapped(text, font, room, 3))
