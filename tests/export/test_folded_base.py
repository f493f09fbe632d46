"""Exports of a run on a base model with LoRA files folded in: what other programs need beside them."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cns_lightning.diffusion.base_model import BaseModel
from cns_lightning.diffusion.base_source import BaseSource
from tests.diffusion.test_loras import TEXT, UNET, factors, in_kohya, layers, write
from tests.export.runs import export, read_into, trained_weights, weights_of, write_run
from tests.export.test_comfyui import checked
from tests.export.test_shira import card_of, run_card

pytest.importorskip("peft")


@pytest.fixture(scope="module")
def folded(tiny_base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Returns a run folder of two concepts, and the LoRA file in its base model."""
    folder = tmp_path_factory.mktemp("folded")
    base = BaseModel.load(str(tiny_base_model))
    moved = factors(layers(base, {"unet": UNET[:5], "0": TEXT}), alphas=True)
    file = write(folder / "style.safetensors", in_kohya(moved))
    return write_run(folder / "run", BaseSource.of(str(tiny_base_model), strengths={str(file): 0.8})), file


def test_the_web_uis_need_both_files(
    folded: tuple[Path, Path], tiny_base_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, file = folded
    export(run, "webui", tmp_path / "out", "--dtype", "float32")
    assert 'write "<lora:style:0.8> <lora:run:1> ' in capsys.readouterr().out
    card = (tmp_path / "out" / "README.md").read_text("utf-8")
    assert "learned on it with style.safetensors at 0.8 folded in" in card
    assert str(file.parent) not in card
    # As the programs do: the base model as it is on the hub, and both files.
    unet = BaseModel.load(str(tiny_base_model)).unet
    of_unet = {name: value for name, value in load_file(file).items() if name.startswith("lora_unet_")}
    linear = {name: value for name, value in of_unet.items() if "proj_in" not in name}
    read_into(unet, linear, 0.8)
    read_into(unet, load_file(tmp_path / "out" / "run.safetensors"))
    own = trained_weights(run)
    for name, weight in weights_of(unet).items():
        if "proj_in" not in name:
            assert torch.allclose(weight, own[name], rtol=1e-5, atol=1e-6), name


def test_the_workflow_loads_both_files(folded: tuple[Path, Path], tmp_path: Path) -> None:
    run, _ = folded
    export(run, "comfyui", tmp_path / "family.json", "--prompt", "a <new1> cat")
    nodes = checked(tmp_path / "family.json")
    (number,) = [name for name, node in nodes.items() if node["class_type"] == "LoraLoader"]
    loader = nodes[number]["inputs"]
    assert (loader["lora_name"], loader["strength_model"], loader["strength_clip"]) == ("style.safetensors", 0.8, 0.8)
    (concepts,) = [node for node in nodes.values() if node["class_type"] == "LoraLoaderModelOnly"]
    assert concepts["inputs"]["model"] == [number, 0]
    texts = [node["inputs"]["clip"] for node in nodes.values() if node["class_type"] == "CLIPTextEncode"]
    assert texts == [[number, 1]] * len(texts)


def test_the_python_of_the_card_folds_the_file_in(
    tiny_base_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = factors(layers(BaseModel.load(str(tiny_base_model)), {"unet": UNET[:5], "0": TEXT}), alphas=False)
    file = write(tmp_path / "style.safetensors", in_kohya(moved))
    run = write_run(tmp_path / "run", BaseSource.of(str(tiny_base_model), strengths={str(file): 0.8}))
    export(run, "shira", tmp_path / "out")
    monkeypatch.chdir(tmp_path / "out")
    for each in (tiny_base_model, file):
        Path(each.name).symlink_to(each)
    expected = trained_weights(run)
    for name, weight in weights_of(run_card(card_of(Path())).unet).items():
        # Folded in single precision here, in double in a run.
        assert torch.allclose(weight, expected[name], rtol=1e-5, atol=1e-6), name
