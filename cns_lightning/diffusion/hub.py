"""Base models on the hub: what it answers, said in one sentence, and which state of a repository was taken."""

from __future__ import annotations

import re
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cns_lightning.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

INDEX = "model_index.json"
GIVE_ONE = "Give miniature, a diffusers folder, a single .safetensors file or a hub id such as owner/name"
DOWNLOAD = "Download it where there is a network (hf download OWNER/NAME --local-dir FOLDER) and give the folder"


@contextmanager
def hub_explained(identifier: str, revision: str | None = None) -> Iterator[None]:
    """Turns what the hub answers inside the block into the user's mistake.

    Args:
        identifier: hub id.
        revision: revision that is asked for.

    Raises:
        UserError: if repository or revision do not exist, it holds no diffusers pipeline, or it cannot be fetched.
    """
    from huggingface_hub import errors

    where = f"base model {identifier}" + (f", revision {revision}" if revision else "")
    try:
        yield
    except errors.HFValidationError as error:
        raise UserError(where, "there is no such folder or file", GIVE_ONE) from error
    except errors.LocalEntryNotFoundError as error:
        problem = "is not a folder here and is not in the download cache, and the hub cannot be reached"
        raise UserError(where, problem, DOWNLOAD) from error
    except errors.RepositoryNotFoundError as error:
        problem = "is not a folder here, and the hub has no such repository for you"
        raise UserError(where, problem, "Check the spelling; a gated one needs hf auth login") from error
    except errors.RevisionNotFoundError as error:
        problem = "the repository has no such branch, tag or commit"
        raise UserError(where, problem, "Look at the versions on its page, or leave model.revision out") from error
    except errors.EntryNotFoundError as error:
        raise UserError(where, f"is not a diffusers repository: it has no {INDEX}", GIVE_ONE) from error
    except OSError as error:
        raise UserError(where, f"cannot be fetched from the hub: {first_line(error)}", DOWNLOAD) from error


def commit_of(path: Path) -> str | None:
    """Returns the commit that a folder of the download cache holds, by its name; None for any other folder."""
    return path.name if path.parent.name == "snapshots" and re.fullmatch(r"[0-9a-f]{40}", path.name) else None


def first_line(error: BaseException) -> str:
    """Returns the first line of what a library said, without a final stop, at most 200 characters."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].strip().rstrip(".")[:200]
