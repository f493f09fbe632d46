"""Where in the sequence a run stands, as its checkpoints say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cns_lightning.neurons.mask import NeuronMask

KEY = "continual"


@dataclass(frozen=True)
class Position:
    """A place in the sequence.

    Attributes:
        stage: the stage that was started last, -1 before the first.
        step: optimizer steps applied in that stage.
        done_stages: finished stages.
        pictures: checksum of the running stage's pictures; empty between stages.
        mask: neurons of the running stage, or None.
    """

    stage: int
    step: int
    done_stages: int
    pictures: str
    mask: NeuronMask | None

    @property
    def is_within_stage(self) -> bool:
        """Returns whether a stage was running."""
        return self.stage >= self.done_stages

    def write(self, checkpoint: dict[str, Any]) -> None:
        """Enters the place in a checkpoint, and leaves out what it does not need.

        That is the frozen model, and between stages all weights and the optimizer too: the registry has them.
        """
        states = checkpoint["state_dict"]
        checkpoint["state_dict"] = {name: value for name, value in states.items() if name.startswith("method.")}
        if not self.is_within_stage:
            checkpoint["state_dict"], checkpoint["optimizer_states"], checkpoint["lr_schedulers"] = {}, [], []
        checkpoint[KEY] = {
            "stage": self.stage,
            "step": self.step,
            "done_stages": self.done_stages,
            "pictures": self.pictures,
            "mask": None if self.mask is None else self.mask.to_tensors(),
        }

    @classmethod
    def read(cls, checkpoint: dict[str, Any]) -> Position:
        """Reads the place from a checkpoint."""
        found = checkpoint[KEY]
        mask = None if found["mask"] is None else NeuronMask.from_tensors(found["mask"])
        return cls(found["stage"], found["step"], found["done_stages"], found.get("pictures", ""), mask)
