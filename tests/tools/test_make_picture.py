"""The README's picture: which parts of a look are right, wrong or missed."""

import numpy as np
import pytest
from PIL import Image, ImageColor

from tools import make_picture
from tools.make_picture import COLOURS, Person, common, draw, looks_by_kind, without


def test_parts_of_spans() -> None:
    assert common([(0, 2), (3, 5)], [(1, 4)]) == [(1, 2), (3, 4)]
    assert common([(0, 1)], [(1, 2)]) == []
    assert without([(0, 4)], [(1, 2), (3, 5)]) == [(0, 1), (2, 3)]
    assert without([(1, 2)], []) == [(1, 2)]


def test_kinds_fill_what_is_true_or_found() -> None:
    person = Person("1", (0, 6), true=[(1, 3), (5, 8)], found=[(2, 4)], middle=(0, 0))
    assert looks_by_kind(person) == {"right": [(2, 3)], "wrong": [(3, 4)], "missed": [(1, 2), (5, 6)]}


@pytest.mark.parametrize("name", ["light", "dark"])
def test_kinds_differ_in_pattern_not_in_colour_alone(name: str) -> None:
    colours = COLOURS[name]
    drawn = {}
    for kind in ("right", "wrong", "missed"):
        sheet = Image.new("RGB", (80, 40), colours.ground)
        make_picture.bar(sheet, kind, (10, 10, 70, 30), colours)
        inside = np.asarray(sheet)[12:28, 14:66]
        drawn[kind] = np.all(inside == ImageColor.getrgb(colours.ground), axis=-1).mean()
    assert drawn["right"] == 0 and drawn["missed"] == 1 and 0.2 < drawn["wrong"] < 0.8


def test_a_picture_has_a_line_per_person() -> None:
    pictures = [Image.new("RGB", make_picture.PART) for _ in range(4)]
    people = [Person(str(number), (0, 2), [(0, 1)], [(0.5, 1.5)], (0, 0)) for number in range(3)]
    small, large = draw(pictures, people[:2], COLOURS["light"]), draw(pictures, people, COLOURS["light"])
    assert small.width == make_picture.WIDTH and large.height - small.height == make_picture.LINE
