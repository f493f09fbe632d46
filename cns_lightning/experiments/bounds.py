"""The bounds of a comparison that need no learning: the class word and the descriptions, drawn by the base model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cns_lightning.diffusion.devices import available_device
from cns_lightning.evaluation.anchors import base_model_scores
from cns_lightning.evaluation.judges import clip_encoder, dino_encoder
from cns_lightning.evaluation.settings import EvaluationSettings
from cns_lightning.experiments.comparison import ALONE, CLASS_WORD_FOLDER, IN_WORDS_FOLDER
from cns_lightning.experiments.table import scores_of
from cns_lightning.registry.application import load_base
from cns_lightning.registry.registry import NeuronRegistry
from cns_lightning.runs.config import RunConfig
from cns_lightning.runs.folder import RunFolder
from cns_lightning.sequences.sequence import Sequence
from cns_lightning.storage import read_json, write_json

if TYPE_CHECKING:
    from cns_lightning.experiments.comparison import Run


def bounds_of(name: str, runs: list[Run], out: Path) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Scores what the base model draws for one set without learning, with the settings of the set's first run.

    Returns:
        The scores of the class words; those of the descriptions, or None where a concept of the set has none.
    """
    own = [run for run in runs if run.set_name == name and run.method != ALONE]
    first, folder = own[0], RunFolder(own[0].folder)
    known = read_json(folder.evaluation / "scores.json")
    curve_pictures = max(scores_of(run).get("curve_pictures", 0) for run in own)
    settings = EvaluationSettings(
        pictures=known["pictures"],
        steps=known["steps"],
        guidance=known["guidance"],
        look_alikes=known["look_alikes"],
        templates=RunConfig.read(folder).templates,
    )
    device, place = available_device(None), out / CLASS_WORD_FOLDER / name
    place_in_words = out / IN_WORDS_FOLDER / name
    base = load_base(NeuronRegistry.load(folder.registry))
    base.to(device=device)
    sequence, judge = Sequence.read(Path(first.sequence)), clip_encoder(known["judge"], device)
    dino = dino_encoder(known["dino"], device)
    scores = base_model_scores(place / "images", sequence, base, settings, judge, dino, curve_pictures)
    write_json(place / "scores.json", scores)
    if not all(concept.description for concept in sequence.concepts):
        return scores, None
    in_words = base_model_scores(place_in_words / "images", sequence, base, settings, judge, dino, in_words=True)
    write_json(place_in_words / "scores.json", in_words)
    return scores, in_words
