"""Which picture at which step on which rank, as a pure function."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from cns_lightning.determinism import generator, integer

Key = tuple[int, int, int]


def sample_for(
    seed: int, stage: int, step: int, sample: int, pictures: int, variants: int, per_step: int
) -> tuple[int, int]:
    """Returns picture and augmentation variant of one sample of a step.

    Every pass over the pictures is a new permutation, so that each is used equally often.

    Args:
        seed: base random seed.
        stage: stage of the sequence.
        step: optimizer step of the stage.
        sample: number within the step, over all ranks and accumulated batches.
        pictures: number of pictures of the concept.
        variants: number of variants of each picture.
        per_step: samples a step.
    """
    position = step * per_step + sample
    turn, place = divmod(position, pictures)
    order = torch.randperm(pictures, generator=generator(seed, "order", stage, turn))
    return int(order[place]), integer(variants, seed, "variant", stage, position)


class StepSampler:
    """Batches of keys (stage, step, sample) from a step on; iterating leaves no trace.

    Args:
        stage: stage of the sequence.
        start: first step to give.
        steps: number of steps of the whole stage.
        batch_size: samples of one rank in one batch.
        rank: this process.
        ranks: number of processes.
        accumulate: batches a step.
    """

    def __init__(
        self, stage: int, start: int, steps: int, batch_size: int, rank: int = 0, ranks: int = 1, accumulate: int = 1
    ) -> None:
        self.stage, self.start, self.steps, self.batch_size = stage, start, steps, batch_size
        self.rank, self.ranks, self.accumulate = rank, ranks, accumulate

    def __len__(self) -> int:
        """Returns the batches of the whole stage, not of what is left: Lightning compares it with the batches done."""
        return self.steps * self.accumulate

    def __iter__(self) -> Iterator[list[Key]]:
        """Returns the batches from the start on."""
        for step in range(self.start, self.steps):
            for part in range(self.accumulate):
                first = (part * self.ranks + self.rank) * self.batch_size
                yield [(self.stage, step, first + index) for index in range(self.batch_size)]
