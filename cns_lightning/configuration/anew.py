"""``fit --config RUN/config.yaml``: the configuration of a run, for learning it anew in another folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from cns_lightning.runs.config import RunConfig

if TYPE_CHECKING:
    from pathlib import Path


def configuration_of_run(path: Path) -> dict[str, Any] | None:
    """Returns what ``fit`` was given for a run, from its ``config.yaml``, without what belongs to its folder.

    Args:
        path: a YAML file.

    Returns:
        None where the file is not that of a run.

    Raises:
        UserError: if it is, and is damaged.
    """
    content = yaml.safe_load(path.read_text("utf-8-sig"))
    if not isinstance(content, dict) or set(content) != {"settings", "sequence", "whole"}:
        return None
    whole = RunConfig.of(path, content).whole
    trainer = whole.get("trainer") or {}
    trainer.pop("max_epochs", None)  # the number of concepts, which may be another one when it is learned anew
    folders = [folder for folder in (whole.pop("run", None), trainer.pop("default_root_dir", None)) if folder]
    loggers = trainer.get("logger")
    for logger in loggers if isinstance(loggers, list) else [loggers]:
        given = (logger.get("init_args") or {}) if isinstance(logger, dict) else {}
        written = str(given.get("save_dir") or "")
        for folder in folders:
            if written == folder or written.startswith(f"{folder}/"):
                given["save_dir"] = "{run}" + written[len(folder) :]
    return whole
