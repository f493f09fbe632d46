"""Pictures of an evaluation, on disk; each carries what it was drawn from: none is drawn twice or trusted wrongly."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from cns_lightning.diffusion.sampling import generate_pairs
from cns_lightning.storage import sha256_of_facts, write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from diffusers import DiffusionPipeline

    from cns_lightning.evaluation.questions import Question

KEY = "drawn_from"


class PictureFolder:
    """The pictures of one state of a model.

    Args:
        folder: folder of the pictures.
        model: fingerprint of the state.
        steps: number of steps of the sampler.
        guidance: scale of classifier-free guidance.
    """

    def __init__(self, folder: Path, model: str, steps: int, guidance: float) -> None:
        self.folder, self.model, self.steps, self.guidance = folder, model, steps, guidance

    def path(self, question: Question, seed: int) -> Path:
        """Returns the place of a picture."""
        return self.folder / f"{question.group}-{question.number:02d}-seed-{seed}.png"

    def key(self, question: Question, seed: int) -> str:
        """Returns the checksum of all that a picture is drawn from."""
        facts = [self.model, question.prompt, seed, self.steps, self.guidance]
        return sha256_of_facts(facts)

    def missing(self, wanted: Sequence[tuple[Question, int]]) -> list[tuple[Question, int]]:
        """Lists the pictures that are not there, or were drawn from something else."""
        return [pair for pair in wanted if self._found(*pair) is None]

    def _found(self, question: Question, seed: int) -> Image.Image | None:
        try:
            with Image.open(self.path(question, seed)) as picture:
                picture.load()
                return picture if picture.info.get(KEY) == self.key(question, seed) else None
        except (OSError, SyntaxError):  # missing, or cut short: Pillow says SyntaxError of a broken PNG
            return None

    def draw(
        self,
        pipe: DiffusionPipeline,
        pairs: Sequence[tuple[Question, int]],
        batch_size: int,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Draws pictures and writes each batch as soon as it is done.

        Raises:
            UserError: if they cannot be written.
        """
        for start in range(0, len(pairs), batch_size):
            batch = pairs[start : start + batch_size]
            drawn = generate_pairs(
                pipe, [(question.prompt, seed) for question, seed in batch], self.steps, self.guidance, batch_size
            )
            for (question, seed), picture in zip(batch, drawn, strict=True):
                self.write(question, seed, picture)
            if progress is not None:
                progress(start + len(batch), len(pairs))

    def write(self, question: Question, seed: int, picture: Image.Image) -> None:
        """Writes a picture with its prompt and the checksum of what it was drawn from.

        Raises:
            UserError: if it cannot be written.
        """
        note = PngInfo()
        note.add_text(KEY, self.key(question, seed))
        note.add_text("prompt", question.prompt)
        buffer = io.BytesIO()
        picture.save(buffer, "PNG", pnginfo=note)
        write_atomically(self.path(question, seed), buffer.getvalue())

    def read(self, pairs: Sequence[tuple[Question, int]]) -> list[Image.Image]:
        """Reads pictures that are all there.

        Raises:
            FileNotFoundError: if one is not, or is another.
        """
        pictures = []
        for question, seed in pairs:
            picture = self._found(question, seed)
            if picture is None:
                raise FileNotFoundError(f"{self.path(question, seed)} is not what was asked for")
            pictures.append(picture)
        return pictures
