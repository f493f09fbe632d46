"""CLIP-I and CLIP-T as torchmetrics, on any CLIPModel folder.

torchmetrics' own CLIPScore does not work with the output objects of transformers 5 and cuts long prompts wrongly.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional
from torchmetrics import Metric

from cns_lightning.diffusion.picture_processors import pillow_processor

if TYPE_CHECKING:
    from PIL import Image


class ClipEncoder:
    """Turns pictures and texts into unit vectors of one space.

    Args:
        source: a CLIPModel folder of transformers, or a hub id.
        device: where to compute.
    """

    def __init__(self, source: str | Path, device: torch.device | str = "cpu") -> None:
        from transformers import CLIPModel, CLIPTokenizer

        self.model: Any = CLIPModel.from_pretrained(source, dtype=torch.float32)
        self.model.to(device).eval()
        self.tokenizer = CLIPTokenizer.from_pretrained(source)
        self.processor = pillow_processor("clip").from_pretrained(source)
        self.length: int = self.model.config.text_config.max_position_embeddings

    @torch.no_grad()
    def images(self, pictures: list[Image.Image], batch_size: int = 64) -> Tensor:
        """Encodes pictures; shape (pictures, width), float32, unit length."""
        parts = []
        for start in range(0, len(pictures), batch_size):
            batch = [picture.convert("RGB") for picture in pictures[start : start + batch_size]]
            pixels = self.processor(batch, return_tensors="pt").pixel_values.to(self.model.device)
            parts.append(self.model.visual_projection(self.model.vision_model(pixel_values=pixels).pooler_output))
        return functional.normalize(torch.cat(parts), dim=-1)

    @torch.no_grad()
    def texts(self, texts: list[str], batch_size: int = 64) -> Tensor:
        """Encodes texts, cut at the model's length; shape (texts, width), float32, unit length."""
        parts = []
        for start in range(0, len(texts), batch_size):
            tokens = self.tokenizer(
                texts[start : start + batch_size],
                padding=True,
                truncation=True,
                max_length=self.length,
                return_tensors="pt",
            ).to(self.model.device)
            states = self.model.text_model(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask)
            parts.append(self.model.text_projection(states.pooler_output))
        return functional.normalize(torch.cat(parts), dim=-1)


class ImageAlignment(Metric):
    """CLIP-I: mean cosine between every generated picture and every reference picture of a concept.

    Range -1 to 1. Source: Custom Diffusion (arXiv 2212.04488), evaluation; docs/methods.md 2.2.
    """

    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, **keywords: Any) -> None:
        super().__init__(**keywords)
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, generated: Tensor, references: Tensor) -> None:
        """Adds pictures; both of shape (pictures, width), unit length or means of such, on any device."""
        cosines = generated.to(self.device).double() @ references.to(self.device).double().T
        self.total += cosines.sum()
        self.count += cosines.numel()

    def compute(self) -> Tensor:
        """Returns the mean so far; nan before the first picture."""
        return self.total / self.count


class TextAlignment(Metric):
    """CLIP-T: mean cosine between a picture and its prompt, raw, and clipped at zero times 2.5 as CLIPScore has it.

    Source: docs/methods.md 2.2.
    """

    full_state_update = False
    total: Tensor
    clipped: Tensor
    count: Tensor

    def __init__(self, **keywords: Any) -> None:
        super().__init__(**keywords)
        for name in ("total", "clipped", "count"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, generated: Tensor, prompts: Tensor) -> None:
        """Adds pictures and the prompt of each; both of shape (pictures, width), unit length, on any device."""
        cosines = (generated.to(self.device).double() * prompts.to(self.device).double()).sum(-1)
        self.total += cosines.sum()
        self.clipped += 2.5 * cosines.clamp_min(0).sum()
        self.count += cosines.numel()

    def compute(self) -> dict[str, Tensor]:
        """Returns ``cosine`` and ``score``; nan before the first picture."""
        return {"cosine": self.total / self.count, "score": self.clipped / self.count}
