"""``concepts``: what it prints, what it undoes, what it refuses."""

import json
from pathlib import Path

import pytest
import torch

from cns_lightning.cli.concepts import run
from cns_lightning.errors import UserError
from cns_lightning.neurons.mask import NeuronMask
from cns_lightning.registry.record import ConceptRecord
from cns_lightning.registry.registry import NeuronRegistry


def _record(token: str, columns: list[int], kind: str = "animal") -> ConceptRecord:
    bools = torch.zeros(1, 20, dtype=torch.bool)
    bools[0, columns] = True
    values = torch.ones(len(columns)).half()
    mask = NeuronMask.from_bools({"attn2.to_k.weight": bools})
    return ConceptRecord(token, "cat", kind, f"a {token} cat", mask, values, [torch.zeros(1, 4)])


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    registry = NeuronRegistry.create(tmp_path / "registry", "miniature", "f" * 64, unet_parameters=1000)
    registry.add(_record("<new1>", [0, 1]))
    registry.add(_record("<new2>", [1, 2, 3, 4], "object"))
    registry.add(_record("<new3>", [0, 9]))
    return tmp_path


def test_the_table(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--run", str(run_folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split("  ")[0] == "token"
    rows = [line.split() for line in lines[1:4]]
    size = NeuronRegistry.load(run_folder / "registry").entries[0].bytes / 1000
    assert rows[0] == ["<new1>", "cat", "animal", "2", "10.00", "0.20", "1.0000", f"{size:.1f}", "kB", "-"]
    assert rows[1][3:6] == ["4", "20.00", "0.40"]
    assert [row[-1] for row in rows] == ["-", "25.00", "50.00"]
    assert lines[5].startswith("3 concepts on miniature, ")
    # By hand: 2, 4 and 2 of 20; 1 of 5, 1 of 3 and 0 of 6 in common, all of one class; nothing is in all three.
    assert lines[6] == "share of the key and value weights: 13.3% on average (paper: about 5%)"
    assert lines[7] == "overlap (IoU) of two concepts: 0.18 on average (paper: 0.24); two of one class 0.18"
    assert lines[8] == "overlap (IoU) of 3 together: 0.000 (paper, of seven: 0.02)"
    assert len({line.index("kB") for line in lines[1:4]}) == 1, "columns are aligned"


def test_json(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--run", str(run_folder), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["base_model"] == "miniature"
    assert [row["token"] for row in facts["concepts"]] == ["<new1>", "<new2>", "<new3>"]
    assert facts["concepts"][1]["seen_before_share"] == 0.25
    assert facts["concepts"][1]["unet_share"] == 0.004
    assert facts["concepts"][1]["mean_shift"] == 1
    assert facts["overlap"]["mean_within_class"] == pytest.approx((1 / 5 + 1 / 3) / 3)


def test_what_is_not_known_is_a_dash(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    registry = NeuronRegistry.create(tmp_path / "registry", "miniature", "f" * 64)
    plain = ConceptRecord("<new1>", "cat", "animal", "a <new1>", None, torch.zeros(0), [torch.zeros(1, 4)])
    registry.add(plain)
    assert run(["--run", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert [out.splitlines()[1].split()[place] for place in (3, 4, 5, 6, 9)] == ["0", "-", "-", "-", "-"]
    assert "1 concept on" in out


def test_remove(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--run", str(run_folder), "--remove", "<new1>"]) == 0
    out = capsys.readouterr().out
    assert "<new1> is taken out" in out
    assert "Learned on top of it, and kept as they are: <new2>, <new3>" in out
    assert NeuronRegistry.load(run_folder / "registry").tokens == ["<new2>", "<new3>"]


def test_remove_the_last(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--run", str(run_folder), "--remove", "<new3>", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts == {"removed": ["<new3>"], "learned_on_top": [], "restarted": None, "tokens": ["<new1>", "<new2>"]}


def test_rollback(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--run", str(run_folder), "--rollback", "<new1>"]) == 0
    assert "Taken out: <new2>, <new3>" in capsys.readouterr().out
    assert run(["--run", str(run_folder), "--rollback", "<new1>"]) == 0
    assert "Nothing was learned after it" in capsys.readouterr().out
    assert NeuronRegistry.load(run_folder / "registry").tokens == ["<new1>"]


def test_verify_names_the_damaged_file(run_folder: Path) -> None:
    path = run_folder / "registry" / "001-new2.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(UserError, match=r"001-new2\.safetensors: is damaged"):
        run(["--run", str(run_folder), "--verify"])


def test_a_missing_file_can_be_undone(run_folder: Path) -> None:
    (run_folder / "registry" / "002-new3.safetensors").unlink()
    with pytest.raises(UserError, match=r"002-new3\.safetensors: is missing.*--rollback"):
        run(["--run", str(run_folder)])
    run(["--run", str(run_folder), "--rollback", "<new2>"])
    assert NeuronRegistry.load(run_folder / "registry").verify() == 2


def test_an_unknown_token_changes_nothing(run_folder: Path) -> None:
    with pytest.raises(UserError, match="knows no concept <cat>"):
        run(["--run", str(run_folder), "--remove", "<cat>"])
    assert len(NeuronRegistry.load(run_folder / "registry").tokens) == 3


def test_no_run_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--run"):
        run(["--run", str(tmp_path / "absent")])


def test_two_actions_at_once_are_refused(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        run(["--run", str(run_folder), "--verify", "--remove", "<new1>"])
    assert raised.value.code == 2
    assert "not allowed with" in capsys.readouterr().err
