"""What a user has entered on the page, read into what ``generate`` is asked for; mistakes name the field."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cns_lightning.drawing.request import LARGEST_SEED, DrawingRequest, number_text
from cns_lightning.errors import Problems, SeveralUserErrors, UserError
from cns_lightning.user_files import composed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cns_lightning.ui.cards import Card

MOST_PICTURES = 64
"""Pictures drawn by one press of the button; more of them are a matter for the command line."""
LARGEST_STRENGTH = 1.5
"""End of the sliders; the command line takes any number."""
DIGITS = 3
"""Decimals of a box's sides, as the page shows them."""
_SIDES = ("left", "top", "right", "bottom")


@dataclass(frozen=True)
class Form:
    """Values of the page's fields, as the browser sends them.

    Attributes:
        prompt: what to draw.
        negative_prompt: what no picture shall show.
        concepts: ``stage``, the number of concepts that count, and ``strengths``, one a concept in learning order.
        boxes: mappings of ``left``, ``top``, ``right``, ``bottom``, ``prompt`` and ``negative``.
        seed: digits of the first seed.
        pictures: number of pictures.
        steps: steps of the sampler.
        guidance: scale of guidance.
    """

    prompt: Any
    negative_prompt: Any = ""
    concepts: Any = field(default_factory=dict)
    boxes: Any = ()
    seed: Any = "0"
    pictures: Any = 4
    steps: Any = 25
    guidance: Any = 7.5

    def request(self, cards: Sequence[Card], batch_size: int) -> DrawingRequest:
        """Returns what ``generate`` is asked for; whether its tokens were learned is not checked here.

        Args:
            cards: the learned concepts.
            batch_size: pictures drawn at once.

        Raises:
            UserError: naming every field that cannot be used.
        """
        problems = Problems()
        prompt, negative = _text(self.prompt), _text(self.negative_prompt)
        if not prompt:
            problems.add("prompt", "is empty", "Write what to draw")
        regions = _regions(self.boxes, problems)
        seed = _seed(self.seed, problems)
        pictures = _whole(self.pictures, "pictures", 1, MOST_PICTURES, problems)
        steps = _whole(self.steps, "steps", 1, None, problems)
        guidance = _number(self.guidance)
        if guidance is None or guidance < 0:
            problems.add("guidance", f"is {_shown(self.guidance)}", "Give a number of at least 0")
        stage, strengths = _concepts(self.concepts, cards, problems)
        problems.raise_if_any()
        return DrawingRequest(
            prompts=(prompt,),
            regions=tuple(regions),
            negative_prompt=negative,
            strengths=strengths,
            pictures=pictures,
            seed=seed,
            upto=cards[stage - 1].token if 0 < stage < len(cards) else None,
            steps=steps,
            guidance=guidance,
            batch_size=batch_size,
        )


def on_the_page(error: UserError, request: DrawingRequest | None) -> list[str]:
    """Returns what is wrong, a sentence a problem, with the names of the page's fields in place of the options.

    Args:
        error: error of the request.
        request: the request; None where there was none yet.
    """
    fields = {"--negative-prompt": "negative prompt", "--seed": "seed", "--steps": "steps"}
    if request is not None:
        fields |= {f"--prompt {prompt!r}": "prompt" for prompt in request.prompts}
        fields |= {f"--region {region!r}": f"box {number}" for number, region in enumerate(request.regions, 1)}
    remedies = {"Leave --upto out": "Move the slider of stages to the right, or take it out of the prompt"}
    found = error.problems if isinstance(error, SeveralUserErrors) else [error]
    return [
        f"{fields.get(each.where, each.where)}: {each.problem}. {remedies.get(each.remedy, each.remedy)}"
        for each in found
    ]


def _text(value: Any) -> str:
    return composed(" ".join(str(value or "").split()))


def _number(value: Any) -> float | None:
    """Returns a number of the page; None for an empty field and all that is not a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _shown(value: Any) -> str:
    return "empty" if value is None or value == "" else str(value)[:40]


def _whole(value: Any, name: str, least: int, most: int | None, problems: Problems) -> int:
    number = _number(value)
    if number is not None and number == int(number) and number >= least and (most is None or number <= most):
        return int(number)
    wanted = f"a whole number of at least {least}" if most is None else f"a whole number from {least} to {most}"
    problems.add(name, f"is {_shown(value)}", f"Give {wanted}")
    return least


def _seed(value: Any, problems: Problems) -> int:
    text = str(value if value is not None else "").strip()
    if text.isascii() and text.isdecimal() and int(text[:40]) <= LARGEST_SEED and len(text) <= 40:
        return int(text)
    problems.add("seed", f"is {_shown(text)}", f"Give a whole number from 0 to {LARGEST_SEED}")
    return 0


def _regions(boxes: Any, problems: Problems) -> list[str]:
    """Writes boxes as ``--region`` takes them."""
    regions = []
    for number, box in enumerate(boxes if isinstance(boxes, list | tuple) else [], 1):
        given = box if isinstance(box, dict) else {}
        sides = [_number(given.get(name)) for name in _SIDES]
        prompt, negative = _text(given.get("prompt")), _text(given.get("negative"))
        where = f"box {number}"
        if any(side is None for side in sides):
            problems.add(where, "lacks a side", "Give left, top, right and bottom as numbers from 0 to 1")
            continue
        left, top, right, bottom = (round(side or 0.0, DIGITS) for side in sides)
        if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
            remedy = "Give a left side before the right one and a top above the bottom, from 0 to 1"
            problems.add(where, "is not a box within the picture", remedy)
        if not prompt:
            problems.add(where, "has no prompt", "Write what is in it, or remove the box")
        if "|" in prompt:
            problems.add(where, "has a bar in its prompt", "Write what to keep out of it into the field below")
        corners = ",".join(number_text(side) for side in (left, top, right, bottom))
        regions.append(f"{corners}:{prompt}|{negative}" if negative else f"{corners}:{prompt}")
    return regions


def _concepts(value: Any, cards: Sequence[Card], problems: Problems) -> tuple[int, dict[str, float]]:
    """Returns how many concepts count, and the strengths that are not 1."""
    given = value if isinstance(value, dict) else {}
    stage = _number(given.get("stage", len(cards)))
    if stage is None or stage != int(stage) or not min(1, len(cards)) <= stage <= len(cards):
        problems.add("stage", f"is {_shown(given.get('stage'))}", f"Give a number from 1 to {len(cards)}")
        return 0, {}
    strengths: dict[str, float] = {}
    numbers = given.get("strengths")
    for card, chosen in zip(cards[: int(stage)], numbers if isinstance(numbers, list) else [], strict=False):
        strength = _number(chosen)
        if strength is None or strength < 0:
            problems.add(f"strength of {card.token}", f"is {_shown(chosen)}", "Give a number of at least 0")
        elif card.has_strength and strength != 1:
            strengths[card.token] = strength
    return int(stage), strengths
