"""A real SLURM: a job of two tasks is told to make way in mid-stage, comes back, and ends as if it had not."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cns_lightning.cli.main import main
from cns_lightning.runs.checkpoint_file import SealedCheckpointIO
from cns_lightning.storage import read_json
from tests.runs.learning import arguments
from tests.runs.processes import assert_same
from tests.runs.stop_at import CALLBACK, PLAN
from tests.slurm.cluster import Cluster, missing

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Returns a running cluster."""
    running = Cluster(tmp_path_factory.mktemp("slurm"))
    yield running
    running.stop()


@pytest.fixture
def launched(
    cluster: Cluster, pair: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Returns a function that launches a run of two tasks with a plan, and gives the job's number."""
    base, sequence, _ = pair
    for name in ("SLURM_CONF", "PATH"):
        monkeypatch.setenv(name, cluster.environment[name])
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")

    def launch(run: Path, plan: str, *more: str) -> str:
        monkeypatch.setenv(PLAN, plan)
        learning = arguments(base, sequence, run, CALLBACK, steps=4)[1:]
        assert main(["launch", *learning, "--devices", "2", "--cpus", "1", "--time", "5", *more]) == 0
        return capsys.readouterr().out.split("submitted as job ")[1].split(":")[0]

    return launch


Launched = Callable[..., str]


def test_a_signalled_job_is_requeued_and_ends_like_an_uninterrupted_run(
    cluster: Cluster, launched: Launched, pair: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    job = launched(run, "0:2:SCANCEL")
    assert cluster.ended(job) == "COMPLETED", said(run, job)
    assert f"job {job} is requeued (1 of at most 100 times)" in said(run, job)
    assert_same(run, pair[2])


def test_a_job_at_its_time_limit_is_requeued(
    cluster: Cluster, launched: Launched, pair: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    job = launched(run, "1:3:WAIT", "--time", "1", "--signal-seconds", "20")
    assert cluster.ended(job) == "COMPLETED", said(run, job)
    assert "stopped by SIGUSR1" in said(run, job)
    assert_same(run, pair[2])


def test_a_preempted_job_is_requeued(
    cluster: Cluster, launched: Launched, pair: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    job = launched(run, "1:6:WAIT")
    cluster.until("step 6", lambda: (run / "waiting").exists())
    cluster.ask("sbatch", "--partition=urgent", "--ntasks=2", "--output=/dev/null", "--wrap=true")
    assert cluster.ended(job) == "COMPLETED", said(run, job)
    assert "stopped by SIGTERM" in said(run, job)
    assert read_json(run / "requeues.json")["requeues"] == 1
    assert_same(run, pair[2])


def test_a_cancelled_job_saves_and_is_not_requeued(cluster: Cluster, launched: Launched, tmp_path: Path) -> None:
    run = tmp_path / "run"
    job = launched(run, "0:6:WAIT")
    cluster.until("step 6", lambda: (run / "waiting").exists())
    cluster.ask("scancel", job)
    assert cluster.ended(job) == "CANCELLED", said(run, job)
    assert not (run / "requeues.json").exists()
    state = SealedCheckpointIO().load_checkpoint(run / "checkpoints" / "last.ckpt")
    assert (state["continual"]["stage"], state["continual"]["step"]) == (1, 2)


def said(run: Path, job: str) -> str:
    """Returns what a job has printed."""
    return (run / "slurm" / f"{job}.log").read_text("utf-8")
