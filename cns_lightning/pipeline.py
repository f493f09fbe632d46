"""From a run folder to a plain diffusers pipeline that knows the learned concepts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from cns_lightning.diffusion.cross_attention import key_value_projections
from cns_lightning.diffusion.projections import read_weights, write_weights
from cns_lightning.errors import UserError
from cns_lightning.registry.application import load_base
from cns_lightning.registry.fused import weights_after
from cns_lightning.registry.registry import NeuronRegistry
from cns_lightning.runs.config import RunConfig
from cns_lightning.runs.folder import RunFolder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from diffusers import DiffusionPipeline
    from torch import Tensor


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
        base_model: where the base model is now, when it is not where the run had it; LoRA files that the run folded
            into it are folded in again.
        dtype: precision of every part; the concepts are added in float32 first.
        device: device of every part.
        snapshot: takes the concepts as they stood after so many optimizer steps of their own stages; None as they stood
            at the end. What is fused of a snapshot is not kept.
        strengths: factors on what concepts add to the weights, by token; 1 for those that are not named. Tokens stay as
            they were learned.

    Raises:
        UserError: if the folder is not a run folder or damaged, there is no such concept or snapshot, the base model is
            not to be found or is another one, a LoRA file of it is gone or has changed, or concepts are given a
            strength and do not add up.
    """
    folder = RunFolder.existing(Path(run_dir))
    registry = NeuronRegistry.load(folder.registry if snapshot is None else folder.snapshot(snapshot))
    check_strengths(strengths or {}, registry, upto)
    model = RunModel(folder, registry, base_model, device, keep_fused=snapshot is None)
    pipe = model.after(upto, strengths)
    model.base.to(dtype=dtype, device=device)
    return pipe


class RunModel:
    """The model of a run, loaded once, as it was right after any of its concepts.

    What is drawn depends on the stage and strengths asked for last, not on those before.

    Args:
        folder: folder of the run.
        registry: its concepts.
        base_model: where the base model is now, when it is not where the run had it.
        device: device of every part.
        keep_fused: whether weights that the method fuses are kept in the run folder.

    Attributes:
        base: base model, with what is folded into it.
        pretrained: pretrained weights of the projections that the run's method moves, by parameter name, on the CPU.

    Raises:
        UserError: if the base model is not to be found or is another one, or the method is not there any more.
    """

    def __init__(
        self,
        folder: RunFolder,
        registry: NeuronRegistry,
        base_model: str | None = None,
        device: torch.device | str = "cpu",
        keep_fused: bool = True,
    ) -> None:
        self.folder, self.registry, self.keep_fused = folder, registry, keep_fused
        self.base = load_base(registry, base_model)
        self.pipe = self.base.pipeline()
        self._method, projections = None, key_value_projections(self.base.unet)
        if registry.fused_by is not None and registry.tokens:
            kind, settings = RunConfig.read(folder).method()
            self._method = kind(**settings)
            projections = self._method.projections(self.base)
        self.pretrained = read_weights(projections) if registry.tokens else {}
        # A fusion that is not kept is made on the device: it may take minutes.
        self.base.to(device=device)
        # None where a stage was begun and failed.
        self._shown: tuple[int, dict[str, float]] | None = (0, {})

    def after(self, upto: str | None = None, strengths: Mapping[str, float] | None = None) -> DiffusionPipeline:
        """Writes the tokens and weights of a stage into the pipeline and returns it; later tokens stay known.

        Args:
            upto: the last concept to take in; None takes all.
            strengths: factors on what concepts add to the weights, by token; 1 for those that are not named.

        Raises:
            UserError: if there is no such concept, files are damaged, or concepts are given a strength and do not add
                up.
        """
        check_strengths(strengths or {}, self.registry, upto)
        self.registry.apply_tokens(self.pipe, upto)
        count = len(self.registry.tokens) - (0 if upto is None else len(self.registry.later(upto)))
        asked = (count, dict(strengths or {}))
        if asked == self._shown:
            return self.pipe
        if self._method is not None and self._shown != (0, {}):
            # Concepts are fused on the pretrained model, whatever was shown before.
            write_weights(self.pipe, self.pretrained)
        self._shown = None
        write_weights(self.pipe, self.weights_after(count, strengths))
        self._shown = asked
        return self.pipe

    def weights_after(self, count: int, strengths: Mapping[str, float] | None = None) -> dict[str, Tensor]:
        """Returns the weights after the first concepts; see `cns_lightning.registry.fused.weights_after`."""
        return weights_after(
            count, self.folder, self.registry, self._method, self.base, self.pretrained, self.keep_fused, strengths
        )


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
