"""Which device a command computes on."""

from __future__ import annotations

import torch

from cns_lightning.errors import UserError


def available_device(name: str | None) -> str:
    """Returns the device to compute on, the graphics card by default where there is one.

    Raises:
        UserError: if there is no such device here.
    """
    if name is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise UserError(
            "--device", f"{name} cannot be used here ({reason})", "Leave --device out, or give cpu"
        ) from error
    return name
