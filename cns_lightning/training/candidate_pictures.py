"""Pictures of the model as it would be if the stage that has just ended kept one record or another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from cns_lightning.diffusion.sampling import generate_pairs

if TYPE_CHECKING:
    from PIL import Image

    from cns_lightning.module import ContinualPersonalization
    from cns_lightning.registry.record import ConceptRecord


@torch.no_grad()
def draw_candidate(
    module: ContinualPersonalization,
    record: ConceptRecord | None,
    pairs: list[tuple[str, int]],
    steps: int,
    guidance: float,
) -> list[Image.Image]:
    """Draws pictures for prompts and seeds; every rank must call it, draws its share and gets all.

    Args:
        module: module whose stage has ended and is not folded; its method adds concepts up.
        record: what the stage would keep; None draws with the model as it was before the stage.
        pairs: prompts and seeds.
        steps: number of steps of the sampler.
        guidance: scale of classifier-free guidance.
    """
    if record is not None:
        weights = {name: weight.clone() for name, weight in module.weights.items()}
        record.add_to(weights)
        module.tokens.set(record.token, record.embeddings)
        module.overrides.set({name: weight.to(module.device) for name, weight in weights.items()})
    rank, ranks = module.trainer.global_rank, module.trainer.world_size
    try:
        drawn = generate_pairs(module.base.pipeline(), pairs[rank::ranks], steps, guidance)
    finally:
        module.overrides.clear()
    if ranks == 1:
        return drawn
    shares: list[Any] = [None] * ranks
    torch.distributed.all_gather_object(shares, drawn)
    return [shares[number % ranks][number // ranks] for number in range(len(pairs))]
