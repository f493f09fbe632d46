"""The miniature: a tiny base model and the picture world it knows."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path


def base_model_path() -> Path:
    """Returns the folder of the base model, a plain diffusers pipeline."""
    return Path(str(files("cns_lightning") / "miniature" / "weights" / "base"))


def judge_path() -> Path:
    """Returns the folder of the judge, a plain transformers CLIPModel with its processor."""
    return Path(str(files("cns_lightning") / "miniature" / "weights" / "judge"))
