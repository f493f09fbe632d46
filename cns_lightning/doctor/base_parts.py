"""What the small files of a base model tell, and the headers of its weights, which are not loaded."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cns_lightning.diffusion.base_source import MINIATURE, check_revision, is_hub_id
from cns_lightning.diffusion.hub import DOWNLOAD, GIVE_ONE, INDEX, hub_explained
from cns_lightning.diffusion.loading import WITH_WEIGHTS, parts_of
from cns_lightning.errors import Problems, UserError
from cns_lightning.miniature import base_model_path
from cns_lightning.user_files import expanded

SMALL_FILES: tuple[str, ...] = (INDEX, "*/*.json", "*/merges.txt", "*/vocab.json")
CONFIGS = {"unet": "config.json", "vae": "config.json", "scheduler": "scheduler_config.json"}
AGAIN = "Copy or download the base model again"


@dataclass(frozen=True)
class BaseParts:
    """What is known of a base model without loading it.

    Attributes:
        source: folder, file or name, as it was given.
        folder: diffusers folder with at least its small files; None for a single file without one beside it.
        configs: configuration of every part by its folder's name, as far as there is one.
        numbers: weights of every part, counted in the headers of its files; no entry for one that is not here.
        is_remote: whether it comes from a hub.
    """

    source: str
    folder: Path | None
    configs: dict[str, dict[str, Any]] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)
    is_remote: bool = False

    @property
    def encoders(self) -> list[str]:
        """Names of the text encoders' folders, in order."""
        return [name for name in ("text_encoder", "text_encoder_2") if name in self.configs]

    @property
    def latent_scale(self) -> int:
        """Pixels a latent cell is wide."""
        return 2 ** (len(self.configs["vae"].get("block_out_channels", [64])) - 1)

    @property
    def resolution(self) -> int | None:
        """Side of the pictures that the model draws, in pixels; None where it does not say."""
        if not {"unet", "vae"} <= self.configs.keys() or not (size := self.configs["unet"].get("sample_size")):
            return None
        return int(size if isinstance(size, int) else size[0]) * self.latent_scale


def find_parts(source: str, revision: str | None = None, may_fetch: bool = True) -> BaseParts:
    """Reads the small files of a base model, and the headers of its weights.

    Args:
        source: ``miniature``, a diffusers folder, a single ``.safetensors`` file or a hub id.
        revision: branch, tag or commit of a hub's repository; None for its newest state.
        may_fetch: whether the small files of a hub's model may be fetched; a few megabytes, kept in its cache.

    Raises:
        UserError: if there is nothing there, the hub does not answer, or files are missing or damaged.
    """
    check_revision(source, revision)
    where, path = f"base model {source}", expanded(source)
    if source == MINIATURE:
        return _of_folder(base_model_path(), source, where)
    if path.is_dir():
        return _of_folder(path, source, where)
    if path.is_file():
        beside = path.with_suffix("")
        found = _of_folder(beside, source, where, needs_weights=False) if (beside / INDEX).is_file() else None
        return BaseParts(source, found and found.folder, found.configs if found else {}, {"all": _numbers_in(path)})
    if not is_hub_id(source):
        raise UserError(where, "there is no such folder or file", GIVE_ONE)
    return _of_folder(_fetched(source, revision, may_fetch), source, where, needs_weights=False)


def _of_folder(folder: Path, source: str, where: str, needs_weights: bool = True) -> BaseParts:
    if not (folder / INDEX).is_file():
        raise UserError(where, f"is not a diffusers folder: it has no {INDEX}", GIVE_ONE)
    parts, problems = parts_of(_json(folder / INDEX, where), where), Problems()
    configs, numbers = {}, {}
    for part in parts:
        try:
            if not (folder / part).is_dir():
                raise UserError(where, f"is incomplete: it has no folder {part}", AGAIN)
            if part in CONFIGS or part in WITH_WEIGHTS:
                configs[part] = _json(folder / part / CONFIGS.get(part, "config.json"), where)
            if part in WITH_WEIGHTS and (files := _weights(folder / part)):
                numbers[part] = sum(map(_numbers_in, files))
            elif part in WITH_WEIGHTS and needs_weights:
                raise UserError(where, f"{part} holds no safetensors weights", DOWNLOAD)
        except UserError as error:
            problems.add(error.where, error.problem, error.remedy)
    problems.raise_if_any()
    return BaseParts(source, folder, configs, numbers, is_remote=not needs_weights and not Path(source).is_file())


def _json(path: Path, where: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{where}: {path.parent.name}/{path.name}", f"cannot be read ({error})", AGAIN) from error
    if not isinstance(content, dict):
        raise UserError(f"{where}: {path.parent.name}/{path.name}", "holds no settings", AGAIN)
    return content


def _weights(folder: Path) -> list[Path]:
    """Lists the files of a part's weights; those of one variant, the plain one where it is there."""
    files = sorted(folder.glob("*.safetensors"))
    plain = [path for path in files if path.name.count(".") == 1]
    variants = [path.name.split(".")[1].split("-")[0] for path in files if path not in plain]
    return plain or [path for path in files if path.name.split(".")[1].split("-")[0] == variants[0]]


def _numbers_in(path: Path) -> int:
    """Counts the numbers of a safetensors file, by its header.

    Raises:
        UserError: if it is cut off or something else.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="np") as file:
            return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(str(path), f"is damaged or not a safetensors file ({error})", AGAIN) from error


def _fetched(identifier: str, revision: str | None, may_fetch: bool) -> Path:
    """Returns the folder of a hub's model in the download cache, once its small files are there."""
    from huggingface_hub import snapshot_download

    patterns = list(SMALL_FILES)
    with hub_explained(identifier, revision):
        folder = snapshot_download(
            identifier, revision=revision, allow_patterns=patterns, local_files_only=not may_fetch
        )
    return Path(folder)
