"""The weights after some concepts: added up from the registry, or fused by the method and kept in the run folder."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from cns_lightning.storage import read_tensors, sha256_of_facts, write_tensors

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from cns_lightning.diffusion.base_model import BaseModel
    from cns_lightning.methods.base import Method
    from cns_lightning.registry.registry import NeuronRegistry
    from cns_lightning.runs.folder import RunFolder

KEY, SECONDS = "fused_from", "seconds"


def fusion_facts(method: Method) -> dict[str, str]:
    """Returns what fused weights depend on besides the concepts, as text by name."""
    return {name: repr(value) for name, value in sorted(method.fusion_settings().items())}


def fusion_text(method: Method) -> str:
    """Returns the same in one text; empty where concepts add up."""
    return json.dumps(fusion_facts(method)) if method.fuses else ""


def weights_after(
    count: int,
    folder: RunFolder,
    registry: NeuronRegistry,
    method: Method | None,
    base: BaseModel,
    base_weights: Mapping[str, Tensor],
    write: bool = True,
    strengths: Mapping[str, float] | None = None,
) -> dict[str, Tensor]:
    """Returns the key and value weights after the first concepts of a run.

    Fused weights are kept in ``fused/``, with what they were made of and the seconds it took; they are made anew when
    they are missing or stale.

    Args:
        count: number of concepts, at least one.
        folder: folder of the run.
        registry: the concepts.
        method: the method that learned them, with its settings; None where it does not fuse them.
        base: the base model, which knows the concepts' tokens.
        base_weights: pretrained, float32, on the CPU.
        write: whether this process writes files.
        strengths: factors on what concepts add, by token; 1 for those that are not named. Concepts that are fused have
            none.

    Raises:
        UserError: if files are missing, damaged or cannot be written, or there is no concept of a token.
    """
    entries = registry.entries[:count]
    if method is None or not method.fuses:
        return registry.weights(entries[-1].token, base_weights, strengths)
    path = folder.fused_after(count)
    facts = [registry.base_fingerprint, [entry.sha256 for entry in entries], fusion_facts(method)]
    key = sha256_of_facts(facts)
    if path.exists():
        tensors, found = read_tensors(path)
        if found.get(KEY) == key:
            return tensors
    begin = time.monotonic()
    fused = method.fuse([registry.record(entry.token) for entry in entries], base, base_weights)
    if write:
        write_tensors(path, fused, {KEY: key, SECONDS: f"{time.monotonic() - begin:.3f}"})
    return fused
