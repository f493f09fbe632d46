"""A crash loses nothing; damage, foreign models and unknown tokens are named and nothing is done with them."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cns_lightning.errors import UserError
from cns_lightning.registry import store
from cns_lightning.registry.record import ConceptRecord
from cns_lightning.registry.registry import NeuronRegistry

MakeRecord = Callable[..., ConceptRecord]
Weights = dict[str, Tensor]


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _folder(registry: NeuronRegistry) -> Path:
    assert registry.folder is not None
    return registry.folder


def test_a_crash_between_any_two_steps_leaves_a_whole_registry(
    registry: NeuronRegistry, make_record: MakeRecord, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Replaces the last concept and the general neurons, and dies before the n-th write or deletion."""
    start = tmp_path / "start"
    shutil.copytree(_folder(registry), start)
    mask = make_record(51).mask
    assert mask is not None
    steps = 0
    limit = 0

    class CrashError(Exception):
        pass

    def counted(act: Callable[..., object]) -> Callable[..., object]:
        def step(*arguments: object) -> object:
            nonlocal steps
            steps += 1
            if steps > limit:
                raise CrashError
            return act(*arguments)

        return step

    monkeypatch.setattr(store, "write_atomically", counted(store.write_atomically))
    monkeypatch.setattr(store.files, "write_index", counted(store.files.write_index))
    monkeypatch.setattr(store.files, "remove_unnamed", counted(store.files.remove_unnamed))
    for limit in range(20):
        folder = tmp_path / f"after-{limit}"
        shutil.copytree(start, folder)
        steps = 0
        crashing = NeuronRegistry.load(folder)
        try:
            crashing.rollback("<new2>")
            crashing.add(make_record(33, "<new3>"))
            crashing.add(make_record(34, "<new3>"))
            crashing.set_general(mask, "others")
        except CrashError:
            after = NeuronRegistry.load(folder)
            after.verify()
            assert after.tokens[:3] == ["<new0>", "<new1>", "<new2>"]
        else:
            assert limit > 8, "the steps were counted"
            return
    pytest.fail("never came to an end")


def test_a_registry_over_an_older_one_never_names_a_wrong_file(
    registry: NeuronRegistry, make_record: MakeRecord
) -> None:
    again = NeuronRegistry.create(_folder(registry), "miniature", "e" * 64)
    again.add(make_record(20, "<new0>"))
    loaded = NeuronRegistry.load(_folder(registry))
    assert (loaded.tokens, loaded.verify()) == (["<new0>"], 1)
    assert sorted(_files(_folder(registry))) == ["000-new0.safetensors", "registry.json"]


def test_a_damaged_file_is_named_and_never_used(registry: NeuronRegistry, base_weights: Weights) -> None:
    path = _folder(registry) / "002-new2.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    loaded = NeuronRegistry.load(_folder(registry))
    loaded.weights("<new1>", base_weights)
    for use in (loaded.verify, lambda: loaded.record("<new2>"), lambda: loaded.weights(base=base_weights)):
        with pytest.raises(UserError, match=r"002-new2\.safetensors: is damaged.*Restore the file from a copy"):
            use()


def test_every_damaged_file_is_named_at_once(registry: NeuronRegistry) -> None:
    folder = _folder(registry)
    (folder / "000-new0.safetensors").write_bytes(b"x" * registry.entries[0].bytes)
    shutil.copy(folder / "001-new1.safetensors", folder / "003-new3.safetensors")
    with pytest.raises(UserError) as raised:
        NeuronRegistry.load(folder, check_files=False).verify()
    assert "000-new0.safetensors: is damaged" in str(raised.value)
    assert "003-new3.safetensors: is damaged" in str(raised.value)


def test_missing_and_cut_files_are_named_when_a_registry_is_opened(registry: NeuronRegistry) -> None:
    folder = _folder(registry)
    (folder / "001-new1.safetensors").unlink()
    cut = folder / "002-new2.safetensors"
    cut.write_bytes(cut.read_bytes()[:100])
    with pytest.raises(UserError) as raised:
        NeuronRegistry.load(folder)
    assert "001-new1.safetensors: is missing" in str(raised.value)
    assert "002-new2.safetensors: has 100 bytes instead of" in str(raised.value)
    repaired = NeuronRegistry.load(folder, check_files=False)
    repaired.rollback("<new0>")
    assert NeuronRegistry.load(folder).verify() == 2


def test_lost_general_neurons_are_selected_anew_not_mourned(registry: NeuronRegistry) -> None:
    (_folder(registry) / "general.safetensors").unlink()
    assert NeuronRegistry.load(_folder(registry)).general_fingerprint() is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not valid JSON"),
        ("[]", "has format version None"),
        ('{"format_version": 99}', "has format version 99, this program reads versions 1 and 2"),
        ('{"format_version": 1}', "is not a registry"),
    ],
)
def test_a_damaged_index_is_named(registry: NeuronRegistry, content: str, message: str) -> None:
    (_folder(registry) / "registry.json").write_text(content)
    with pytest.raises(UserError, match=rf"registry\.json: {message}"):
        NeuronRegistry.load(_folder(registry))


def test_a_folder_without_registry_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no registry\.json"):
        NeuronRegistry.load(tmp_path)


def test_another_base_model_is_refused(registry: NeuronRegistry) -> None:
    registry.check_base(["f" * 64])
    with pytest.raises(UserError) as raised:
        registry.check_base(["e" * 64], "my-model")
    for part in ("miniature", "f" * 12, "my-model", "e" * 12, "--run"):
        assert part in str(raised.value)


def test_an_unknown_token_is_refused_with_those_known(registry: NeuronRegistry) -> None:
    before = _files(_folder(registry))
    for use in (registry.mask, registry.embedding, registry.weights, registry.remove, registry.rollback):
        with pytest.raises(UserError, match=r"knows no concept <new9>.*<new0>, <new1>, <new2>, <new3>"):
            use("<new9>")
    assert _files(_folder(registry)) == before


def test_foreign_base_weights_are_a_clear_fault(registry: NeuronRegistry) -> None:
    with pytest.raises(ValueError, match="moves a"):
        registry.weights(base={"x": torch.zeros(2, 2)})
