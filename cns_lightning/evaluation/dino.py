"""DINO: likeness of pictures by features that were learned without texts, and so see more of the instance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from cns_lightning.diffusion.picture_processors import pillow_processor

if TYPE_CHECKING:
    from pathlib import Path

    from PIL import Image

SHORT_SIDE, CROP = 256, 224
MEAN, DEVIATION = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
"""Of ImageNet, on which DINO was trained."""


class DinoEncoder:
    """Turns pictures into unit vectors: the class token of a vision transformer.

    Args:
        source: a folder of transformers that holds a ViT or DINO model, or a hub id, such as ``facebook/dino-vits16``.
        device: device of the model.

    Raises:
        OSError: if there is no model.
        ValueError: if it is not a vision transformer.

    Source: Custom Diffusion's published evaluation; docs/methods.md 2.2.
    """

    def __init__(self, source: str | Path, device: torch.device | str = "cpu") -> None:
        from transformers import AutoConfig, AutoModel

        config: Any = AutoConfig.from_pretrained(source)
        if not hasattr(config, "image_size"):
            raise ValueError(f"it holds a {config.model_type} model")
        # Published DINO models have no pooling layer; transformers would draw one at random, and warn of it.
        without = {"add_pooling_layer": False} if config.model_type == "vit" else {}
        self.model: Any = AutoModel.from_pretrained(source, dtype=torch.float32, **without)
        self.model.to(device).eval()
        crop = int(self.model.config.image_size)
        self.processor = pillow_processor("bit")(
            size={"shortest_edge": round(crop * SHORT_SIDE / CROP)},
            crop_size={"height": crop, "width": crop},
            image_mean=MEAN,
            image_std=DEVIATION,
        )

    @torch.no_grad()
    def images(self, pictures: list[Image.Image], batch_size: int = 64) -> Tensor:
        """Encodes pictures; shape (pictures, width), float32, unit length."""
        parts = []
        for start in range(0, len(pictures), batch_size):
            batch = [picture.convert("RGB") for picture in pictures[start : start + batch_size]]
            pixels = self.processor(batch, return_tensors="pt").pixel_values.to(self.model.device)
            parts.append(self.model(pixel_values=pixels).last_hidden_state[:, 0])
        return functional.normalize(torch.cat(parts), dim=-1)
