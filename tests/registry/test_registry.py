"""What was added comes back, replay is bit-identical, undo is exact."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cns_lightning.errors import UserError
from cns_lightning.registry import files, store
from cns_lightning.registry.record import ConceptRecord
from cns_lightning.registry.registry import NeuronRegistry
from cns_lightning.registry.replay import read_ahead

MakeRecord = Callable[..., ConceptRecord]
Weights = dict[str, Tensor]


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _same(first: Weights, second: Weights) -> bool:
    """Bit by bit: a changed sign of zero counts."""
    return first.keys() == second.keys() and all(
        torch.equal(first[name].view(torch.int32), second[name].view(torch.int32)) for name in first
    )


def _folder(registry: NeuronRegistry) -> Path:
    assert registry.folder is not None
    return registry.folder


def test_the_files_have_the_names_of_the_interface(registry: NeuronRegistry) -> None:
    folder = _folder(registry)
    assert sorted(_files(folder)) == [
        *(f"00{number}-new{number}.safetensors" for number in range(4)),
        "general.safetensors",
        "registry.json",
    ]
    index = json.loads((folder / "registry.json").read_text())
    assert index["format_version"] == 3
    assert index["base_model"] == {"id": "miniature", "fingerprint": "f" * 64, "unet_parameters": 1000}
    assert [entry["token"] for entry in index["concepts"]] == ["<new0>", "<new1>", "<new2>", "<new3>"]
    assert all(len(entry["sha256"]) == 64 for entry in [*index["concepts"], index["general"]])


def test_loading_gives_back_what_was_added(
    registry: NeuronRegistry, make_record: MakeRecord, base_weights: Weights
) -> None:
    loaded = NeuronRegistry.load(_folder(registry))
    assert loaded.tokens == ["<new0>", "<new1>", "<new2>", "<new3>"]
    assert len(loaded.records) == 4
    for number in range(4):
        record, token = make_record(number), f"<new{number}>"
        assert record.mask is not None
        assert loaded.records[number].mask == record.mask
        assert torch.equal(loaded.records[number].values, record.values)
        assert torch.equal(loaded.embedding(token), record.embeddings[0])
        assert loaded.embedding(token).shape == (1, 6)
        assert all(torch.equal(loaded.mask(token)[name], mask) for name, mask in record.mask.bools().items())
    assert [record.token for record in loaded.records[1:3]] == ["<new1>", "<new2>"]
    assert loaded.records[-1].token == "<new3>"
    assert loaded.general_fingerprint() == "model and prompts"
    assert loaded.general_metadata() == {"rule": "vote", "threshold": "0.9"}
    mask = make_record(50).mask
    assert mask is not None
    assert loaded.general_mask() == mask
    assert loaded.general().keys() == base_weights.keys()
    assert (loaded.base_model, loaded.base_fingerprint, loaded.unet_parameters) == ("miniature", "f" * 64, 1000)


def test_loading_opens_no_file_of_a_concept(registry: NeuronRegistry) -> None:
    for entry in registry.entries:
        path = _folder(registry) / entry.file
        path.write_bytes(b"x" * entry.bytes)
    assert len(NeuronRegistry.load(_folder(registry)).tokens) == 4


def test_weights_equal_plain_additions_in_order(
    registry: NeuronRegistry, make_record: MakeRecord, base_weights: Weights
) -> None:
    expected = {name: weight.clone() for name, weight in base_weights.items()}
    for number in range(4):
        record = make_record(number)
        assert record.mask is not None
        values = iter(record.values.tolist())
        for name in sorted(expected):
            for place in record.mask.bools()[name].flatten().nonzero().flatten().tolist():
                expected[name].view(-1)[place] += torch.tensor(next(values))
        assert _same(registry.weights(f"<new{number}>", base_weights), expected)
    assert _same(registry.weights(base=base_weights), expected)


def test_weights_have_the_same_bits_whatever_was_asked_before(registry: NeuronRegistry, base_weights: Weights) -> None:
    fresh = {
        upto: NeuronRegistry.load(_folder(registry)).weights(upto, base_weights) for upto in [None, *registry.tokens]
    }
    for upto in ["<new3>", "<new0>", None, "<new2>", "<new1>", None]:
        assert _same(registry.weights(upto, base_weights), fresh[upto])


def test_the_weights_are_the_callers_own(registry: NeuronRegistry, base_weights: Weights) -> None:
    before = {name: weight.clone() for name, weight in base_weights.items()}
    first = registry.weights(base=base_weights)
    kept = {name: weight.clone() for name, weight in first.items()}
    for weight in first.values():
        weight.zero_()
    assert _same(registry.weights(base=base_weights), kept)
    assert _same(base_weights, before)


def test_a_changed_base_is_noticed(registry: NeuronRegistry, base_weights: Weights) -> None:
    registry.weights(base=base_weights)
    base_weights["a.to_v.weight"].add_(1.0)
    expected = NeuronRegistry.load(_folder(registry)).weights(base=base_weights)
    assert _same(registry.weights(base=base_weights), expected)
    with torch.inference_mode():
        untracked = {name: weight.clone() for name, weight in base_weights.items()}
        registry.weights(base=untracked)
        untracked["a.to_v.weight"].add_(1.0)
        assert not _same(registry.weights(base=untracked), expected)


def test_tokens_are_read_without_the_neurons(
    registry: NeuronRegistry, make_record: MakeRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _folder(registry) / "001-new1.safetensors"
    loaded = NeuronRegistry.load(_folder(registry))
    with monkeypatch.context() as patch:
        patch.setattr(files, "unpack_mask", None)  # would fail
        assert torch.equal(loaded.embedding("<new1>"), make_record(1).embeddings[0])
    assert loaded.record("<new1>").mask == make_record(1).mask  # and not what was read for the token
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match="is damaged"):
        NeuronRegistry.load(_folder(registry)).embedding("<new1>")


def test_a_save_touches_the_new_file_and_the_index_alone(
    registry: NeuronRegistry, make_record: MakeRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, looks = [], []
    write, look = store.write_atomically, store.files.remove_unnamed

    def noted(path: Path, data: bytes) -> None:
        written.append(path.name)
        write(path, data)

    def noted_look(*arguments: Any) -> None:
        looks.append(arguments)
        look(*arguments)

    monkeypatch.setattr(store, "write_atomically", noted)
    monkeypatch.setattr(files, "write_atomically", noted)
    monkeypatch.setattr(store.files, "remove_unnamed", noted_look)
    registry.add(make_record(4))
    assert (written, looks) == (["004-new4.safetensors", "registry.json"], [])
    # What a killed process left is looked for once, by the first save of the next.
    (_folder(registry) / "007-new7.safetensors").touch()
    again = NeuronRegistry.load(_folder(registry))
    again.add(make_record(5))
    again.add(make_record(6))
    assert len(looks) == 1
    assert "007-new7.safetensors" not in _files(_folder(registry))


def test_records_are_read_ahead_in_order_and_errors_arrive() -> None:
    def read(entry: int) -> int:
        if entry == 3:
            raise UserError("file", "is damaged", "Restore it")
        return 10 * entry

    for count in range(3):
        assert list(read_ahead(range(count), read)) == [10 * number for number in range(count)]  # type: ignore[arg-type]
    with pytest.raises(UserError, match="is damaged"):
        list(read_ahead(range(5), read))  # type: ignore[arg-type]


def test_an_empty_registry_gives_the_base(tmp_path: Path, base_weights: Weights) -> None:
    empty = NeuronRegistry.create(tmp_path, "miniature", "f", base_weights)
    assert _same(empty.weights(), base_weights)
    assert empty.union().count() == 0
    assert empty.union().shapes == {name: tuple(weight.shape) for name, weight in base_weights.items()}
    assert empty.tokens == []
    assert empty.general_fingerprint() is None
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match="holds no general neurons"):
        empty.general()


def test_the_union_of_all_concepts(registry: NeuronRegistry, make_record: MakeRecord) -> None:
    for last in range(4):
        expected = make_record(0).mask
        for number in range(1, last + 1):
            mask = make_record(number).mask
            assert mask is not None
            assert expected is not None
            expected = expected | mask
        assert registry.union(f"<new{last}>") == expected
        assert last < 3 or registry.union() == expected


def test_removing_a_concept_equals_building_from_the_others(
    registry: NeuronRegistry, make_record: MakeRecord, base_weights: Weights, tmp_path: Path
) -> None:
    registry.weights(base=base_weights)
    assert registry.remove("<new1>") == ["<new2>", "<new3>"]
    others = NeuronRegistry.create(tmp_path / "others", "miniature", "f" * 64)
    for number in (0, 2, 3):
        others.add(make_record(number))
    for changed in (registry, NeuronRegistry.load(_folder(registry))):
        assert changed.tokens == others.tokens
        assert _same(changed.weights(base=base_weights), others.weights(base=base_weights))
        assert _same(changed.weights("<new2>", base_weights), others.weights("<new2>", base_weights))
    assert "001-new1.safetensors" not in _files(_folder(registry))
    assert "general.safetensors" in _files(_folder(registry))


def test_a_name_that_was_freed_is_not_mixed_up(registry: NeuronRegistry, make_record: MakeRecord) -> None:
    registry.remove("<new1>")
    registry.add(make_record(1))
    assert [entry.file[:3] for entry in registry.entries] == ["000", "002", "003", "004"]
    assert NeuronRegistry.load(_folder(registry)).verify() == 5


def test_rollback_is_the_earlier_state_bit_for_bit(
    registry: NeuronRegistry, make_record: MakeRecord, base_weights: Weights, tmp_path: Path
) -> None:
    registry.rollback("<new1>")
    earlier, weights = _files(_folder(registry)), registry.weights(base=base_weights)
    registry.add(make_record(2))
    registry.add(make_record(3))
    grown = _files(_folder(registry))
    loaded = NeuronRegistry.load(_folder(registry))
    assert loaded.rollback("<new1>") == ["<new2>", "<new3>"]
    assert _files(_folder(registry)) == earlier
    assert _same(loaded.weights(base=base_weights), weights)
    loaded.add(make_record(2))
    loaded.add(make_record(3))
    assert _files(_folder(registry)) == grown
    assert loaded.rollback("<new3>") == []
    assert _files(_folder(registry)) == grown


def test_adding_again_changes_nothing(registry: NeuronRegistry, make_record: MakeRecord) -> None:
    before = _files(_folder(registry))
    for number in (3, 1):
        registry.add(make_record(number))
    assert _files(_folder(registry)) == before
    assert registry.tokens == ["<new0>", "<new1>", "<new2>", "<new3>"]


def test_the_last_concept_may_be_learned_anew_an_earlier_one_not(
    registry: NeuronRegistry, make_record: MakeRecord
) -> None:
    registry.add(make_record(33, "<new3>"))
    loaded = NeuronRegistry.load(_folder(registry))
    assert loaded.verify() == 5
    assert torch.equal(loaded.records[3].values, make_record(33).values)
    with pytest.raises(UserError, match=r"holds another concept <new1>, and <new2> was learned on top of it"):
        registry.add(make_record(11, "<new1>"))
    assert registry.tokens == loaded.tokens


def test_truncating_forgets_in_memory_and_the_next_change_follows(
    registry: NeuronRegistry, make_record: MakeRecord
) -> None:
    before = _files(_folder(registry))
    registry.truncate(2)
    assert registry.tokens == ["<new0>", "<new1>"]
    assert _files(_folder(registry)) == before
    registry.add(make_record(22, "<new2>"))
    loaded = NeuronRegistry.load(_folder(registry))
    assert loaded.tokens == ["<new0>", "<new1>", "<new2>"]
    assert loaded.verify() == 4
    assert "003-new3.safetensors" not in _files(_folder(registry))
    with pytest.raises(UserError, match="holds 3 concepts, the checkpoint speaks of 5"):
        registry.truncate(5)


def test_a_process_that_does_not_write_knows_the_same(
    registry: NeuronRegistry, make_record: MakeRecord, base_weights: Weights
) -> None:
    before = _files(_folder(registry))
    other = NeuronRegistry.load(_folder(registry))
    other.add(make_record(4), write=False)
    other.add(make_record(5), write=False)
    assert _files(_folder(registry)) == before
    registry.add(make_record(4))
    registry.add(make_record(5))
    other.add(make_record(6), write=False)
    registry.add(make_record(6))
    assert other.tokens == registry.tokens
    assert other.entries == registry.entries
    assert _same(other.weights(base=base_weights), registry.weights(base=base_weights))


def test_what_was_not_written_is_written_with_the_next_change(
    registry: NeuronRegistry, make_record: MakeRecord
) -> None:
    registry.add(make_record(4), write=False)
    registry.add(make_record(5))
    assert NeuronRegistry.load(_folder(registry)).verify() == 7


def test_a_registry_in_memory(make_record: MakeRecord, base_weights: Weights) -> None:
    registry = NeuronRegistry.create(None, "miniature", "f", base_weights)
    for number in range(5):
        registry.add(make_record(number))
    assert registry.remove("<new2>") == ["<new3>", "<new4>"]
    assert torch.equal(registry.record("<new0>").values, make_record(0).values)
    assert registry.rollback("<new0>") == ["<new1>", "<new3>", "<new4>"]
    assert registry.verify() == 0


def test_a_concept_without_neurons_has_its_place(
    registry: NeuronRegistry, make_record: MakeRecord, base_weights: Weights
) -> None:
    before, union = registry.weights(base=base_weights), registry.union()
    registry.add(make_record(7, mask=False))
    loaded = NeuronRegistry.load(_folder(registry))
    assert _same(loaded.weights(base=base_weights), before)
    assert loaded.union() == union
    assert loaded.mask("<new7>") == {}
    assert loaded.overlap()["tokens"] == ["<new0>", "<new1>", "<new2>", "<new3>"]


def test_overlap_is_that_of_the_masks(registry: NeuronRegistry, make_record: MakeRecord) -> None:
    overlap = registry.overlap()
    first, second = make_record(0).mask, make_record(1).mask
    assert first is not None
    assert second is not None
    assert overlap["pairwise"][0][1] == first.iou(second)
    assert overlap["pairwise"][2][2] == 1.0
    assert 0.0 < overlap["joint"] < overlap["mean_pairwise"] < 1.0
    json.dumps(overlap)
