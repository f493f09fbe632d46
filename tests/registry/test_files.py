"""The form on disk: names, bytes, versions, damage."""

import json
from collections.abc import Callable

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save

from cns_lightning.errors import UserError
from cns_lightning.registry.files import (
    GeneralNeurons,
    check_version,
    decode_general,
    decode_record,
    encode_general,
    encode_record,
    file_name,
)
from cns_lightning.registry.record import ConceptRecord
from cns_lightning.registry.registry import NeuronRegistry
from cns_lightning.storage import tensor_bytes, tensors_from_bytes

MakeRecord = Callable[..., ConceptRecord]


@pytest.mark.parametrize(
    ("number", "token", "name"),
    [
        (0, "<new1>", "000-new1.safetensors"),
        (12, "<my cat/..>", "012-mycat.safetensors"),
        (1000, "<猫>", "1000-concept.safetensors"),
        (1, "sks-dog", "001-sks-dog.safetensors"),
    ],
)
def test_file_names(number: int, token: str, name: str) -> None:
    assert file_name(number, token) == name


def test_a_record_comes_back_equal(make_record: MakeRecord) -> None:
    record = make_record(3)
    record.extra["factor"] = torch.randn(2, 3)
    record.embeddings.append(torch.randn(1, 9))
    back = decode_record(encode_record(record), "file")
    assert (back.token, back.class_word, back.kind, back.prompt) == ("<new3>", "cat", "animal", record.prompt)
    assert back.mask == record.mask
    assert back.metadata == record.metadata
    assert back.values.dtype == torch.float16
    assert torch.equal(back.values, record.values)
    assert [torch.equal(one, two) for one, two in zip(back.embeddings, record.embeddings, strict=True)] == [True, True]
    assert torch.equal(back.extra["factor"], record.extra["factor"])
    assert encode_record(back) == encode_record(record)


def test_a_record_without_neurons_comes_back_equal(make_record: MakeRecord) -> None:
    back = decode_record(encode_record(make_record(3, mask=False)), "file")
    assert back.mask is None
    assert len(back.values) == 0


def test_more_than_ten_encoders_keep_their_order(make_record: MakeRecord) -> None:
    record = make_record(1)
    record.embeddings = [torch.full((1, 1), float(number)) for number in range(12)]
    back = decode_record(encode_record(record), "file")
    assert [int(rows) for rows in back.embeddings] == list(range(12))


def test_anyone_can_read_the_file(make_record: MakeRecord, tmp_path) -> None:
    path = tmp_path / "000-new3.safetensors"
    record = make_record(3)
    path.write_bytes(encode_record(record))
    with safe_open(path, "pt") as file:
        facts = json.loads(file.metadata()["facts"])
        assert facts["token"] == "<new3>"
        assert facts["class_word"] == "cat"
        assert facts["kind"] == "animal"
        assert facts["prompt"] == "a photo of a <new3> cat"
        assert f'"neurons": {len(record.values)}' in facts["counts"]
        assert file.get_tensor("values").dtype == torch.float16
        assert file.get_tensor("mask/packed").dtype == torch.uint8
        assert json.loads(facts["mask"])["codec"] == "column-gaps-zlib"


def test_general_neurons_come_back_equal(make_record: MakeRecord) -> None:
    mask = make_record(5).mask
    assert mask is not None
    back = decode_general(encode_general(GeneralNeurons(mask, "abc", {"rule": "vote"})), "file")
    assert (back.mask, back.fingerprint, back.metadata) == (mask, "abc", {"rule": "vote"})


def test_another_version_is_refused() -> None:
    for version in ("1", "2", "3"):
        check_version(version, "file")
    for version in ("4", None):
        with pytest.raises(UserError, match=rf"file: has format version {version}, this program reads versions 1"):
            check_version(version, "file")


@pytest.mark.parametrize("version", ["1", "2"])
def test_a_file_of_an_earlier_version_is_read(version: str, make_record: MakeRecord) -> None:
    record = make_record(5)
    assert record.mask is not None
    data = encode_record(record)
    tensors, facts = tensors_from_bytes(data, "file")
    # As it was written then: a bit for every entry.
    bits = {f"mask/{name}": tensor for name, tensor in record.mask.to_tensors().items()}
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("mask/")} | bits
    facts = {name: text for name, text in facts.items() if name != "mask"} | {"format_version": version}
    old = save(kept, facts) if version == "1" else tensor_bytes(kept, facts)
    assert set(json.loads(old[8 : 8 + int.from_bytes(old[:8], "little")])["__metadata__"]) == (
        set(facts) if version == "1" else {"facts"}
    )
    assert encode_record(decode_record(old, "file")) == data


def test_a_damaged_mask_is_refused(make_record: MakeRecord) -> None:
    tensors, facts = tensors_from_bytes(encode_record(make_record(5)), "file")
    about = json.loads(facts["mask"])
    for damage, words in ({"codec": "zstd"}, "unknown codec zstd"), ({"bytes": 10**12}, "claims"):
        data = tensor_bytes(tensors, {**facts, "mask": json.dumps(about | damage)})
        with pytest.raises(UserError, match=f"file: does not hold a concept .*{words}.*Restore the file"):
            decode_record(data, "file")
    mask = make_record(5).mask
    assert mask is not None
    general = tensors_from_bytes(encode_general(GeneralNeurons(mask, "abc")), "file")
    with pytest.raises(UserError, match="file: does not hold general neurons"):
        decode_general(tensor_bytes({}, general[1]), "file")


def test_the_index_is_json_with_a_line_for_every_concept(registry: NeuronRegistry, make_record: MakeRecord) -> None:
    assert registry.folder is not None
    path = registry.folder / "registry.json"
    before = path.read_text("utf-8").splitlines()
    content = json.loads("\n".join(before))
    assert [entry["token"] for entry in content["concepts"]] == registry.tokens
    registry.add(make_record(4, '<"猫">'))
    after = path.read_text("utf-8").splitlines()
    # The one before the new line has a comma now; nothing else has changed.
    assert len(after) == len(before) + 1
    assert after[: len(before) - 2] == [*before[:-3], f"{before[-3]},"]
    assert json.loads(after[-3])["token"] == '<"猫">'
    assert NeuronRegistry.load(registry.folder).entries == registry.entries
    empty = NeuronRegistry.create(registry.folder / "empty", "miniature", "f" * 64)
    empty.save()
    assert json.loads((registry.folder / "empty" / "registry.json").read_text("utf-8"))["concepts"] == []


def test_another_file_is_refused(make_record: MakeRecord) -> None:
    facts = {"format_version": "1", "token": "<new1>"}
    with pytest.raises(UserError, match="file: does not hold a concept"):
        decode_record(tensor_bytes({"x": torch.zeros(2)}, facts), "file")
    with pytest.raises(UserError, match="file: does not hold general neurons"):
        decode_general(tensor_bytes({"x": torch.zeros(2)}, facts), "file")
