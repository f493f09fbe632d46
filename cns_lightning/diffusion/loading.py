"""Opens a base model with stock diffusers, whatever it is stored as; says in one sentence what is wrong with it.

What the parts are used for is not decided here: `cns_lightning.diffusion.base_model`.
"""

from __future__ import annotations

import json
import re
from contextlib import contextmanager
from importlib.resources import files
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cns_lightning.diffusion.base_source import MINIATURE, check_revision, is_hub_id
from cns_lightning.diffusion.hub import DOWNLOAD, GIVE_ONE, INDEX, commit_of, first_line, hub_explained
from cns_lightning.diffusion.soundness import AGAIN, check_sound
from cns_lightning.diffusion.text_encoder_names import text_encoder_of_newer_names
from cns_lightning.errors import UserError
from cns_lightning.user_files import expanded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from diffusers import DiffusionPipeline, StableDiffusionPipeline, StableDiffusionXLPipeline

HALF = "fp16"
NEEDED = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
WITH_WEIGHTS = ("unet", "vae", "text_encoder", "text_encoder_2")
NOT_NEEDED = ("safety_checker", "feature_extractor", "image_encoder")

# model.fp16.safetensors, and in pieces model.fp16-00001-of-00002.safetensors
_VARIANT = re.compile(r"[^.]+\.([^.]+?)(?:-\d{5}-of-\d{5})?\.safetensors")

# What diffusers, transformers and safetensors raise for damaged or unfitting files; they have no common type.
LOADING_FAULTS = (OSError, ValueError, RuntimeError, LookupError, TypeError, AttributeError)


def load_stock_pipeline(source: str, revision: str | None = None) -> tuple[DiffusionPipeline, str | None]:
    """Opens a text-to-image pipeline on the CPU, in the precision diffusers chooses, without its safety checker.

    Weights are read from safetensors only.

    Args:
        source: ``miniature``, a diffusers folder, a single ``.safetensors`` file or a hub id.
        revision: branch, tag or commit of a hub's repository; None for its newest state.

    Returns:
        The pipeline, and the commit of the hub's repository; None for what is on this machine.

    Raises:
        UserError: if there is nothing there, a part is missing or unreadable, or the hub does not answer.
    """
    check_revision(source, revision)
    if source == MINIATURE:
        return _from_folder(_miniature_folder(), source), None
    path = expanded(source)
    if path.is_dir():
        return _from_folder(path, source), None
    if path.is_file():
        return _from_single_file(path), None
    if is_hub_id(source):
        return _from_hub(source, revision)
    raise UserError(f"base model {source}", "there is no such folder or file", GIVE_ONE)


def _miniature_folder() -> Path:
    folder = Path(str(files("cns_lightning") / MINIATURE / "weights" / "base"))
    if not (folder / INDEX).is_file():
        remedy = "Install the package again, or restore cns_lightning/miniature/weights from the repository"
        raise UserError(f"base model {MINIATURE}", f"its files are missing from this installation ({folder})", remedy)
    return folder


# ---- a diffusers folder ---------------------------------------------------------------------------------------------


def _from_folder(folder: Path, source: str) -> DiffusionPipeline:
    where = f"base model {source}"
    if not (folder / INDEX).is_file():
        found = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir())
        listed = ", ".join(found[:8]) + (", ..." if len(found) > 8 else "") if found else "nothing"
        raise UserError(where, f"is not a diffusers folder: it has no {INDEX}, it holds {listed}", GIVE_ONE)
    try:
        index = json.loads((folder / INDEX).read_text("utf-8"))
    except ValueError as error:
        raise UserError(f"{where}: {INDEX}", f"is not valid JSON ({error})", "Restore the file") from error
    if not isinstance(index, dict):
        raise UserError(f"{where}: {INDEX}", "names no parts of a pipeline", "Restore the file")
    parts = parts_of(index, where)
    missing = [part for part in parts if not (folder / part).is_dir()]
    if missing:
        problem = f"is incomplete: {INDEX} names {', '.join(missing)}, and there is no such folder"
        raise UserError(where, problem, "Copy or download the whole folder")
    with_weights = [part for part in parts if part in WITH_WEIGHTS]
    variants = {_weights_variant(folder / part, where) for part in with_weights}
    variant = next((name for name in sorted(variants - {None}, key=str)), None)
    _check_size(folder, where)
    stored = {part: _names_in(folder / part) for part in with_weights}
    is_xl, keywords = "text_encoder_2" in parts, {"variant": variant, "local_files_only": True}
    pipeline = _open(
        str(folder), where, is_xl=is_xl, **keywords, **_text_encoders(folder, index, parts, variant, where)
    )
    check_sound(pipeline, where, stored)
    return pipeline


def parts_of(index: dict[str, Any], where: str) -> list[str]:
    """Lists the parts a pipeline's index names and that are loaded.

    Raises:
        UserError: if it is not a pipeline of a UNet guided by CLIP text.
    """
    parts = [name for name, value in index.items() if isinstance(value, list) and value[:1] not in ([], [None])]
    lacking = [name for name in NEEDED if name not in parts]
    if lacking:
        problem = f"is a {index.get('_class_name', 'pipeline of no named class')}: it has no {', '.join(lacking)}"
        raise UserError(where, problem, "Give a Stable Diffusion 1.x, 2.x or SDXL base model")
    return [name for name in parts if name not in NOT_NEEDED]


def _weights_variant(folder: Path, where: str) -> str | None:
    """Finds the variant a part's weights are there in, None for the plain one, and checks that no file is cut off."""
    paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        pickled = sorted(path.name for path in folder.glob("*.bin"))
        problem = f"{folder.name} holds no safetensors weights" + (f", only {', '.join(pickled)}" if pickled else "")
        remedy = "Convert it with diffusers: load the pipeline, then save_pretrained(FOLDER)" if pickled else DOWNLOAD
        raise UserError(where, problem, remedy)
    for path in paths:
        _check_readable(path)
    variants = [_VARIANT.fullmatch(path.name) for path in paths]
    return None if None in variants else next(found.group(1) for found in variants if found)


def _text_encoders(
    folder: Path, index: dict[str, Any], parts: list[str], variant: str | None, where: str
) -> dict[str, Any]:
    """Opens the text encoders that the installed transformers could not read."""
    found = {}
    for part in (part for part in parts if part.startswith("text_encoder")):
        named = [(path, _VARIANT.fullmatch(path.name)) for path in sorted((folder / part).glob("*.safetensors"))]
        files = [path for path, match in named if match and match.group(1) == variant]
        files = files or [path for path, match in named if not match]
        with _told(where):
            found[part] = text_encoder_of_newer_names(index[part][-1], folder / part, files)
    return {part: encoder for part, encoder in found.items() if encoder is not None}


def _names_in(folder: Path) -> frozenset[str]:
    return frozenset().union(*(_check_readable(path) for path in folder.glob("*.safetensors")))


def _check_size(folder: Path, where: str) -> None:
    """Refuses a UNet that does not say for which pictures it was trained; diffusers' pipelines cannot do without."""
    path = folder / "unet" / "config.json"
    try:
        config = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{where}: unet/config.json", f"cannot be read ({error})", "Restore the file") from error
    if not isinstance(config, dict) or not config.get("sample_size"):
        remedy = 'Write "sample_size": 64 into it for pictures of 512 pixels, 96 for 768, 128 for 1024'
        raise UserError(f"{where}: unet/config.json", "has no sample_size", remedy)


def _check_readable(path: Path) -> frozenset[str]:
    """Reads the header of a safetensors file, which says how long the file must be, and gives the tensors' names."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            return frozenset(file.keys())
    except (SafetensorError, OSError) as error:
        remedy = "Copy or download the file again"
        raise UserError(str(path), f"is damaged or not a safetensors file ({error})", remedy) from error


def _open(source: str, where: str, *, is_xl: bool, **keywords: Any) -> DiffusionPipeline:
    plain, xl = stock_pipelines()
    skipped: dict[str, Any] = {"feature_extractor": None, "image_encoder": None}
    if not is_xl:
        skipped |= {"safety_checker": None, "requires_safety_checker": False}
    family = xl if is_xl else plain
    with _told(where), quiet_loading():
        return family.from_pretrained(source, use_safetensors=True, **skipped, **keywords)


@contextmanager
def _told(where: str) -> Iterator[None]:
    """Says in one sentence what the libraries say of files that they cannot open."""
    try:
        yield
    except LOADING_FAULTS as error:
        problem = f"cannot be opened by diffusers: {first_line(error)}"
        raise UserError(where, problem, "Copy or download the whole base model again") from error


# ---- a single file --------------------------------------------------------------------------------------------------


def _from_single_file(path: Path) -> DiffusionPipeline:
    """Opens a checkpoint of the original layout.

    Its tokenizer and the sizes of its parts are in no single file: diffusers fetches them from the hub, unless a
    diffusers folder of the same name without the ending lies beside the file.
    """
    from diffusers.loaders.single_file_utils import SingleFileComponentError

    plain, xl = stock_pipelines()
    where = f"base model {path}"
    if path.suffix != ".safetensors":
        remedy = "Give a .safetensors file or a diffusers folder; other checkpoints can run code when they are read"
        raise UserError(where, f"is a {path.suffix or 'file without ending'}, not a .safetensors file", remedy)
    names = _check_readable(path)
    _check_whole(names, where)
    _check_purpose(path, names, where)
    is_xl = any(name.startswith("conditioner.embedders.1.") for name in names)
    layout = path.with_suffix("")
    keywords: dict[str, Any] = {} if is_xl else {"safety_checker": None, "requires_safety_checker": False}
    if (layout / INDEX).is_file():
        keywords |= {"config": str(layout), "local_files_only": True}
    family = xl if is_xl else plain
    try:
        with quiet_loading():
            pipeline = family.from_single_file(str(path), **keywords)
    except (KeyError, NotImplementedError) as error:  # what diffusers finds missing, and what it leaves empty
        named = f" such as {error.args[0]}" if isinstance(error, KeyError) else ""
        raise UserError(where, f"lacks weights{named}", AGAIN) from error
    except (*LOADING_FAULTS, SingleFileComponentError) as error:
        small = "the small files of the model's diffusers folder (all but the weights)"
        remedy = f"Where there is no network, put {small} into {layout}"
        raise UserError(where, f"cannot be opened by diffusers: {first_line(error)}", remedy) from error
    check_sound(pipeline, where)
    if "v_pred" in names:
        _predict_velocity(pipeline, has_zero_snr="ztsnr" in names)
    return pipeline


def _check_whole(names: frozenset[str], where: str) -> None:
    """Refuses a file that holds only some parts of a model.

    Raises:
        UserError: saying what it is.
    """
    parts = {"the UNet": "model.diffusion_model.", "the autoencoder": "first_stage_model."}
    texts = ("cond_stage_model.", "conditioner.")
    if any("lora_" in name or ".lora." in name for name in names):
        raise UserError(where, "is a LoRA, which changes a base model and is none", GIVE_ONE)
    lacking = [part for part, prefix in parts.items() if not any(name.startswith(prefix) for name in names)]
    lacking += [] if any(name.startswith(texts) for name in names) else ["the text encoder"]
    if lacking:
        problem = f"is not a whole checkpoint of the original layout; it lacks {', '.join(lacking)}"
        raise UserError(where, problem, "Give the whole checkpoint, or a diffusers folder")


def _check_purpose(path: Path, names: frozenset[str], where: str) -> None:
    """Refuses a UNet that reads more than a picture's latents, by the first layer's shape.

    Raises:
        UserError: saying what it is for.
    """
    from safetensors import safe_open

    first = "model.diffusion_model.input_blocks.0.0.weight"
    if first not in names:
        return
    with safe_open(str(path), framework="pt") as file:
        channels = file.get_slice(first).get_shape()[1]
    purposes = {8: "for editing pictures by instructions", 9: "for inpainting"}
    if channels in purposes:
        problem = f"is a model {purposes[channels]}: its UNet reads {channels} channels in place of 4"
        raise UserError(where, problem, "Give the text-to-image model that it was made from")


def _predict_velocity(pipeline: DiffusionPipeline, has_zero_snr: bool) -> None:
    """Lets a pipeline predict v, and end in pure noise, as its checkpoint says of itself; diffusers does not look."""
    from diffusers import DDIMScheduler

    scheduler: Any = pipeline.scheduler  # type: ignore[attr-defined]
    family, changed = type(scheduler), {"prediction_type": "v_prediction"}
    if has_zero_snr:
        changed |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
        family = family if "rescale_betas_zero_snr" in signature(family).parameters else DDIMScheduler
    pipeline.scheduler = family.from_config(scheduler.config, **changed)  # type: ignore[attr-defined]


# ---- the hub --------------------------------------------------------------------------------------------------------


def _from_hub(identifier: str, revision: str | None) -> tuple[DiffusionPipeline, str | None]:
    from huggingface_hub import hf_hub_download

    with hub_explained(identifier, revision):
        index = Path(hf_hub_download(identifier, INDEX, revision=revision))
    # All parts of one commit, should the repository change meanwhile.
    commit, is_xl = commit_of(index.parent), "text_encoder_2" in index.read_text("utf-8")
    folder = _downloaded(identifier, commit or revision, f"base model {identifier}", is_xl=is_xl)
    return _from_folder(folder, identifier), commit


def _downloaded(identifier: str, revision: str | None, where: str, *, is_xl: bool) -> Path:
    """Fetches what is missing of a repository and returns its folder in the download cache."""
    family = stock_pipelines()[is_xl]
    keywords: dict[str, Any] = {"use_safetensors": True, "revision": revision, **dict.fromkeys(NOT_NEEDED)}
    with _told(where), quiet_loading():
        try:
            return Path(family.download(identifier, **keywords))
        except (OSError, ValueError) as error:
            if "no file named" not in str(error) and "variant" not in str(error):
                raise
        # Many repositories hold nothing but half-precision files, of a variant of that name.
        return Path(family.download(identifier, variant=HALF, **keywords))


# ---- noise ----------------------------------------------------------------------------------------------------------


def stock_pipelines() -> tuple[type[StableDiffusionPipeline], type[StableDiffusionXLPipeline]]:
    """Imports the pipelines of Stable Diffusion and SDXL.

    Importing them makes transformers complain, at length, that torchvision is missing, for a picture processor that is
    never used here.
    """
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
    finally:
        logging.set_verbosity(verbosity)
    return StableDiffusionPipeline, StableDiffusionXLPipeline


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Hides the bars of diffusers and transformers for loading and saving; warnings stay."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    shown = [log for log in (diffusers_logging, transformers_logging) if log.is_progress_bar_enabled()]
    for log in shown:
        log.disable_progress_bar()
    try:
        yield
    finally:
        for log in shown:
            log.enable_progress_bar()
