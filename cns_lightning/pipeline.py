"""From a run folder to a plain diffusers pipeline that knows the learned concepts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from cns_lightning.diffusion.base_model import BaseModel
from cns_lightning.diffusion.cross_attention import key_value_projections
from cns_lightning.diffusion.projections import read_weights, write_weights
from cns_lightning.registry.fused import weights_after
from cns_lightning.registry.registry import NeuronRegistry
from cns_lightning.runs.config import RunConfig
from cns_lightning.runs.folder import RunFolder

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


def load_pipeline(
    run_dir: Path | str,
    upto: str | None = None,
    base_model: str | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    snapshot: int | None = None,
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

    Raises:
        UserError: if the folder is not a run folder or damaged, there is no such concept or snapshot, or the base model
            is not to be found or is another one.
    """
    folder = RunFolder.existing(Path(run_dir))
    registry = NeuronRegistry.load(folder.registry if snapshot is None else folder.snapshot(snapshot))
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
        write_weights(pipe, weights_after(count, folder, registry, method, base, pretrained, snapshot is None))
    base.to(dtype=dtype, device=device)
    return pipe
