"""How the runs of an experiment are scored: options of ``test``, by the names of its command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from cns_lightning.ranges import Amount, Count, NonNegative

if TYPE_CHECKING:
    from cns_lightning.experiments.experiment_file import ExperimentFile


class ScoringOptions(BaseModel):
    """Options of ``test``; None leaves one to it. docs/evaluation.md says what they mean."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    pictures: Count | None = None
    matrix_pictures: Amount | None = None
    look_alikes: Amount | None = None
    curve_pictures: Amount | None = None
    steps: Count | None = None
    guidance: NonNegative | None = None
    batch_size: Count | None = None
    judge: str | None = None
    dino: str | None = None
    device: str | None = None
    devices: Count | None = None

    def arguments(self) -> tuple[str, ...]:
        """Returns the options as words of a command line, always in one order."""
        given = {name: getattr(self, name) for name in self.model_fields_set}
        listed = [(name, given[name]) for name in type(self).model_fields if given.get(name) is not None]
        return tuple(word for name, value in listed for word in (f"--{name.replace('_', '-')}", str(value)))


def read_scoring_options(file: ExperimentFile, given: Any) -> ScoringOptions:
    """Reads the options from an experiment file; notes problems there."""
    options = {} if given is None else file.settings("test", given)
    try:
        return ScoringOptions(**options)
    except ValidationError as error:
        for each in error.errors():
            key = f"test.{each['loc'][0]}"
            if each["type"] == "extra_forbidden":
                file.add(key, "is an unknown key", f"Use {', '.join(ScoringOptions.model_fields)}")
            else:
                said = each["msg"].removeprefix("Input should be ")
                file.add(key, f"is {each['input']!r}, {said} is needed")
        return ScoringOptions()
