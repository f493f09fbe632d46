"""Pictures asked of a run: what ``generate`` and the page of ``ui`` take, check and draw, and the words that say it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cns_lightning.diffusion.regions import read_regions
from cns_lightning.diffusion.sampling import check_steps, generate
from cns_lightning.errors import UserError
from cns_lightning.pipeline import check_strengths
from cns_lightning.runs.config import USUAL_GUIDANCE, USUAL_STEPS, RunConfig
from cns_lightning.sequences.asked import check_prompts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from diffusers import DiffusionPipeline
    from PIL import Image
    from transformers import CLIPTokenizer

    from cns_lightning.registry.registry import NeuronRegistry
    from cns_lightning.runs.folder import RunFolder

LARGEST_SEED = 2**64 - 1


@dataclass(frozen=True)
class DrawingRequest:
    """Pictures asked of a run's model.

    Attributes:
        prompts: at least one; each is drawn with every seed.
        regions: boxes with prompts of their own, each written as ``x0,y0,x1,y1:TEXT`` or with ``|NEGATIVE`` behind it.
        negative_prompt: what no picture shall show; empty for nothing in particular.
        strengths: factors on what concepts add to the weights, by token; 1 for those that are not named.
        pictures: number of pictures of each prompt, at least one.
        seed: seed of the first picture; the next ones count up.
        upto: the model as it was right after this concept; None takes all.
        steps: steps of the sampler; None as in the run's samples.
        guidance: scale of classifier-free guidance; None as in the run's samples.
        batch_size: pictures drawn at once.
    """

    prompts: tuple[str, ...]
    regions: tuple[str, ...] = ()
    negative_prompt: str = ""
    strengths: Mapping[str, float] = field(default_factory=dict)
    pictures: int = 4
    seed: int = 0
    upto: str | None = None
    steps: int | None = None
    guidance: float | None = None
    batch_size: int = 8

    @property
    def seeds(self) -> list[int]:
        """Returns the seeds of each prompt's pictures."""
        return list(range(self.seed, self.seed + self.pictures))

    def check(self, registry: NeuronRegistry) -> None:
        """Refuses what cannot be drawn, before a model is loaded.

        Args:
            registry: the learned concepts.

        Raises:
            UserError: naming seeds out of range, regions that cannot be read, tokens that were not learned, or
                strengths without meaning.
        """
        check_seeds(self.seeds)
        regions = read_regions(self.regions)
        asked = [(f"--prompt {prompt!r}", prompt) for prompt in self.prompts]
        asked.append(("--negative-prompt", self.negative_prompt))
        for given, region in zip(self.regions, regions, strict=True):
            asked += [(f"--region {given!r}", text) for text in (region.prompt, region.negative_prompt)]
        check_prompts(asked, registry.tokens, self.upto)
        negatives = (region.negative_prompt for region in regions)
        if self.guidance is not None and self.guidance <= 1 and any((self.negative_prompt, *negatives)):
            problem = f"is {self.guidance:g}, and negative prompts are read from above 1 on"
            raise UserError("--guidance", problem, "Raise it, or leave the negative prompt out")
        check_strengths(self.strengths, registry, self.upto)

    def texts(self) -> list[str]:
        """Returns every prompt and negative prompt, those of the regions included."""
        found = [*self.prompts, self.negative_prompt]
        for region in read_regions(self.regions):
            found += [region.prompt, region.negative_prompt]
        return found

    def draw(
        self, pipe: DiffusionPipeline, folder: RunFolder, progress: Callable[[int, int], None] | None = None
    ) -> list[Image.Image]:
        """Draws the pictures.

        Args:
            pipe: the run's model, after ``upto`` and with the strengths.
            folder: the run, whose samples say the usual steps and guidance.
            progress: called with pictures done and pictures in all.

        Returns:
            The pictures of the first prompt, then those of the second, and so on.

        Raises:
            UserError: if the sampler has fewer steps.
        """
        steps, guidance = usual_sampling(folder)
        check_steps(pipe.scheduler, self.steps or steps, "--steps")
        return generate(
            pipe,
            list(self.prompts),
            self.seeds,
            steps=self.steps or steps,
            guidance=guidance if self.guidance is None else self.guidance,
            batch_size=self.batch_size,
            progress=progress,
            regions=read_regions(self.regions),
            negative_prompt=self.negative_prompt,
        )

    def words(self) -> list[str]:
        """Returns the options of ``generate`` that ask for the same; those at their defaults are left out."""
        words = [word for prompt in self.prompts for word in _option("--prompt", prompt)]
        words += [word for region in self.regions for word in _option("--region", region)]
        if self.negative_prompt:
            words += _option("--negative-prompt", self.negative_prompt)
        for token, strength in self.strengths.items():
            words += _option("--strength", f"{token}={number_text(strength)}")
        if self.upto is not None:
            words += _option("--upto", self.upto)
        words += ["--n", str(self.pictures), "--seed", str(self.seed)]
        if self.steps is not None:
            words += ["--steps", str(self.steps)]
        if self.guidance is not None:
            words += ["--guidance", number_text(self.guidance)]
        if self.batch_size != DrawingRequest.batch_size:
            words += ["--batch-size", str(self.batch_size)]
        return words


def usual_sampling(folder: RunFolder) -> tuple[int, float]:
    """Returns steps and guidance of a run's own samples; the usual ones where it does not say.

    Raises:
        UserError: if the run's configuration is damaged.
    """
    kept = RunConfig.find(folder)
    return (USUAL_STEPS, USUAL_GUIDANCE) if kept is None else kept.sampling


def number_text(number: float) -> str:
    """Writes a number as people do, without losing a digit: 7 for 7.0."""
    short = f"{number:g}"
    return short if float(short) == number else repr(float(number))


def _option(name: str, value: str) -> list[str]:
    # A value that looks like an option has to be joined to its own.
    return [f"{name}={value}"] if value.startswith("-") else [name, value]


def check_seeds(seeds: Sequence[int]) -> None:
    """Refuses seeds that a random generator does not take.

    Raises:
        UserError: if one is not from 0 to 2^64 - 1.
    """
    if seeds[0] < 0 or seeds[-1] > LARGEST_SEED:
        problem = f"is {seeds[0]}, and the {len(seeds)} seeds from there on must lie between 0 and {LARGEST_SEED}"
        raise UserError(
            "--seed", problem, "Take a smaller one" if seeds[-1] > LARGEST_SEED else "Take 0, or any other one"
        )


def without_brackets(tokenizer: CLIPTokenizer, prompts: Sequence[str], tokens: Sequence[str]) -> list[str]:
    """Returns a sentence for every prompt that seems to mean a concept and does not write its token.

    A word that the base model knows may be meant as such, also where a token is called like it.
    """
    found = []
    for prompt in prompts:
        for token in tokens:
            name = re.escape(token[1:-1])
            is_there = re.search(rf"(?<![<\w]){name}(?![>\w])", prompt, re.IGNORECASE)
            if is_there and len(tokenizer.tokenize(token[1:-1])) > 1:
                found.append(f"{prompt!r} says {is_there[0]} without brackets, which is not the concept {token}")
    return found
