"""What the stage of one concept does otherwise than the run: steps, learning rates, prompt."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cns_lightning.errors import Problems

STEPS, PROMPT, RATE = "steps", "prompt", "learning_rate"
USUAL_KEYS = (STEPS, RATE, "token_learning_rate", PROMPT)
"""Keys that most methods know; any other that ends in `RATE` is the name of an argument of the method."""


@dataclass(frozen=True)
class ConceptSettings:
    """What one stage does otherwise than the run.

    Attributes:
        steps: optimizer steps of the stage; None takes those of the run.
        rates: learning rates by the name of the method's argument; others are those of the run.
        prompt: training prompt in place of the template; empty for none.
    """

    steps: int | None = None
    rates: tuple[tuple[str, float], ...] = ()
    prompt: str = ""

    @classmethod
    def from_plain(cls, content: dict[str, Any]) -> ConceptSettings:
        """Makes the settings that `plain` gave; nothing is checked."""
        rates = tuple((key, float(value)) for key, value in content.items() if key.endswith(RATE))
        return cls(content.get(STEPS), rates, content.get(PROMPT, ""))

    def plain(self) -> dict[str, Any]:
        """Returns what is set, by the keys of the sequence file."""
        steps = {} if self.steps is None else {STEPS: self.steps}
        return {**steps, **dict(self.rates), **({PROMPT: self.prompt} if self.prompt else {})}

    def rate(self, name: str) -> float | None:
        """Returns the learning rate for an argument of the method; None where it is that of the run."""
        return dict(self.rates).get(name)


def read_settings(problems: Problems, where: str, entry: Any, remedies: Mapping[str, str]) -> ConceptSettings:
    """Reads the settings of a concept; the prompt is checked by the caller.

    Args:
        problems: what is wrong is noted here.
        where: file and key.
        entry: content of the key.
        remedies: what to do about a key that is unknown, by key.
    """
    if not isinstance(entry, dict):
        problems.add(where, f"is {entry!r}", f"Give the keys {', '.join(USUAL_KEYS)}")
        return ConceptSettings()
    found: dict[str, Any] = {}
    for key, value in entry.items():
        name = str(key)
        if name == STEPS:
            found[name] = _steps(problems, f"{where}.{name}", value)
        elif name.endswith(RATE):
            found[name] = _rate(problems, f"{where}.{name}", value)
        elif name != PROMPT:
            problems.add(f"{where}.{name}", "is an unknown key", remedies[name])
        elif isinstance(value, str) and value.strip():
            found[name] = " ".join(value.split())
        else:
            problems.add(f"{where}.{name}", f"is {value!r}, a text is needed", 'Write prompt: "..."')
    return ConceptSettings.from_plain({key: value for key, value in found.items() if value is not None})


def _steps(problems: Problems, where: str, value: Any) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return value
    problems.add(where, f"is {value!r}, at least 1 is needed", "Write a whole number of optimizer steps")
    return None


def _rate(problems: Problems, where: str, value: Any) -> float | None:
    try:
        # YAML takes 1e-3, without a point, for a text.
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if math.isfinite(number) and number >= 0:
        return number
    problems.add(where, f"is {value!r}, a number from 0 on is needed", "Write it like 1.0e-3")
    return None
