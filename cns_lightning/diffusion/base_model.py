"""The base model: the frozen parts of a Stable Diffusion pipeline, found by structure, and what identifies them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from cns_lightning.diffusion.base_source import BaseSource
from cns_lightning.diffusion.fingerprint import model_fingerprints
from cns_lightning.diffusion.loading import load_stock_pipeline
from cns_lightning.diffusion.loras import fold_loras
from cns_lightning.errors import UserError

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, DDPMScheduler, DiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

SUPPORTED = "Give a Stable Diffusion 1.x, 2.x or SDXL base model"
PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")
# The end token's id in configs written before transformers 4.31; no CLIP vocabulary has it there.
LEGACY_END_TOKEN = 2


class BaseModel:
    """Frozen parts of a text-to-image pipeline, shared with every pipeline it gives.

    One text encoder is Stable Diffusion 1.x or 2.x, two are SDXL; widths and sizes come from the parts themselves.

    Attributes:
        source: folder, file or name that it was loaded from.
        origin: the same with the revision that was loaded, and the LoRA files that are folded in.
        tokenizers: one a text encoder.
        text_encoders: one, or two for SDXL.
        vae: the autoencoder.
        unet: the denoiser.
        scheduler: the pipeline's sampler.
        noise_scheduler: adds noise and names the training target, with the sampler's own betas and prediction type.
        vocabulary_sizes: rows of each embedding table before any token was added.
        text_width: width of the states that the UNet reads.
        latent_scale: pixels a latent cell is wide.
        resolution: side of a picture the model was trained for, in pixels.
        latent_shape: channels, height, width of one picture's latents.
    """

    def __init__(self, pipeline: DiffusionPipeline, source: str | BaseSource) -> None:
        """Takes the parts of a pipeline and freezes them; LoRA files are not folded in here.

        Raises:
            UserError: if the pipeline is of a kind whose cross-attention reads something else than the text states.
        """
        from diffusers import DDPMScheduler

        self.origin = BaseSource.named(source)
        self.source = self.origin.place
        self._family = type(pipeline)
        self._settings = _construction_settings(pipeline)
        parts: dict[str, Any] = dict(pipeline.components)
        self.tokenizers: list[CLIPTokenizer] = _present(parts, "tokenizer", "tokenizer_2")
        self.text_encoders: list[CLIPTextModel | CLIPTextModelWithProjection] = _present(
            parts, "text_encoder", "text_encoder_2"
        )
        self.vae: AutoencoderKL = parts["vae"]
        self.unet: UNet2DConditionModel = parts["unet"]
        self.scheduler = parts["scheduler"]
        self.noise_scheduler: DDPMScheduler = DDPMScheduler.from_config(self.scheduler.config)  # type: ignore[assignment]
        _check_structure(self)
        self.vocabulary_sizes = [
            self.embedding_table(number).num_embeddings for number in range(len(self.text_encoders))
        ]
        self.text_width: int = self.unet.config["cross_attention_dim"]
        self.latent_scale: int = 2 ** (len(self.vae.config["block_out_channels"]) - 1)
        size = self.unet.config["sample_size"]
        side = int(size if isinstance(size, int) else size[0])
        self.resolution = side * self.latent_scale
        self.latent_shape = (int(self.unet.config["in_channels"]), side, side)
        self._fingerprints: tuple[str, str] | None = None
        for part in (self.vae, self.unet, *self.text_encoders):
            part.requires_grad_(False)
            part.eval()
        for tokenizer, encoder in zip(self.tokenizers, self.text_encoders, strict=True):
            _repair_end_token(encoder, cast("int", tokenizer.eos_token_id))
            # Saved without its length, a tokenizer claims to take any number of tokens, and the pipelines believe it.
            tokenizer.model_max_length = min(tokenizer.model_max_length, encoder.config.max_position_embeddings)

    @classmethod
    def load(
        cls, source: str | BaseSource, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
    ) -> BaseModel:
        """Loads a base model; it is read in float32 first, so that its fingerprint does not depend on the precision.

        Args:
            source: ``miniature``, a diffusers folder, a single ``.safetensors`` file or a hub id; or one of them with a
                revision and LoRA files, which are folded in.
            dtype: precision of every part.
            device: device of every part.

        Raises:
            UserError: if there is nothing there, or nothing that can be read or used, or a LoRA file is gone, has
                changed or does not fit.
        """
        origin = BaseSource.named(source)
        origin.check_files()
        pipeline, commit = load_stock_pipeline(origin.place, origin.revision)
        base = cls(pipeline, replace(origin, revision=commit)).to(dtype=torch.float32)
        # Of the model as it was read, and the files: what is folded in may differ by a last bit between machines.
        base.fingerprint()
        fold_loras(base, origin.loras)
        return base.to(dtype=dtype, device=device)

    def to(self, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> BaseModel:
        """Moves every part; returns itself."""
        for part in (self.vae, self.unet, *self.text_encoders):
            # Not the parts' own `to`: diffusers' warns about a list of modules that is empty for these models.
            nn.Module.to(part, device=device, dtype=dtype)
        return self

    @property
    def device(self) -> torch.device:
        """Returns where the UNet is."""
        return next(self.unet.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Returns the precision of the UNet."""
        return next(self.unet.parameters()).dtype

    @property
    def is_xl(self) -> bool:
        """Returns whether the UNet reads two text encoders and the size of the picture."""
        return len(self.text_encoders) == 2

    @property
    def zeroes_empty_prompt(self) -> bool:
        """Returns whether guided sampling reads zeros in place of the empty prompt's states."""
        return bool(self._settings.get("force_zeros_for_empty_prompt"))

    def embedding_table(self, number: int) -> nn.Embedding:
        """Returns the token embeddings of one text encoder; wherever its class keeps them."""
        return cast("nn.Embedding", self.text_encoders[number].get_input_embeddings())

    def fingerprint(self) -> str:
        """Returns the SHA-256 that identifies the pretrained model.

        Computed once, by `load` before anything can be learned; added tokens do not count.
        """
        return self.fingerprints()[0]

    def fingerprints(self) -> tuple[str, str]:
        """Returns the fingerprint, and the one that registries of earlier versions hold; see `model_fingerprints`."""
        if self._fingerprints is None:
            self._fingerprints = model_fingerprints(self)
        return self._fingerprints

    def pipeline(self) -> DiffusionPipeline:
        """Returns a plain diffusers pipeline that shares every part but the sampler."""
        parts: dict[str, Any] = {"vae": self.vae, "unet": self.unet}
        for number, (tokenizer, encoder) in enumerate(zip(self.tokenizers, self.text_encoders, strict=True)):
            ending = "" if number == 0 else f"_{number + 1}"
            parts |= {f"tokenizer{ending}": tokenizer, f"text_encoder{ending}": encoder}
        # A sampler counts its steps; a copy keeps two pipelines from disturbing each other.
        parts["scheduler"] = type(self.scheduler).from_config(self.scheduler.config)
        return self._family(**parts, **self._settings)

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Tensor:
        """Encodes pictures to the scaled mean of their latents.

        Args:
            pixels: shape (pictures, 3, height, width), range -1 to 1, any float dtype and device.

        Returns:
            Shape (pictures, channels, height / latent_scale, width / latent_scale), float32, on the CPU.
        """
        dtype = self.vae.dtype
        # Some autoencoders overflow in half precision, SDXL's first among them, and say so.
        if dtype == torch.float16 and self.vae.config["force_upcast"]:
            nn.Module.to(self.vae, dtype=torch.float32)
        pixels = pixels.to(self.vae.device, self.vae.dtype)
        means = self.vae.encode(pixels).latent_dist.mode() * self.vae.config["scaling_factor"]  # type: ignore[union-attr]
        nn.Module.to(self.vae, dtype=dtype)
        return means.float().cpu()


def _present(parts: dict[str, Any], *names: str) -> list[Any]:
    return [parts[name] for name in names if name in parts and parts[name] is not None]


def _construction_settings(pipeline: DiffusionPipeline) -> dict[str, Any]:
    """Returns what the pipeline was constructed with besides its parts."""
    if "text_encoder_2" in pipeline.components:
        return {"force_zeros_for_empty_prompt": pipeline.config["force_zeros_for_empty_prompt"]}
    return {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}


def _check_structure(base: BaseModel) -> None:
    where, config = f"base model {base.source}", base.unet.config
    if not base.text_encoders or len(base.tokenizers) != len(base.text_encoders):
        problem = f"has {len(base.tokenizers)} tokenizers for {len(base.text_encoders)} text encoders"
        raise UserError(where, problem, SUPPORTED)
    for number, tokenizer in enumerate(base.tokenizers):
        highest, rows = max(tokenizer.get_vocab().values()), base.embedding_table(number).num_embeddings
        if highest >= rows:
            problem = f"has a tokenizer whose words go up to number {highest}, and a text encoder that knows {rows}"
            raise UserError(where, problem, "Give tokenizer and text encoder of one model")
    if config["encoder_hid_dim_type"] is not None:
        problem = (
            f"changes the text states on their way to the UNet (encoder_hid_dim_type {config['encoder_hid_dim_type']})"
        )
        raise UserError(where, problem, SUPPORTED)
    if config["in_channels"] != base.vae.config["latent_channels"]:
        latent = base.vae.config["latent_channels"]
        problem = f"has a UNet of {config['in_channels']} input channels on {latent} latent ones, as for inpainting"
        raise UserError(where, problem, SUPPORTED)
    conditions = "text_time" if base.is_xl else None
    if config["addition_embed_type"] != conditions:
        problem = f"has {len(base.text_encoders)} text encoders and the added condition {config['addition_embed_type']}"
        raise UserError(where, problem, SUPPORTED)
    sampler = base.scheduler.config
    if "beta_schedule" not in sampler or sampler.get("prediction_type") not in PREDICTION_TYPES:
        # A scheduler without betas would silently be replaced by one with the default ones.
        problem = f"samples with {type(base.scheduler).__name__} for prediction type {sampler.get('prediction_type')}"
        raise UserError(where, problem, SUPPORTED)
    width = sum(encoder.config.hidden_size for encoder in base.text_encoders)
    if config["cross_attention_dim"] != width:
        problem = f"reads text states {config['cross_attention_dim']} wide, and its text encoders give {width}"
        raise UserError(where, problem, SUPPORTED)


def _repair_end_token(encoder: nn.Module, end_token: int) -> None:
    """Lets a text encoder find the end of a prompt by the tokenizer's own id.

    With the legacy id transformers takes the highest id for the end, which is wrong as soon as a token is added: the
    pooled state, which SDXL reads, would come from the concept's token. Prompts without added tokens are not affected.
    """
    for module in encoder.modules():
        if getattr(module, "eos_token_id", None) == LEGACY_END_TOKEN != end_token:
            module.eos_token_id = end_token  # type: ignore[assignment]
        config = getattr(module, "config", None)
        if config is not None and getattr(config, "eos_token_id", None) == LEGACY_END_TOKEN:
            config.eos_token_id = end_token
