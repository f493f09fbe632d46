"""Opens the registry of a run, or makes the one of a new run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cns_lightning.registry.registry import NeuronRegistry

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

    from cns_lightning.diffusion.base_model import BaseModel
    from cns_lightning.methods.base import Method
    from cns_lightning.runs.folder import RunFolder


def open_registry(
    run: RunFolder,
    method: Method,
    base: BaseModel,
    source: str,
    base_weights: Mapping[str, Tensor],
    rare_words: Callable[[], tuple[str, ...]],
    writes: bool,
) -> NeuronRegistry:
    """Loads the registry of a run that has begun, else makes a new one.

    Args:
        run: run folder.
        method: method of the run.
        base: base model.
        source: folder, file or name that the base model came from.
        base_weights: pretrained weights of the method's projections by parameter name.
        rare_words: called for a new run: words from which tokens start, best first.
        writes: whether this process writes files.

    Raises:
        UserError: if the registry is damaged, or made on another base model.
    """
    if run.has_begun() and (run.registry / "registry.json").exists():
        registry = NeuronRegistry.load(run.registry)
        registry.check_base(base.fingerprints())
        registry.move_base(source, write=writes)
        return registry
    parameters = sum(parameter.numel() for parameter in base.unet.parameters())
    kind = type(method)
    fused_by = f"{kind.__module__}.{kind.__qualname__}" if kind.fuses else None
    registry = NeuronRegistry.create(
        run.registry, source, base.fingerprint(), dict(base_weights), parameters, fused_by, rare_words()
    )
    if writes:
        registry.save()  # With base model and rare words: what goes on must not have others.
    return registry
