"""Where tokens start in a run: from ranked rare words, kept beside the fingerprint, the same after an undo."""

import json
from pathlib import Path

import pytest
import torch
import yaml

from cns_lightning.cli.main import main
from cns_lightning.diffusion.base_model import BaseModel
from cns_lightning.diffusion.rare_words import chosen_rare_words
from cns_lightning.registry.registry import NeuronRegistry
from tests.runs.learning import arguments, learn, write_sequence
from tests.runs.stop_at import CALLBACK, StopAt


def test_words_are_ranked_once_and_kept(tiny_base_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = learn("cns", tiny_base_model, tmp_path)
    kept = json.loads((run / "registry" / "registry.json").read_text("utf-8"))["base_model"]
    assert tuple(kept["rare_words"]) == chosen_rare_words(BaseModel.load(str(tiny_base_model)), "auto")
    records = NeuronRegistry.load(run / "registry").records
    assert [record.rare_words for record in records] == [(word,) for word in kept["rare_words"][:2]]
    # Undone and learned anew without a second ranking: the same bytes.
    before = (run / "registry" / "registry.json").read_bytes()
    assert main(["concepts", "--run", str(run), "--rollback", "<new1>"]) == 0
    monkeypatch.setattr("cns_lightning.methods.token_starts.chosen_rare_words", None)
    assert main(arguments(tiny_base_model, tmp_path / "sequence" / "sequence.yaml", run, steps=2)) == 0
    assert (run / "registry" / "registry.json").read_bytes() == before


def test_words_can_be_named_and_class_words_too(tiny_base_model: Path, tmp_path: Path) -> None:
    sequence = write_sequence(tmp_path / "two", ["cat", "cat"])
    named = tmp_path / "named.yaml"
    named.write_text(yaml.safe_dump({"model": {"rare_words": ["toy", "man"]}}), "utf-8")
    run = tmp_path / "words"
    assert main(arguments(tiny_base_model, sequence, run, "--config", str(named), steps=1)) == 0
    assert [record.rare_words for record in NeuronRegistry.load(run / "registry").records] == [("toy",), ("man",)]
    run = tmp_path / "class"
    assert main(arguments(tiny_base_model, sequence, run, "--model.method.token_start", "class_word", steps=1)) == 0
    registry = NeuronRegistry.load(run / "registry")
    assert registry.rare_words == registry.record("<new1>").rare_words == ()


def test_two_of_one_class_share_what_the_paper_says(tmp_path: Path) -> None:
    """The paper's three figures (supplement 9.2, 9.3): 5 % of the weights, IoU 0.24 of two and 0.02 of seven."""
    more = ("--config", "configs/miniature/data.yaml", "--config", "configs/miniature/cns.yaml")
    found = {}
    for name in ("miniature_set1", "miniature_pairs"):
        words = ["fit", "--config", "configs/base/miniature.yaml", *more, "--config", "configs/hardware/cpu.yaml"]
        words += [
            "--data.sequence",
            name,
            "--steps",
            "1",
            "--samples.pictures",
            "0",
            "--data.augmentation.variants",
            "1",
        ]
        assert main([*words, "--run", str(tmp_path / name)]) == 0
        found[name] = NeuronRegistry.load(tmp_path / name / "registry")
    seven, pairs = found["miniature_set1"], found["miniature_pairs"]
    shares = [entry.counts["neurons"] / entry.counts["key_value_weights"] for entry in seven.entries]
    assert sum(shares) / 7 == pytest.approx(0.05, abs=0.008)
    # Somewhat less than the paper's 0.24: 0.17.
    assert seven.overlap()["mean_pairwise"] == pytest.approx(0.20, abs=0.08)
    assert seven.overlap()["joint"] < 0.03
    table = torch.tensor(pairs.overlap()["pairwise"])
    # Rabbits, scenes and styles, three places apart; from their class words they would share 0.90.
    assert float(table.diagonal(-3).max()) <= 0.35


def test_a_first_stage_that_was_interrupted_keeps_the_ranking(
    tiny_base_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sequence = write_sequence(tmp_path / "one", ["cat"])
    whole, other = (
        arguments(tiny_base_model, sequence, tmp_path / name, CALLBACK, method="fine_tuning") for name in "ab"
    )
    assert main(whole) == 0
    monkeypatch.setattr(StopAt, "step", 2)
    with pytest.raises(SystemExit):
        main(other)
    monkeypatch.setattr(StopAt, "step", None)
    monkeypatch.setattr("cns_lightning.methods.token_starts.chosen_rare_words", None)
    assert main(other) == 0
    assert (tmp_path / "a/registry/registry.json").read_bytes() == (tmp_path / "b/registry/registry.json").read_bytes()


def test_a_word_that_was_refused_can_be_corrected_in_the_same_folder(
    tiny_base_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sequence, run = write_sequence(tmp_path / "one", ["cat"]), tmp_path / "run"
    words = tmp_path / "words.yaml"
    command = arguments(tiny_base_model, sequence, run, "--config", str(words), steps=1)
    words.write_text("model: {rare_words: [toy, toytoy]}", "utf-8")
    assert main(command) == 2
    assert "model.rare_words: has toytoy" in capsys.readouterr().err
    words.write_text("model: {rare_words: [toy, man]}", "utf-8")
    assert main(command) == 0
