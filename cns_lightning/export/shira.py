"""``shira``: the moved weights alone, as an adapter of peft (SHiRA, arXiv 2406.13175); nothing is lost.

peft wants as many values in a layer as a LoRA of rank r would have, r (rows + columns), with one r for all layers. r is
the lowest that has room for every layer's moved weights; what is left over points at weights that do not move, and
adds zero.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from cns_lightning.errors import UserError
from cns_lightning.export.card import Card, write_card
from cns_lightning.export.folder import fresh_folder
from cns_lightning.export.metadata import packed
from cns_lightning.export.package import DTYPES, said_of_bits
from cns_lightning.export.pictures import SamplePictures
from cns_lightning.export.tokens import token_stems
from cns_lightning.export.vectors import base_lines, loading_lines, write_learned_embeds
from cns_lightning.storage import write_atomically, write_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from cns_lightning.export.learned import Learned
    from cns_lightning.export.package import PackageOptions, Say

FORMAT = "shira"
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
PREFIX = "base_model.model."
SINCE = "0.17"
"""First version of peft with SHiRA."""


@dataclass(frozen=True)
class SparseAdapter:
    """A delta as peft keeps it.

    Attributes:
        rank: r of all layers.
        modules: names of the adapted projections.
        tensors: for each ``shira_weight`` (n,) and ``shira_indices`` (2, n), int32, n = r (rows + columns).
        moved: number of values that are not zero.
    """

    rank: int
    modules: tuple[str, ...]
    tensors: dict[str, Tensor]
    moved: int


def export_shira(learned: Learned, options: PackageOptions, base_model: str | None, say: Say) -> list[str]:
    """Writes an adapter folder of peft, with the tokens beside it.

    Args:
        learned: the exported concepts.
        options: what the user chose.
        base_model: where the base model is now; None where the run had it.
        say: tells how things stand.

    Returns:
        Lines for the user, the next step last.

    Raises:
        UserError: if too many weights move for the format, files are damaged or in the way, or cannot be written.
    """
    learned.check_moves_weights("--format shira")
    model = learned.load(base_model)
    delta = model.delta()
    adapter = sparse_adapter(delta, DTYPES[options.dtype])
    exactness = f"rounded to {options.dtype}"
    if options.dtype == "float32":
        exactness = f"merged, {said_of_bits(model.count_inexact(delta))}"
    stems = token_stems([each.token for each in learned.concepts], model.base.tokenizers[0])
    facts = {"base_fingerprint": learned.registry.base_fingerprint, "stems": stems}
    say(f"writing {WEIGHTS}")
    with fresh_folder(options.out, FORMAT, facts) as folder:
        data = packed(adapter.tensors, {})
        write_atomically(folder / WEIGHTS, data)
        write_json(folder / CONFIG, adapter_config(adapter, model.base_hub_id, learned.registry.source.revision))
        write_learned_embeds(folder, learned, stems)
        use = "\n".join(
            [
                "In this folder:",
                "",
                "```python",
                "from diffusers import DiffusionPipeline",
                f"from peft import PeftModel  # {SINCE} or newer",
                *base_lines(model),
                'pipe.unet = PeftModel.from_pretrained(pipe.unet, ".").merge_and_unload()',
                *loading_lines(learned, stems),
                f'pipe("{learned.concepts[-1].prompt}").images[0]',
                "```",
            ]
        )
        card = Card(
            options.name, use, stems, options.licence, ("text-to-image", "peft", "shira"), _notes(adapter, exactness)
        )
        write_card(folder, model, card, SamplePictures.of(learned))
    places = sum(len(each) for name, each in adapter.tensors.items() if name.endswith("shira_weight"))
    return [
        f"{options.out / WEIGHTS}: {len(data) / 1e6:.1f} MB, r {adapter.rank}, {adapter.moved:,} moved weights in "
        f"{places:,} places; {exactness}",
        f"next: pip install 'peft>={SINCE}', then the lines of Python in {options.out}/README.md",
    ]


def _notes(adapter: SparseAdapter, exactness: str) -> dict[str, str]:
    text = (
        f"{adapter.moved:,} weights move; peft keeps {adapter.rank} x (rows + columns) of every matrix, and those "
        f"that do not move add zero; {exactness}."
    )
    return {"SHiRA": text}


def sparse_adapter(delta: Mapping[str, Tensor], dtype: torch.dtype = torch.float32) -> SparseAdapter:
    """Keeps the entries of a delta that are not zero, as many in every layer as peft asks for.

    Args:
        delta: differences by parameter name of the UNet, float32, shape (out, in); layers of zeros are left out.
        dtype: precision of the values.

    Raises:
        UserError: if some layer has no room for so many values.
    """
    moved = {name: int(torch.count_nonzero(each)) for name, each in delta.items()}
    kept = [name for name, count in moved.items() if count]
    rank = max((math.ceil(moved[name] / sum(delta[name].shape)) for name in kept), default=0)
    full = [name for name in kept if rank * sum(delta[name].shape) > delta[name].numel()]
    if not kept:
        raise UserError("--format shira", "the exported concepts move no weight", "Use --format diffusers or webui")
    if full:
        share = sum(moved.values()) / sum(each.numel() for each in delta.values())
        problem = f"{share:.0%} of the weights move, and SHiRA is for few: {len(full)} matrices have too few entries"
        raise UserError("--format shira", problem, "Use --format webui, or lora with --rank")
    tensors: dict[str, Tensor] = {}
    for name in kept:
        matrix = delta[name]
        flat = matrix.reshape(-1)
        places = flat.nonzero().flatten()
        spare = (flat == 0).nonzero().flatten()[: rank * sum(matrix.shape) - len(places)]
        places = torch.cat([places, spare]).sort().values
        module = f"{PREFIX}{name.removesuffix('.weight')}"
        tensors[f"{module}.shira_weight"] = flat[places].to(dtype)
        columns = matrix.shape[1]
        tensors[f"{module}.shira_indices"] = torch.stack([places // columns, places % columns]).int()
    modules = tuple(name.removesuffix(".weight") for name in kept)
    return SparseAdapter(rank, modules, tensors, sum(moved.values()))


def adapter_config(adapter: SparseAdapter, base_hub_id: str | None, revision: str | None = None) -> dict[str, object]:
    """Returns the content of ``adapter_config.json``.

    Args:
        adapter: the adapter.
        base_hub_id: hub id of the base model; None where it has none.
        revision: revision of its repository, if it was asked for.
    """
    return {
        "peft_type": "SHIRA",
        "auto_mapping": {
            "base_model_class": "UNet2DConditionModel",
            "parent_library": "diffusers.models.unets.unet_2d_condition",
        },
        "base_model_name_or_path": base_hub_id,
        "inference_mode": True,
        "r": adapter.rank,
        # peft draws a mask before it reads ours; with a seed of its own it leaves the global random state alone.
        "mask_type": "random",
        "random_seed": 0,
        "target_modules": list(adapter.modules),
        "fan_in_fan_out": False,
        "init_weights": True,
        "modules_to_save": None,
        "task_type": None,
        "revision": revision,
    }
