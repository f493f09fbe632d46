"""What scores were computed with, so that two tables can be told to be comparable."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from cns_lightning.evaluation.questions import TEXT_RULE
from cns_lightning.storage import fingerprint

if TYPE_CHECKING:
    from cns_lightning.evaluation.dino import DinoEncoder
    from cns_lightning.evaluation.metrics import ClipEncoder

PACKAGES = ("torch", "diffusers", "transformers", "torchmetrics", "pillow", "cns_lightning")
PROCESSOR_KEYS = ("size", "crop_size", "image_mean", "image_std")


def scored_with(name: str, judge: ClipEncoder, dino_name: str | None, dino: DinoEncoder | None) -> dict[str, Any]:
    """Returns what identifies the scores of an evaluation besides the pictures.

    Args:
        name: name of the judge, as it was given.
        judge: judge of CLIP-I and CLIP-T.
        dino_name: name of the DINO model, as it was given; None without one.
        dino: DINO model; None without one.

    Returns:
        ``judge``, ``judge_sha256`` of its weights, ``processor`` with its settings, ``text_rule`` and ``versions``;
        with a DINO model also ``dino``, ``dino_sha256`` and ``dino_processor``.
    """
    found: dict[str, Any] = {**_encoder("judge", "processor", name, judge), "text_rule": TEXT_RULE}
    if dino_name is not None and dino is not None:
        found |= _encoder("dino", "dino_processor", dino_name, dino)
    return {**found, "versions": versions()}


def judged_by(name: str, judge: ClipEncoder) -> dict[str, Any]:
    """Returns the name of a judge, the SHA-256 of its weights and the versions of the packages that score."""
    return {"judge": name, "judge_sha256": _fingerprint(judge), "versions": versions()}


def versions() -> dict[str, str | None]:
    """Returns the versions of the packages that scores depend on; None for a package that runs without installation."""
    return {package: _version(package) for package in PACKAGES}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:  # This package, in a checkout that is not installed.
        return None


def _encoder(key: str, processor_key: str, name: str, encoder: ClipEncoder | DinoEncoder) -> dict[str, Any]:
    processor: Any = encoder.processor
    # Sizes are objects of transformers that look like mappings.
    settings = {each: _plain(getattr(processor, each)) for each in PROCESSOR_KEYS}
    return {
        key: name,
        f"{key}_sha256": _fingerprint(encoder),
        processor_key: {"class": type(processor).__name__, **settings},
    }


def _fingerprint(encoder: ClipEncoder | DinoEncoder) -> str:
    # Parameters alone: which buffers a model saves changes between versions of transformers.
    return fingerprint(dict(encoder.model.named_parameters()))


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return list(value)
    return {side: length for side, length in dict(value).items() if length is not None}
