"""The families of base models that other programs tell apart, and what they call them."""

from __future__ import annotations

from dataclasses import dataclass

SD1, SD2, SDXL = "SD1", "SD2", "SDXL"
"""What A1111 calls them in its sidecar files."""
WIDTHS = {768: SD1, 1024: SD2, 2048: SDXL}
"""Width of the text states by which programs recognise a family."""
VELOCITY = "v_prediction"
NAMES = {SD1: "Stable Diffusion 1.x", SD2: "Stable Diffusion 2.x", SDXL: "SDXL"}


@dataclass(frozen=True)
class Family:
    """For which base models an export is.

    Attributes:
        name: ``SD1``, ``SD2`` or ``SDXL``.
        is_known: whether other programs have base models of this width at all.
        prediction: what the UNet predicts: ``epsilon``, ``v_prediction`` or ``sample``.
        resolution: side of a picture, in pixels.
    """

    name: str
    is_known: bool
    prediction: str
    resolution: int

    @classmethod
    def of(cls, width: int, text_encoders: int, prediction: str, resolution: int) -> Family:
        """Recognises a family.

        Args:
            width: width of the text states.
            text_encoders: number of text encoders.
            prediction: prediction type of the scheduler.
            resolution: side of a picture, in pixels.
        """
        if text_encoders == 2:
            return cls(SDXL, WIDTHS.get(width) == SDXL, prediction, resolution)
        found = WIDTHS.get(width)
        return cls(SD2 if found == SD2 else SD1, found in (SD1, SD2), prediction, resolution)

    @property
    def title(self) -> str:
        """Returns the family's name as people write it."""
        return NAMES[self.name] if self.is_known else "a model of its own kind"

    @property
    def is_xl(self) -> bool:
        """Returns whether tokens have one embedding for each of two text encoders."""
        return self.name == SDXL

    @property
    def architecture(self) -> str:
        """Returns the architecture in the words of ModelSpec, without what the file is."""
        if self.is_xl:
            return "stable-diffusion-xl-v1-base"
        if self.name == SD2:
            return "stable-diffusion-v2-768-v" if self.prediction == VELOCITY else "stable-diffusion-v2-512"
        return "stable-diffusion-v1"

    @property
    def version_keys(self) -> dict[str, str]:
        """Returns the metadata by which A1111 tells families apart; a file without them counts as SD 1.x.

        Source: ``detect_version`` in A1111's ``extensions-builtin/Lora/network.py``; names from sd-scripts.
        """
        if self.is_xl:
            return {"ss_base_model_version": "sdxl_base_v1-0"}
        ending = "_v" if self.prediction == VELOCITY else ""
        if self.name == SD2:
            return {"ss_base_model_version": f"sd_v2{ending}", "ss_v2": "True"}
        return {"ss_base_model_version": f"sd_v1{ending}", "ss_v2": "False"}
