"""What is read off a curve of CLIP-I against CLIP-T, by hand."""

import pytest

from cns_lightning.evaluation.curves import area, headline, image_at_text, point_of, share_of

# (CLIP-T, CLIP-I): the prompt is lost step by step, the likeness grows, then falls.
POINTS = [(1.0, 0.2), (0.8, 0.4), (0.6, 0.5), (0.7, 0.9), (0.4, 0.3)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (1.1, None),  # nowhere
        (1.0, 0.2),  # the first point alone
        (0.9, 0.3),  # half way to the second
        (0.8, 0.4),
        (0.7, 0.9),  # the fourth point, where the curve turns back
        (0.65, 0.9),
        (0.75, 0.425),  # a quarter of the way to the third: the turn does not come so high
        (0.0, 0.9),
    ],
)
def test_image_at_text(text: float, expected: float | None) -> None:
    assert image_at_text(POINTS, text) == (None if expected is None else pytest.approx(expected))


def test_area_of_a_flat_curve_and_of_a_straight_line() -> None:
    assert area([(0.5, 0.3)], 0.5) == pytest.approx(0.3)
    assert area([(0.5, 0.3), (0.1, 0.3)], 0.5) == pytest.approx(0.3)
    # From 0.2 at all of the class word's CLIP-T to 0.8 at 70 % of it: the mean is half way.
    assert area([(0.5, 0.2), (0.35, 0.8)], 0.5) == pytest.approx(0.5)
    assert area([(0.5, 0.2), (0.35, 0.8), (0.0, 0.9)], 0.5, (0.7, 0.85)) == pytest.approx(0.65)
    assert area([(0.3, 0.2)], 0.5) is None


def test_area_never_falls_when_points_are_added() -> None:
    areas = [area(POINTS[:count], 1.0) or 0.0 for count in range(1, len(POINTS) + 1)]
    assert areas == sorted(areas)
    assert areas[0] < areas[-1]


def test_a_share_of_a_negative_text_lies_below_it() -> None:
    assert share_of(0.5, 0.9) == pytest.approx(0.45)
    assert share_of(-0.5, 0.9) == pytest.approx(-0.55)


def _figures(image: float, text: float) -> dict[str, float]:
    return {"clip_i": image, "clip_t": text}


def test_headline_of_one_concept_and_of_several() -> None:
    groups = {"single": _figures(0.2, 1.0), "double": _figures(0.1, 0.9), "triple": _figures(0.3, 0.7)}
    start = point_of(groups)
    assert start["several"] == pytest.approx(_figures(0.2, 0.8))
    curve = [{"steps": 9, "single": _figures(0.4, 0.8), "several": _figures(0.6, 0.8)}]
    found = headline(curve, start)
    assert found["single_clip_i_at_90"] == pytest.approx(0.3)
    assert found["multi_clip_i_at_90"] == pytest.approx(0.6)
    assert found["multi_area"] == pytest.approx(0.6)
    assert found["single_way_at_90"] is None
    assert headline(curve, start, photos=0.7)["single_way_at_90"] == pytest.approx(0.1 / 0.5)
    assert headline(curve, start, photos=0.1)["single_way_at_90"] is None
    assert headline([], start)["single_clip_i_at_90"] == 0.2
    assert headline([], point_of({"single": _figures(0.2, 1.0)}))["multi_area"] is None
