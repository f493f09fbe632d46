"""How much is drawn for an evaluation, and how."""

from __future__ import annotations

from dataclasses import dataclass

from cns_lightning.sequences.templates import DEFAULT_TEMPLATES, PromptTemplates


@dataclass(frozen=True)
class EvaluationSettings:
    """How much is drawn and how.

    Attributes:
        pictures: number of pictures of every prompt after the last stage; the seeds are 0, 1, ... for every method.
        matrix_pictures: number of pictures of every single prompt after each earlier stage; 0 leaves the matrix out.
        untouched: prompts that name no concept, whose pictures should stay as they are.
        steps: number of steps of the sampler.
        guidance: scale of classifier-free guidance.
        batch_size: pictures drawn at once.
        names_class_word: whether the method's prompts say what a concept is.
        fusion: facts that the fused weights depend on besides the concepts; empty where nothing is fused.
        look_alikes: pictures of every class of a learned concept, for the gallery of `identity_scores`; 0 leaves a
            gallery of the user's photos alone.
        templates: training templates of the run, from which the prompts of the classes are made.
        precision: in which the base model is held; pictures drawn in another one are not these.
    """

    pictures: int = 4
    matrix_pictures: int = 1
    untouched: tuple[str, ...] = ()
    steps: int = 25
    guidance: float = 7.5
    batch_size: int = 8
    names_class_word: bool = True
    fusion: str = ""
    look_alikes: int = 8
    templates: PromptTemplates = DEFAULT_TEMPLATES
    precision: str = "float32"

    def drawn_by(self, model: str) -> str:
        """Returns what tells pictures of a state of the model apart from others, by its fingerprint."""
        return model if self.precision == "float32" else f"{model} in {self.precision}"
