"""What the page's fields hold becomes a request, and every mistake names its field."""

from typing import Any

import pytest

from cns_lightning.drawing.request import DrawingRequest
from cns_lightning.errors import UserError
from cns_lightning.ui.cards import Card
from cns_lightning.ui.form import Form, on_the_page

CARDS = [
    Card("<new1>", "cat", "", "", has_strength=True),
    Card("<new2>", "dog", "", "", has_strength=True),
    Card("<new3>", "style", "", "", has_strength=False),
]
BOX = {"left": 0, "top": 0.25, "right": 0.5, "bottom": 1, "prompt": "a <new1> cat", "negative": ""}


def refused(**fields: Any) -> list[str]:
    with pytest.raises(UserError) as found:
        Form(**({"prompt": "a cat"} | fields)).request(CARDS, 8)
    return on_the_page(found.value, None)


def test_fields_become_a_request() -> None:
    form = Form(
        prompt=" a <new1>\n cat ",
        negative_prompt="rain",
        concepts={"stage": 2, "strengths": [0.7, 1, 0.2]},
        boxes=[BOX, {**BOX, "left": 0.33349, "negative": "a dog"}],
        seed=str(2**64 - 4),
        pictures=3,
        steps=7,
        guidance=2.5,
    )
    assert form.request(CARDS, 4) == DrawingRequest(
        prompts=("a <new1> cat",),
        regions=("0,0.25,0.5,1:a <new1> cat", "0.333,0.25,0.5,1:a <new1> cat|a dog"),
        negative_prompt="rain",
        strengths={"<new1>": 0.7},
        pictures=3,
        seed=2**64 - 4,
        upto="<new2>",
        steps=7,
        guidance=2.5,
        batch_size=4,
    )


def test_untouched_strengths_and_the_last_stage_are_not_said() -> None:
    request = Form("a cat", concepts={"stage": 3, "strengths": [1, 1.0, 0.5]}).request(CARDS, 8)
    assert (request.strengths, request.upto) == ({}, None), "<new3> moves no weights"


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        ({"prompt": "  "}, "prompt: is empty. Write what to draw"),
        ({"seed": "-1"}, "seed: is -1. Give a whole number from 0 to 18446744073709551615"),
        ({"seed": str(2**64)}, "seed: is 18446744073709551616"),
        ({"seed": "9" * 9000}, "seed: is 999"),
        ({"seed": "²"}, "seed: is ²"),
        ({"seed": ""}, "seed: is empty"),
        ({"pictures": 0}, "pictures: is 0. Give a whole number from 1 to 64"),
        ({"pictures": 1000}, "pictures: is 1000"),
        ({"pictures": None}, "pictures: is empty"),
        ({"steps": 2.5}, "steps: is 2.5. Give a whole number of at least 1"),
        ({"steps": 10**400}, "steps: is 1000"),
        ({"guidance": -1}, "guidance: is -1. Give a number of at least 0"),
        ({"guidance": float("nan")}, "guidance: is nan"),
        ({"concepts": {"stage": 4}}, "stage: is 4. Give a number from 1 to 3"),
        ({"concepts": {"stage": 0}}, "stage: is 0"),
        ({"concepts": {"strengths": ["much"]}}, "strength of <new1>: is much"),
        ({"boxes": [{**BOX, "prompt": ""}]}, "box 1: has no prompt"),
        ({"boxes": [BOX, {**BOX, "right": 0}]}, "box 2: is not a box within the picture"),
        ({"boxes": [{**BOX, "bottom": 1.2}]}, "box 1: is not a box within the picture"),
        ({"boxes": [{**BOX, "top": None}]}, "box 1: lacks a side"),
        ({"boxes": ["0,0,1,1:a cat"]}, "box 1: lacks a side"),
        ({"boxes": [{**BOX, "prompt": "a cat|a dog"}]}, "box 1: has a bar in its prompt"),
    ],
)
def test_mistakes_name_their_field(fields: dict[str, Any], part: str) -> None:
    (said,) = refused(**fields)
    assert said.startswith(part)


def test_all_mistakes_are_said_at_once() -> None:
    said = refused(prompt="", seed="x", pictures=0, boxes=[{**BOX, "prompt": ""}])
    assert [each.split(":")[0] for each in said] == ["prompt", "box 1", "seed", "pictures"]


def test_options_are_called_by_their_fields() -> None:
    request = Form("a cat", boxes=[BOX]).request(CARDS, 8)
    error = UserError(
        f"--region {request.regions[0]!r}", "names <new2>, which was learned after <new1>", "Leave --upto out"
    )
    (said,) = on_the_page(error, request)
    assert said.startswith("box 1: names <new2>, which was learned after <new1>. Move the slider of stages")
