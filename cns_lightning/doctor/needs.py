"""How much memory and disk a run takes: estimates from the sizes of the base model and the settings.

What autograd keeps of the UNet is counted block by block, with its weights frozen:

    residual block   3 x inputs + 3 x outputs      norm, activation and convolution, twice
    transformer      (3 + 21 a layer) x channels   norm, two projections; a layer: three norms, queries, keys, values
                                                   and result of one attention, queries and result of the other,
                                                   and three tensors of four times the channels

Stable Diffusion 1.5 (512 pixels, float32) comes to 1.39 GiB a picture, where autograd keeps 1.37, and SDXL (1024) to
9.9 GiB, where it keeps 9.5: counted with `torch.autograd.graph.saved_tensors_hooks` on models without data. A step of
the former took 1.8 GiB beside its weights on a processor. Attention is taken to be computed without its matrix of
weights, as torch does on GPUs and processors alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cns_lightning.diffusion.loading import WITH_WEIGHTS
from cns_lightning.diffusion.sampling import DECODED_TOGETHER
from cns_lightning.diffusion.sheets import READABLE
from cns_lightning.methods.quadratic_form import BLOCK_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cns_lightning.doctor.base_parts import BaseParts
    from cns_lightning.runs.config import RunConfig

PADDED = 1.3
"""Times the square of the mean number of a row's entries: rows differ, and are padded."""
MARGIN = 1.25
"""Times what autograd keeps: gradients on their way, and the room that convolutions work in."""
CHECKPOINTED = 0.35
"""Share that is kept when blocks are computed again."""
MIXED = 0.66
"""Share that is kept in mixed precision: norms keep single precision."""
PROCESS = 0.6e9
"""Bytes that a process takes for torch and its libraries, or on a GPU for its context."""
DRAWN_AT_ONCE = 8
"""Pictures of a sheet that are decoded at once, where they are not large (`diffusion.sampling.generate_pairs`)."""
DECODED = 3
"""Pictures of as many channels as the decoder's last but one level has, that are there at once where it is widest."""
NEURONS = 0.06
"""Share of the key and value weights that is trained where neurons are selected."""
SHEET_BYTES = 2.0
"""Bytes of a sheet's PNG for a pixel of its pictures."""
TABLES = 5e6
"""Bytes of config, metrics, log and report, without its pictures."""


@dataclass(frozen=True)
class UNetSize:
    """Sizes of a UNet.

    Attributes:
        kept: numbers that autograd keeps for one picture.
        key_value: key and value weights of the cross-attention.
    """

    kept: int
    key_value: int


def size_of(parts: BaseParts) -> UNetSize | None:
    """Returns the sizes of a base model's UNet; None where its files do not tell, or it is built in another way."""
    try:
        return unet_size(parts.configs["unet"]) if parts.resolution is not None else None
    except (LookupError, TypeError, ValueError):
        return None


def unet_size(config: dict[str, Any]) -> UNetSize:
    """Returns the sizes of a UNet by its configuration, that of a diffusers ``UNet2DConditionModel``.

    Raises:
        LookupError, TypeError or ValueError: if the blocks are not those of Stable Diffusion, of any number and width.
    """
    channels, size = config["block_out_channels"], config["sample_size"]
    side, width = int(size if isinstance(size, int) else size[0]), config.get("cross_attention_dim") or 0
    kept = key_value = 0
    for level, incoming, depth in _blocks(config):
        cells, outgoing = (side >> level) ** 2, channels[level]
        kept += cells * 3 * (incoming + outgoing)
        if depth:
            kept += cells * outgoing * (3 + 21 * depth)
            key_value += 2 * depth * outgoing * width
    return UNetSize(kept, key_value)


def _blocks(config: dict[str, Any]) -> Iterator[tuple[int, int, int]]:
    """Yields level, incoming channels and transformer layers of every residual block, in order."""
    channels = config["block_out_channels"]
    last = len(channels) - 1
    layers = _per_level(config.get("layers_per_block", 2), len(channels))
    depths = _per_level(config.get("transformer_layers_per_block", 1), len(channels))
    incoming, skips = channels[0], [channels[0]]
    for level, name in enumerate(config["down_block_types"]):
        for _ in range(layers[level]):
            yield level, incoming, depths[level] if "CrossAttn" in name else 0
            incoming = channels[level]
            skips.append(incoming)
        if level < last:
            skips.append(incoming)
    yield last, incoming, depths[last]
    yield last, incoming, 0
    for level, name in zip(range(last, -1, -1), config["up_block_types"], strict=True):
        for _ in range(layers[level] + 1):
            yield level, incoming + skips.pop(), depths[level] if "CrossAttn" in name else 0
            incoming = channels[level]


def _per_level(value: Any, levels: int) -> list[int]:
    return list(value) if isinstance(value, list | tuple) else [int(value)] * levels


@dataclass(frozen=True)
class Settings:
    """Settings of a run that decide how much it takes.

    Attributes:
        concepts: concepts that are still to be learned.
        batch: pictures of the concept in a step on one device.
        sheet: pictures of a concept on the sheet after a stage; 0 for no sheets.
        is_half: whether the base model is loaded in half precision.
        precision: Lightning's word for the precision of a step.
        checkpointing: whether the UNet's blocks are computed again.
        share: share of the key and value weights that is trained.
        fuses: whether the weights after each stage are kept.
        snapshots: registries that are kept beside the run's.
        per_picture: pictures that a step takes for each of the concept's: two where it takes one of the class as well.
    """

    concepts: int
    batch: int
    sheet: int
    is_half: bool = False
    precision: str = "32-true"
    checkpointing: bool = False
    share: float = NEURONS
    fuses: bool = False
    snapshots: int = 0
    per_picture: int = 1

    @classmethod
    def of(cls, config: RunConfig, concepts: int) -> Settings:
        """Reads the settings of a run.

        Args:
            config: configuration of the run.
            concepts: concepts that are still to be learned.

        Raises:
            UserError: if the method does not exist.
        """
        (method, _), model, data = config.method(), config.whole["model"], config.data
        with_class = bool(method.prior_weight and data["prior"]["pictures"])
        return cls(
            concepts=concepts,
            batch=data["batch_size"],
            sheet=config.samples.get("pictures", 0),
            is_half=model["base_dtype"] != "float32",
            precision=str(config.whole["trainer"].get("precision") or "32-true"),
            checkpointing=model["gradient_checkpointing"],
            share=NEURONS if method.needs_neurons else 1.0,
            fuses=method.fuses,
            snapshots=len((config.whole.get("snapshots") or {}).get("steps") or ()),
            per_picture=2 if with_class else 1,
        )


@dataclass(frozen=True)
class MemoryNeeds:
    """Bytes of memory on the device of one process; an estimate.

    Attributes:
        weights: bytes of the base model's weights and of what training keeps beside them.
        activations: what a step keeps and works in.
        drawing: what drawing a sheet of samples works in.
    """

    weights: float
    activations: float
    drawing: float

    @property
    def training(self) -> float:
        """Bytes while a step is taken."""
        return PROCESS + self.weights + self.activations

    @property
    def sampling(self) -> float:
        """Bytes while samples are drawn."""
        return PROCESS + self.weights + self.drawing

    @property
    def peak(self) -> float:
        """Bytes at the most."""
        return max(self.training, self.sampling)


def memory_needs(parts: BaseParts, settings: Settings) -> MemoryNeeds | None:
    """Returns the memory that a run needs on each device; None where the base model's files do not tell."""
    size, resolution, width = size_of(parts), parts.resolution, 2 if settings.is_half else 4
    if size is None or resolution is None or not {"unet", "vae"} <= parts.numbers.keys():
        return None
    weights = sum(parts.numbers.get(name, 0) for name in WITH_WEIGHTS) * width
    # Two copies of the movable matrices; of what is trained the values, their gradient, two moments, their places.
    weights += size.key_value * (8 + settings.share * 24)
    if settings.share < 1:
        # The blocks of L_reg, a square of a row's entries for every row; and the places of entries without blocks.
        columns = parts.configs["unet"]["cross_attention_dim"]
        blocks = PADDED * 4 * size.key_value * columns * settings.share**2
        weights += min(blocks, BLOCK_BYTES) + (16 * settings.share * size.key_value if blocks > BLOCK_BYTES else 0)
    kept = size.kept * settings.batch * settings.per_picture * (CHECKPOINTED if settings.checkpointing else 1) * 4
    if "mixed" in settings.precision:
        kept *= MIXED
        # Frozen weights are cast anew at every operation, and kept for the way back.
        if not settings.is_half and not settings.checkpointing:
            weights += parts.numbers["unet"] * 2
    elif settings.is_half or settings.precision in ("bf16-true", "16-true"):
        kept /= 2
    channels = parts.configs["vae"].get("block_out_channels", [64])
    at_once = DRAWN_AT_ONCE if resolution <= 8 * DECODED_TOGETHER else 1
    drawn = min(at_once, settings.sheet * (settings.concepts + 1))
    drawing = drawn * DECODED * channels[min(1, len(channels) - 1)] * resolution**2 * width
    return MemoryNeeds(weights, MARGIN * kept, MARGIN * drawing)


def disk_needs(parts: BaseParts, settings: Settings) -> tuple[float, float] | None:
    """Returns the bytes that a run writes into its folder before its first concept is learned, and in all.

    None where the base model's files do not tell.
    """
    size, resolution = size_of(parts), parts.resolution
    if size is None or resolution is None:
        return None
    movable, count = size.key_value, settings.concepts
    mask, values = movable / 8, movable * settings.share
    concept, checkpoint = mask + 2 * values, mask + 12 * values  # values and two moments
    registry = count * concept * (1 + settings.snapshots) + mask
    checkpoints = 3 * checkpoint  # the newest, the one before, and the one that is being written
    fused = 4 * movable * count if settings.fuses else 0
    rows = sum(range(2, count + 2))
    sheets = rows * settings.sheet * SHEET_BYTES * max(resolution, READABLE) ** 2
    # The report holds the sheets' pictures again.
    return concept + checkpoint, registry + checkpoints + fused + 1.5 * sheets + TABLES


def gigabytes(count: float) -> str:
    """Formats bytes as gigabytes, or megabytes where they are few."""
    return f"{count / 1e9:.1f} GB" if count >= 0.95e8 else f"{math.ceil(count / 1e6)} MB"
