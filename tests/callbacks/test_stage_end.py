"""Which step of a stage is kept, and that it is what stands there and is learned on."""

from pathlib import Path
from typing import Any

import pytest
import torch

from cns_lightning.callbacks import stage_end
from cns_lightning.cli.main import main
from cns_lightning.data.images import read_concept_pictures
from cns_lightning.diffusion.sampling import generate_pairs
from cns_lightning.evaluation.best_step import Candidate
from cns_lightning.evaluation.metrics import ClipEncoder
from cns_lightning.pipeline import load_pipeline
from cns_lightning.registry.record import ConceptRecord
from cns_lightning.registry.registry import NeuronRegistry
from cns_lightning.runs.folder import RunFolder
from cns_lightning.sequences.sequence import Sequence
from tests.runs.learning import arguments, write_sequence
from tests.runs.processes import in_two_processes
from tests.runs.stop_at import CALLBACK, StopAt

BEST = ("--stage_end.keep", "best", "--snapshots.steps", "[1, 2]", "--stage_end.pictures", "2")
FAST = ("--model.method.learning_rate", "0.05", "--model.method.token_learning_rate", "0.05")
PROMPTS = {"<new1>": "photo of a <new1> cat", "<new2>": "photo of a <new2> dog"}


def likeness(pipe: Any, sequence: Path, token: str, judge: ClipEncoder) -> float:
    """Draws and scores as anybody would who has nothing but the run folder."""
    drawn = generate_pairs(pipe, [(PROMPTS[token], seed) for seed in (0, 1)], 2, 7.5)
    concept = next(each for each in Sequence.read(sequence).concepts if each.token == token)
    photos = judge.images([picture.image for picture in read_concept_pictures(concept)])
    return float((judge.images(drawn) @ photos.T).mean())


def same(one: ConceptRecord, other: ConceptRecord) -> bool:
    pairs = zip((one.values, *one.embeddings), (other.values, *other.embeddings), strict=True)
    return all(torch.equal(mine, theirs) for mine, theirs in pairs)


def test_the_step_most_like_the_photos_is_kept(tiny_base_model: Path, tiny_judge: Path, tmp_path: Path) -> None:
    sequence, judge = write_sequence(tmp_path / "photos", ["cat"]), ClipEncoder(tiny_judge)
    plain, run = tmp_path / "plain", tmp_path / "run"
    assert main(arguments(tiny_base_model, sequence, plain, *FAST, "--snapshots.steps", "[1, 2]")) == 0
    scores = {step: likeness(load_pipeline(plain, snapshot=step), sequence, "<new1>", judge) for step in (1, 2, None)}
    best = max(scores, key=lambda step: scores[step])
    candidates = {step: NeuronRegistry.load(RunFolder(plain).snapshot(step)).records[0] for step in (1, 2)}
    candidates |= {None: NeuronRegistry.load(plain / "registry").records[0]}
    assert main(arguments(tiny_base_model, sequence, run, *FAST, *BEST, "--stage_end.judge", str(tiny_judge))) == 0
    (kept,) = NeuronRegistry.load(run / "registry").records
    assert kept.kept_step == (best or 3)
    assert same(kept, candidates[best])
    assert sum(same(kept, each) for each in candidates.values()) == 1
    assert candidates[None].kept_step is None
    assert f"kept as it was after step {best or 3} of 3, CLIP-I {scores[best]:.3f}" in RunFolder(run).log.read_text()


def test_an_earlier_step_is_what_stands_and_what_is_learned_on(
    tiny_base_model: Path, tiny_judge: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    sequence, judge = write_sequence(tmp_path / "photos", ["cat", "dog"]), ClipEncoder(tiny_judge)
    asked: list[tuple[list[Candidate], list[float]]] = []

    def first(candidates: list[Candidate], start: list[float], tolerance: float) -> Candidate:
        asked.append((candidates, start))
        return candidates[0]

    monkeypatch.setattr(stage_end, "best_candidate", first)
    more = (*FAST, *BEST, "--stage_end.judge", str(tiny_judge), CALLBACK)
    whole, other = (arguments(tiny_base_model, sequence, tmp_path / name, *more) for name in "ab")
    assert main(whole) == 0
    run = tmp_path / "a"
    registry, snapshot = NeuronRegistry.load(run / "registry"), NeuronRegistry.load(RunFolder(run).snapshot(1))
    assert [record.kept_step for record in registry.records] == [1, 1]
    assert all(same(*pair) for pair in zip(registry.records, snapshot.records, strict=True))
    capsys.readouterr()
    assert main(["concepts", "--run", str(run)]) == 0
    assert "kept after step: <new1> 1, <new2> 1" in capsys.readouterr().out
    assert main(["concepts", "--run", str(run), "--verify"]) == 0
    # What was asked of the second stage is what the run folder draws.
    ((_, nothing), (candidates, start)) = asked
    assert nothing == []
    assert [each.step for each in candidates] == [1, 2, 3]
    before, after = load_pipeline(run, upto="<new1>"), load_pipeline(run)
    assert start == [pytest.approx(likeness(before, sequence, "<new1>", judge), abs=1e-5)]
    assert candidates[0].earlier == (pytest.approx(likeness(after, sequence, "<new1>", judge), abs=1e-5),)
    assert candidates[0].own == pytest.approx(likeness(after, sequence, "<new2>", judge), abs=1e-5)
    # Stopped within both stages.
    for step in (2, 5):
        monkeypatch.setattr(StopAt, "step", step)
        with pytest.raises(SystemExit):
            main(other)
    monkeypatch.setattr(StopAt, "step", None)
    assert main(other) == 0
    for path in sorted((run / "registry").iterdir()):
        assert (tmp_path / "b" / "registry" / path.name).read_bytes() == path.read_bytes(), path.name


@pytest.mark.slow
def test_two_ranks_keep_the_same_step(tiny_base_model: Path, tiny_judge: Path, tmp_path: Path) -> None:
    sequence, run = write_sequence(tmp_path / "photos", ["cat", "dog"]), tmp_path / "run"
    more = (*FAST, *BEST, "--stage_end.judge", str(tiny_judge))
    # Ranks that kept different records would stop when they compare registries at the second stage.
    done = in_two_processes(tiny_base_model, sequence, run, "0:0:SIGTERM", *more)
    assert done.returncode == 0, done.stderr
    for number, record in enumerate(NeuronRegistry.load(run / "registry").records):
        assert record.kept_step in (1, 2, 4)
        if record.kept_step < 4:
            assert same(record, NeuronRegistry.load(RunFolder(run).snapshot(record.kept_step)).records[number])


def test_what_cannot_be_chosen_is_refused(
    tiny_base_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sequence, run = write_sequence(tmp_path / "photos", ["cat", "dog"]), tmp_path / "run"
    for more, said in (
        (("--stage_end.keep", "best"), "--stage_end.keep: is best, and no snapshots are taken"),
        ((*BEST, "--stage_end.judge", str(tmp_path)), "stage_end.judge"),
        (("--stage_end.keep", "finest"), "finest"),
    ):
        assert main(arguments(tiny_base_model, sequence, run, *more)) == 2
        assert said in capsys.readouterr().err
    assert main(arguments(tiny_base_model, sequence, run, *BEST, method="mix_of_show")) == 2
    assert "MixOfShow fuses its concepts" in capsys.readouterr().err
    assert not list(RunFolder(run).registry.glob("0*"))


def test_the_choice_binds_a_run(
    tiny_base_model: Path, tiny_judge: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sequence = write_sequence(tmp_path / "photos", ["cat"])
    last, best = (tmp_path / name for name in ("last", "best"))
    judged = (*BEST, "--stage_end.judge", str(tiny_judge))
    assert main(arguments(tiny_base_model, sequence, last, "--snapshots.steps", "[1]")) == 0
    # What is looked at besides may change, as before.
    assert main(arguments(tiny_base_model, sequence, last, "--snapshots.steps", "[2]")) == 0
    assert main(arguments(tiny_base_model, sequence, last, *judged)) == 2
    assert "stage_end.keep was 'not set' and is 'best'" in capsys.readouterr().err
    assert main(arguments(tiny_base_model, sequence, best, *judged)) == 0
    assert main(arguments(tiny_base_model, sequence, best, *judged)) == 0
    assert main(arguments(tiny_base_model, sequence, best, *judged, "--snapshots.steps", "[1]")) == 2
    assert "snapshots.steps[1] was 2 and is 'not set'" in capsys.readouterr().err
    assert main(arguments(tiny_base_model, sequence, best, *judged, "--stage_end.tolerance", "0.5")) == 2
    assert "stage_end.tolerance was 0.02 and is 0.5" in capsys.readouterr().err
