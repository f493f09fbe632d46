"""CLIP-I and CLIP-T as torchmetrics, on any CLIPModel folder.

torchmetrics' own CLIPScore does not work with the output objects of transformers 5 and cuts long prompts wrongly.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional
from torchmetrics import MeanMetric

from cns_lightning.diffusion.picture_processors import pillow_processor

if TYPE_CHECKING:
    from PIL import Image


class ClipEncoder:
    """Turns pictures and texts into unit vectors of one space.

    Args:
        source: a CLIPModel folder of transformers, or a hub id.
        device: device of the model.
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


class ImageAlignment(MeanMetric):
    """CLIP-I: mean cosine between every generated picture and every reference picture of a concept.

    Range -1 to 1; nan before the first picture. Every process keeps its own mean: pictures are scored by one.
    Source: Custom Diffusion (arXiv 2212.04488), evaluation; docs/methods.md 2.2.
    """

    def __init__(self) -> None:
        super().__init__(nan_strategy="disable", sync_on_compute=False)
        self.set_dtype(torch.float64)

    def update(self, generated: Tensor, references: Tensor) -> None:
        """Adds pictures; both of shape (pictures, width), unit length or means of such, on any device."""
        super().update(generated.to(self.device).double() @ references.to(self.device).double().T)


class TextAlignment(MeanMetric):
    """CLIP-T: mean cosine between a picture and its prompt; or CLIPScore, 2.5 times the cosine clipped at zero.

    Nan before the first picture. Every process keeps its own mean. Source: docs/methods.md 2.2.

    Args:
        as_score: whether to compute CLIPScore.
    """

    def __init__(self, as_score: bool = False) -> None:
        super().__init__(nan_strategy="disable", sync_on_compute=False)
        self.set_dtype(torch.float64)
        self.as_score = as_score

    def update(self, generated: Tensor, prompts: Tensor) -> None:
        """Adds pictures and the prompt of each; both of shape (pictures, width), unit length, on any device."""
        cosines = (generated.to(self.device).double() * prompts.to(self.device).double()).sum(-1)
        super().update(2.5 * cosines.clamp_min(0) if self.as_score else cosines)
