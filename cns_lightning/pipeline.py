"""From a run folder to a plain diffusers pipeline that knows the learned concepts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from cns_lightning.diffusion.base_model import BaseModel
from cns_lightning.diffusion.cross_attention import key_value_projections
from cns_lightning.diffusion.projections import read_weights, write_weights
from cns_lightning.errors import UserError
from cns_lightning.registry.fused import weights_after
from cns_lightning.registry.registry import NeuronRegistry
from cns_lightning.runs.config import RunConfig
from cns_lightning.runs.folder import RunFolder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from diffusers import DiffusionPipeline


def load_pipeline(
    run_dir: Path | str,
    upto: str | None = None,
    base_model: str | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    snapshot: int | None = None,
    strengths: Mapping[str, float] | None = None,
) -> DiffusionPipeline:
    """Loads the base model of a run and writes what was learned into it.

    Stock diffusers from then on: the tokens stand in the tokenizers, the weights in the UNet.

    Args:
        run_dir: a run folder; nothing learned yet gives the base model.
        upto: the last concept to take in; None takes all.
        base_model: where the base model is now, when it is not where the run had it.
        dtype: precision of every part; the concepts are added in float32 first.
        device: device of every part.
        snapshot: takes the concepts as they stood after so many optimizer steps of their own stages; None as they stood
            at the end. What is fused of a snapshot is not kept.
        strengths: factors on what concepts add to the weights, by token; 1 for those that are not named. Tokens stay as
            they were learned.

    Raises:
        UserError: if the folder is not a run folder or damaged, there is no such concept or snapshot, the base model is
            not to be found or is another one, or concepts are given a strength and do not add up.
    """
    folder = RunFolder.existing(Path(run_dir))
    registry = NeuronRegistry.load(folder.registry if snapshot is None else folder.snapshot(snapshot))
    check_strengths(strengths or {}, registry, upto)
    source = base_model or registry.base_model
    base = BaseModel.load(source)
    registry.check_base(base.fingerprints(), source)
    pipe = base.pipeline()
    registry.apply_tokens(pipe, upto)
    count = len(registry.tokens) if upto is None else registry.tokens.index(upto) + 1
    method, projections = None, key_value_projections(base.unet)
    if registry.fused_by is not None and count:
        kind, settings = RunConfig.read(folder).method()
        method = kind(**settings)
        projections = method.projections(base)
    if count:
        pretrained = read_weights(projections)
        # A fusion that is not kept is made on the device: it may take minutes.
        base.to(device=device)
        write_weights(
            pipe, weights_after(count, folder, registry, method, base, pretrained, snapshot is None, strengths)
        )
    base.to(dtype=dtype, device=device)
    return pipe


def check_strengths(strengths: Mapping[str, float], registry: NeuronRegistry, upto: str | None) -> None:
    """Refuses strengths that would do nothing or have no meaning.

    Raises:
        UserError: if the concepts are fused, there is none of a token, it is not taken in, or it moves no weights.
    """
    later = registry.later(upto) if upto is not None else []
    if strengths and registry.fused_by is not None:
        method = registry.fused_by.rsplit(".", 1)[-1]
        raise UserError("strength", f"{method} fuses concepts, so none of them can be weakened alone", "Leave it out")
    for token in strengths:
        if token in later:
            raise UserError(f"strength of {token}", f"the concept was learned after {upto}", "Leave --upto out")
        if registry.record(token).moved() is None:
            raise UserError(f"strength of {token}", "the concept is a token alone, it moves no weights", "Leave it out")
