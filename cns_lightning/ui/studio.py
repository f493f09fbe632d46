"""Draws what the page asks for, one request at a time, with the model loaded once."""

from __future__ import annotations

import shlex
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from cns_lightning.drawing.request import without_brackets
from cns_lightning.errors import RunStopped, UserError
from cns_lightning.ui.cards import concept_cards
from cns_lightning.ui.form import on_the_page

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import Image

    from cns_lightning.drawing.request import DrawingRequest
    from cns_lightning.pipeline import RunModel
    from cns_lightning.ui.form import Form


@dataclass(frozen=True)
class Drawn:
    """What came of a request.

    Attributes:
        pictures: the pictures with their seeds; empty where something was wrong.
        command: command line that draws the same; empty where something was wrong.
        problems: what was wrong, a sentence a problem.
        notes: what a user might want to know, a sentence each.
    """

    pictures: list[tuple[Image.Image, int]] = field(default_factory=list)
    command: str = ""
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Studio:
    """Draws with the model of a run.

    Args:
        model: the run's model, whose stage and strengths are the studio's to change.
        start: words of the command line in front of what a request adds, such as ``generate --run DIR``.
        batch_size: pictures drawn at once.
    """

    def __init__(self, model: RunModel, start: Sequence[str], batch_size: int = 8) -> None:
        self.model, self.start, self.batch_size = model, list(start), batch_size
        self.cards = concept_cards(model.folder, model.registry)
        self._drawing = threading.Lock()
        self._stopped = False

    def draw(self, form: Form) -> Drawn:
        """Draws, or says in sentences what is wrong."""
        request: DrawingRequest | None = None
        try:
            request = form.request(self.cards, self.batch_size)
            request.check(self.model.registry)
            with self._drawing:
                pipe = self.model.after(request.upto, request.strengths)
                notes = without_brackets(pipe.tokenizer, request.texts(), self.model.registry.tokens)
                pictures = request.draw(pipe, self.model.folder, self._between_batches)
        except UserError as error:
            return Drawn(problems=on_the_page(error, request))
        except RunStopped as stopped:
            return Drawn(problems=[str(stopped)])
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            problem = f"memory: does not suffice for {self.batch_size} pictures at once"
            return Drawn(problems=[f"{problem}. Start the page with a smaller --batch-size, or draw fewer pictures"])
        return Drawn(list(zip(pictures, request.seeds, strict=True)), self.command(request), notes=notes)

    def command(self, request: DrawingRequest) -> str:
        """Returns the command line that draws the same pictures, for a shell."""
        return shlex.join([*self.start, *request.words()])

    def stop(self) -> None:
        """Ends a drawing that is under way as soon as its sampler's step is done."""
        self._stopped = True
        # What stock pipelines look at in every step.
        self.model.pipe._interrupt = True  # type: ignore[attr-defined]

    def _between_batches(self, _: int, __: int) -> None:
        if self._stopped:
            raise RunStopped("The page was closed")
