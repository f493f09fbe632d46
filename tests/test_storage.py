"""Files are whole or not there, equal content gives equal bytes, damage is named."""

import hashlib
import json
import os
import stat
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from cns_lightning import storage
from cns_lightning.errors import UserError
from cns_lightning.storage import (
    fingerprint,
    read_json,
    read_tensors,
    remove_partial_files,
    sha256_of,
    tensor_bytes,
    write_atomically,
    write_json,
    write_tensors,
)

TENSORS = {
    "odd": torch.arange(3, dtype=torch.uint8),
    "half": torch.tensor([0.5, -0.0, float("inf")], dtype=torch.float16),
    "brain": torch.tensor([[1.5], [2.0]], dtype=torch.bfloat16),
    "single": torch.randn(2, 3, generator=torch.Generator().manual_seed(0)),
    "scalar": torch.tensor(7),
    "bools": torch.tensor([True, False]),
    "none": torch.zeros(0, 4),
}


def test_a_written_file_holds_the_data_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "file.bin"
    write_atomically(path, b"first")
    write_atomically(path, b"second")
    assert path.read_bytes() == b"second"
    assert [each.name for each in path.parent.iterdir()] == ["file.bin"]


def test_others_may_read_what_was_written(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        write_atomically(tmp_path / "file", b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o644


def test_a_crash_before_the_rename_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(storage.os, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".file.123-abcd.partial").write_bytes(b"half")
    (tmp_path / "file").write_bytes(b"whole")
    remove_partial_files(tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "blocked").write_bytes(b"a file where a folder is needed")
    with pytest.raises(UserError, match=r"blocked/file: could not be written: .*Choose a folder"):
        write_atomically(tmp_path / "blocked" / "file", b"new")


def test_no_space_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def refuse(_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage.os, "fsync", refuse)
    with pytest.raises(UserError, match=r"No space left on device\. Free some space"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_json_comes_back_and_is_readable(tmp_path: Path) -> None:
    content = {"b": [1, 2.5, None], "a": "Käthe <new1>"}
    write_json(tmp_path / "file.json", content)
    assert read_json(tmp_path / "file.json") == content
    assert "Käthe" in (tmp_path / "file.json").read_text("utf-8")


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe"])
def test_damaged_json_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file.json").write_bytes(content)
    with pytest.raises(UserError, match=r"file\.json: is not valid JSON"):
        read_json(tmp_path / "file.json")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.json: cannot be read: No such file"):
        read_json(tmp_path / "absent.json")


def test_checksum_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    assert sha256_of(tmp_path / "file") == hashlib.sha256(b"abc").hexdigest()


def test_tensors_and_metadata_come_back_bit_for_bit(tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    write_tensors(path, TENSORS, {"token": "<ä>", "b": "", "a": "1"})
    tensors, metadata = read_tensors(path)
    assert metadata == {"token": "<ä>", "b": "", "a": "1"}
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype
        assert tensors[name].shape == tensor.shape
        assert torch.equal(tensors[name].reshape(-1).view(torch.uint8), tensor.reshape(-1).view(torch.uint8))


def test_another_reader_of_the_format_reads_it_too(tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    write_tensors(path, TENSORS, {"token": "x"})
    with safe_open(path, "pt") as file:
        assert {name: json.loads(value) for name, value in file.metadata().items()} == {"facts": {"token": "x"}}
        assert torch.equal(file.get_tensor("single"), TENSORS["single"])


def test_layout_and_order_do_not_show_in_the_bytes() -> None:
    base = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
    first = tensor_bytes({"a": base, "b": base.T}, {"x": "1", "y": "2"})
    second = tensor_bytes({"b": base.T.contiguous(), "a": base.clone()}, {"y": "2", "x": "1"})
    assert first == second
    assert all(tensor_bytes({"b": base.T, "a": base}, {"x": "1", "y": "2"}) == first for _ in range(20))


def test_metadata_with_a_key_for_each_fact_is_read(tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    save_file(TENSORS, path, {"token": "<ä>", "a": "1"})
    assert read_tensors(path)[1] == {"token": "<ä>", "a": "1"}


@pytest.mark.parametrize("cut", [0, 4, 20, -1])
def test_a_damaged_tensor_file_is_named(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "file.safetensors"
    path.write_bytes(tensor_bytes(TENSORS, {})[:cut])
    with pytest.raises(UserError, match=r"file\.safetensors: is damaged"):
        read_tensors(path)


def test_fingerprint_depends_on_names_values_types_and_shapes_alone() -> None:
    base = {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(2)}
    assert fingerprint(base) == fingerprint({"b": torch.ones(2), "a": torch.arange(6.0).view(3, 2).T.T.reshape(2, 3)})
    others = [
        {"a": base["a"], "c": base["b"]},
        {"a": base["a"].view(3, 2), "b": base["b"]},
        {"a": base["a"].half(), "b": base["b"]},
        {"a": base["a"] + 1e-6, "b": base["b"]},
        {"a": base["a"], "b": -base["b"]},
    ]
    prints = {fingerprint(each) for each in [base, *others]}
    assert len(prints) == 6
