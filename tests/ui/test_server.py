"""The command: what it refuses before anything slow starts."""

import importlib.util
import socket
from pathlib import Path

import pytest

from cns_lightning.cli.main import main
from cns_lightning.diffusion.base_model import BaseModel
from cns_lightning.errors import UserError
from cns_lightning.ui.server import listening
from tests.export.runs import write_run


def test_without_gradio_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr("cns_lightning.cli.ui.find_spec", lambda name: None if name == "gradio" else found(name))
    assert main(["ui", "--run", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert (
        said
        == 'ui: needs gradio, which is not installed. Install it: pip install "cns-lightning[ui]", or gradio itself\n'
    )


def test_a_port_that_is_taken_is_said_before_the_model_loads(
    tiny_base_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "run", tiny_base_model)
    monkeypatch.setattr(BaseModel, "load", lambda *_, **__: pytest.fail("the model was loaded"))
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert main(["ui", "--run", str(run), "--port", str(port), "--device", "cpu"]) == 2
    assert f"--port: {port} is taken by another program. Give another one, or 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--port", "70000"], "--port: is 70000, and ports end at 65535"),
        (["--host", "192.0.2.1"], "--host: 192.0.2.1 cannot be listened on"),
        (["--device", "warp"], "--device: warp cannot be used here"),
    ],
)
def test_what_cannot_be_served_is_said(
    tiny_base_model: Path, tmp_path: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "run", tiny_base_model, records=1)
    assert main(["ui", "--run", str(run), *words]) == 2
    assert message in capsys.readouterr().err


def test_a_missing_run_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ui", "--run", str(tmp_path / "none")]) == 2
    assert "there is no such folder" in capsys.readouterr().err


def test_the_next_free_port_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        monkeypatch.setattr("cns_lightning.ui.server.USUAL_PORT", port)
        with listening("127.0.0.1", None) as (listener, address):
            assert listener.getsockname()[1] > port
            assert address == f"http://127.0.0.1:{listener.getsockname()[1]}"
        monkeypatch.setattr("cns_lightning.ui.server.TRIED_PORTS", 1)
        with pytest.raises(UserError, match=f"{port} to {port} are taken"), listening("127.0.0.1", None):
            pass
