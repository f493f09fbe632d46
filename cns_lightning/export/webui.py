"""``webui``: the delta itself, dense, in the one spelling that ComfyUI, A1111, Forge and InvokeAI all place.

Each of them adds ``strength * diff`` to the weight.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import torch

from cns_lightning.export.package import Encoded, PackageOptions, Say, check_package, network_key, write_package

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from cns_lightning.export.learned import Learned

FORMAT = "webui"
LARGE = 200_000_000
"""Bytes from which on other formats are named beside this one."""


def export_webui(learned: Learned, options: PackageOptions, base_model: str | None, say: Say) -> list[str]:
    """Writes weight files of differences, and one file per token.

    Args:
        learned: the exported concepts.
        options: what the user chose.
        base_model: where the base model is now; None where the run had it.
        say: tells how things stand.

    Returns:
        Lines for the user, the next step last.

    Raises:
        UserError: if the concepts cannot be exported so, files are damaged or in the way, or cannot be written.
    """
    check_package(learned, options)
    return write_package(learned.load(base_model), FORMAT, options, encode_differences, say)


def encode_differences(delta: Mapping[str, Tensor], dtype: torch.dtype) -> Encoded:
    """Returns a delta under the keys that programs add to their weights.

    Args:
        delta: differences by parameter name, float32, each of its weight's shape (out, in).
        dtype: precision of the file.
    """
    tensors = difference_tensors(delta, dtype)
    network = {"ss_network_module": "lycoris.kohya", "ss_network_args": json.dumps({"algo": "full"})}
    return Encoded(tensors, network, [*_rounding(delta, dtype), *_size(tensors)], is_whole=dtype == torch.float32)


def difference_tensors(delta: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Returns a delta's tensors by key, each of its weight's shape.

    Args:
        delta: differences by parameter name, of any device.
        dtype: precision of the file.
    """
    return {f"{network_key(name)}.diff": difference.to(dtype).contiguous() for name, difference in delta.items()}


def _rounding(delta: Mapping[str, Tensor], dtype: torch.dtype) -> list[str]:
    if dtype == torch.float32:
        return []
    largest = max(float((each - each.to(dtype).float()).abs().max()) for each in delta.values())
    name = str(dtype).removeprefix("torch.")
    return [f"  {name} rounds by at most {largest:.1e}; --dtype float32 does not"] if largest else []


def _size(tensors: Mapping[str, Tensor]) -> list[str]:
    if sum(each.numel() * each.element_size() for each in tensors.values()) < LARGE:
        return []
    return ["  the format keeps the weights that did not move as well: --format shira (peft) or lora is smaller"]
