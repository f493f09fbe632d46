"""Revisions of the hub's repositories: which one is loaded, what a run keeps of it, what is refused."""

import shutil
from pathlib import Path

import pytest

from cns_lightning.cli.main import main
from cns_lightning.diffusion.base_model import BaseModel
from cns_lightning.diffusion.base_source import BaseSource
from cns_lightning.diffusion.hub import hub_explained
from cns_lightning.doctor.base_parts import find_parts
from cns_lightning.errors import UserError
from cns_lightning.miniature.tiny import tiny_base_model as write_tiny_base_model
from cns_lightning.storage import read_json
from tests.runs.learning import arguments, write_sequence

OLD, NEW = "a" * 40, "b" * 40


@pytest.fixture
def cache(tiny_base_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns the download cache of a repository of two commits, as the hub's library leaves it; nothing is fetched."""
    folder = tmp_path / "cache" / "models--owner--name"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(OLD)
    (folder / "refs" / "v2").write_text(NEW)
    shutil.copytree(tiny_base_model, folder / "snapshots" / OLD)
    write_tiny_base_model(folder / "snapshots" / NEW, seed=1)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for module in ("huggingface_hub.constants.HF_HUB_CACHE", "diffusers.pipelines.pipeline_utils.HF_HUB_CACHE"):
        monkeypatch.setattr(module, str(folder.parent), raising=False)
    return folder


def test_a_revision_is_a_branch_a_tag_or_a_commit(cache: Path, base: BaseModel) -> None:
    old, new = (BaseModel.load(BaseSource.of("owner/name", revision)) for revision in (None, "v2"))
    assert old.fingerprint() == base.fingerprint() != new.fingerprint()
    assert (old.origin.revision, new.origin.revision) == (OLD, NEW)
    assert BaseModel.load(BaseSource.of("owner/name", NEW)).fingerprint() == new.fingerprint()
    assert find_parts("owner/name", "v2").folder == cache / "snapshots" / NEW


def test_a_run_goes_on_with_the_commit_it_began_with(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"

    def fit(words: list[str], *more: str) -> int:
        sequence = write_sequence(tmp_path / str(len(words)), words)
        return main(arguments(Path("owner/name"), sequence, run, *more, steps=2))

    assert fit(["cat"]) == 0
    kept = read_json(run / "registry" / "registry.json")["base_model"]
    assert (kept["id"], kept["revision"]) == ("owner/name", OLD)
    (cache / "refs" / "main").write_text(NEW)  # the repository has a new state
    assert fit(["cat", "dog"]) == 0
    assert read_json(run / "registry" / "registry.json")["base_model"]["revision"] == OLD
    draw = ["generate", "--run", str(run), "--prompt", "a <new2> dog", "--n", "1", "--steps", "1"]
    assert main([*draw, "--out", str(tmp_path / "picture.png")]) == 0
    capsys.readouterr()
    assert fit(["cat", "dog", "cat"], "--model.revision", "v2") == 2
    assert f"owner/name at revision {OLD[:12]}" in capsys.readouterr().err


def test_what_is_on_this_machine_has_no_revision(
    tiny_base_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sequence = write_sequence(tmp_path / "sequence", ["cat"])
    for base, kind in ((tiny_base_model, "a folder"), (Path("miniature"), "the model that ships with the project")):
        assert main(arguments(base, sequence, tmp_path / "run", "--model.revision", "main")) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"model.revision: is 'main', and the base model {base} is {kind}")
    assert not (tmp_path / "run").exists()


def test_a_revision_that_is_nowhere_is_named(cache: Path) -> None:
    said = r"owner/name, revision v3: .*not in the download cache"
    with pytest.raises(UserError, match=said):
        find_parts("owner/name", "v3")
    with pytest.raises(UserError, match=said):
        BaseModel.load(BaseSource("owner/name", "v3"))


def test_a_revision_that_the_hub_does_not_have_is_named() -> None:
    from huggingface_hub.errors import RevisionNotFoundError

    # Made without the response, whose class depends on the version.
    answer = RevisionNotFoundError.__new__(RevisionNotFoundError)
    with (
        pytest.raises(UserError, match=r"name, revision v3: .*no such branch, tag or commit"),
        hub_explained("o/name", "v3"),
    ):
        raise answer
