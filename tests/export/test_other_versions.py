"""The exported folder in environments of other programs: earlier and later versions of transformers and diffusers."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cns_lightning.pipeline import load_pipeline
from tests.export.runs import export, trained_weights
from tests.test_release import OUT_OF_REACH

PROMPT = "a photo of a <new1> cat, and <new2>"
PROGRAMS = {
    "transformers 4": ["transformers==4.57.3", "diffusers==0.35.2", "huggingface_hub==0.36.0", "tokenizers==0.22.1"],
    "InvokeAI": ["transformers==5.5.0", "diffusers==0.39.0", "tokenizers==0.22.2", "huggingface_hub==1.5.0"],
}
"""What they pin; torch and the rest are the tests' own."""
READER = """
import json, sys
import torch
from diffusers import DiffusionPipeline, __version__
from safetensors.torch import save_file
from transformers import __version__ as transformers_version

pipe = DiffusionPipeline.from_pretrained(sys.argv[1])
tensors = {f"unet.{name}": weight for name, weight in pipe.unet.state_dict().items()}
ids = {}
for number, ending in enumerate(["", "_2"] if hasattr(pipe, "text_encoder_2") else [""]):
    tokenizer, encoder = getattr(pipe, f"tokenizer{ending}"), getattr(pipe, f"text_encoder{ending}")
    ids[number] = tokenizer(sys.argv[2], padding="max_length").input_ids
    with torch.no_grad():
        found = encoder(torch.tensor([ids[number]]), output_hidden_states=True)
    tensors[f"states.{number}"] = found.hidden_states[-2 if len(sys.argv[4]) else -1].contiguous()
save_file(tensors, sys.argv[3])
print(json.dumps({"ids": ids, "diffusers": __version__, "transformers": transformers_version}))
"""


@pytest.fixture(scope="module", params=list(PROGRAMS))
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """Returns the Python of an environment with a program's versions, and these."""
    folder, wanted = tmp_path_factory.mktemp("program") / "venv", PROGRAMS[request.param]
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    words = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", *wanted]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode and any(said in done.stderr for said in OUT_OF_REACH):
        pytest.skip(f"no index to install {', '.join(wanted)} from")
    assert done.returncode == 0, done.stderr
    own = next(each for each in sys.path if each.endswith("site-packages"))
    (place,) = (folder / "lib").glob("python*/site-packages")
    (place / "libraries.pth").write_text(f"{own}\n", "utf-8")
    return python, wanted


@pytest.mark.slow
def test_the_folder_means_the_same_there(program: tuple[Path, list[str]], any_run: Path, tmp_path: Path) -> None:
    python, versions = program
    export(any_run, "diffusers", tmp_path / "out")
    is_xl = "xl" in any_run.name
    words = [str(python), "-c", READER, str(tmp_path / "out"), PROMPT, str(tmp_path / "there"), "xl" if is_xl else ""]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said, there = json.loads(done.stdout.splitlines()[-1]), load_file(tmp_path / "there")
    assert {f"{name}=={said[name]}" for name in ("transformers", "diffusers")} <= set(versions)
    expected = trained_weights(any_run)
    found = {name.removeprefix("unet."): each for name, each in there.items() if name.startswith("unet.")}
    assert expected.keys() <= found.keys()
    assert all(torch.equal(weight, found[name]) for name, weight in expected.items())
    pipe = load_pipeline(any_run)
    for number, ending in enumerate(["", "_2"] if is_xl else [""]):
        tokenizer, encoder = getattr(pipe, f"tokenizer{ending}"), getattr(pipe, f"text_encoder{ending}")
        ids = tokenizer(PROMPT, padding="max_length").input_ids
        assert said["ids"][str(number)] == ids
        with torch.no_grad():
            own = encoder(torch.tensor([ids]), output_hidden_states=True).hidden_states[-2 if is_xl else -1]
        torch.testing.assert_close(there[f"states.{number}"], own, atol=1e-5, rtol=1e-5)
