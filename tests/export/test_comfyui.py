"""``comfyui``: a workflow whose nodes, inputs and links ComfyUI accepts, with the prompts and boxes of ``generate``."""

from pathlib import Path
from typing import Any

import pytest

from cns_lightning.cli.export import run as command
from cns_lightning.cli.main import main
from cns_lightning.errors import UserError
from cns_lightning.export.comfyui import in_comfyui
from cns_lightning.storage import read_json
from tests.export.runs import export, write_run

NODES: dict[str, tuple[dict[str, str], tuple[str, ...]]] = {
    "CheckpointLoaderSimple": ({"ckpt_name": "str"}, ("MODEL", "CLIP", "VAE")),
    "LoraLoader": (
        {"model": "MODEL", "clip": "CLIP", "lora_name": "str", "strength_model": "float", "strength_clip": "float"},
        ("MODEL", "CLIP"),
    ),
    "LoraLoaderModelOnly": ({"model": "MODEL", "lora_name": "str", "strength_model": "float"}, ("MODEL",)),
    "ModelSamplingDiscrete": ({"model": "MODEL", "sampling": "str", "zsnr": "bool"}, ("MODEL",)),
    "CLIPTextEncode": ({"text": "str", "clip": "CLIP"}, ("CONDITIONING",)),
    "ConditioningSetAreaPercentage": (
        {"conditioning": "CONDITIONING", "width": "share", "height": "share", "x": "share", "y": "share",
         "strength": "float"},
        ("CONDITIONING",),
    ),
    "ConditioningCombine": ({"conditioning_1": "CONDITIONING", "conditioning_2": "CONDITIONING"}, ("CONDITIONING",)),
    "EmptyLatentImage": ({"width": "int", "height": "int", "batch_size": "int"}, ("LATENT",)),
    "KSampler": (
        {"model": "MODEL", "seed": "int", "steps": "int", "cfg": "float", "sampler_name": "sampler",
         "scheduler": "schedule", "positive": "CONDITIONING", "negative": "CONDITIONING", "latent_image": "LATENT",
         "denoise": "share"},
        ("LATENT",),
    ),
    "VAEDecode": ({"samples": "LATENT", "vae": "VAE"}, ("IMAGE",)),
    "SaveImage": ({"images": "IMAGE", "filename_prefix": "str"}, ()),
}  # fmt: skip
"""Inputs and outputs of ComfyUI's nodes, from its ``nodes.py``."""
SAMPLERS = ("euler", "euler_ancestral", "heun", "lms", "dpmpp_2m", "ddim", "uni_pc")
SCHEDULES = ("normal", "karras", "ddim_uniform")
PLAIN = {
    "str": lambda value: isinstance(value, str) and value != "",
    "int": lambda value: isinstance(value, int) and value >= 0,
    "float": lambda value: isinstance(value, float | int) and value >= 0,
    "bool": lambda value: isinstance(value, bool),
    "share": lambda value: isinstance(value, float | int) and 0 <= value <= 1,
    "sampler": lambda value: value in SAMPLERS,
    "schedule": lambda value: value in SCHEDULES,
}


def checked(path: Path) -> dict[str, Any]:
    """Reads a workflow and checks every node as ComfyUI does before it runs one."""
    nodes = read_json(path)
    used: set[str] = set()
    for node in nodes.values():
        wanted, _ = NODES[node["class_type"]]
        assert set(node["inputs"]) == set(wanted), node
        for name, kind in wanted.items():
            value = node["inputs"][name]
            if kind in PLAIN:
                empty_prompt = node["class_type"] == "CLIPTextEncode" and value == ""
                assert empty_prompt or PLAIN[kind](value), (node, name)
                continue
            source, output = value
            assert NODES[nodes[source]["class_type"]][1][output] == kind, (node, name)
            used.add(source)
    ends = {number for number, node in nodes.items() if node["class_type"] == "SaveImage"}
    assert used | ends == set(nodes), "no node is left unused"
    return nodes


def of_kind(nodes: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [node["inputs"] for node in nodes.values() if node["class_type"] == kind]


def said_by(nodes: dict[str, Any], link: list[Any]) -> list[tuple[str, tuple[float, ...] | None]]:
    """Returns texts and boxes behind a conditioning."""
    node = nodes[link[0]]
    inputs = node["inputs"]
    if node["class_type"] == "CLIPTextEncode":
        return [(inputs["text"], None)]
    if node["class_type"] == "ConditioningSetAreaPercentage":
        box = tuple(inputs[name] for name in ("x", "y", "width", "height"))
        return [(text, box) for text, _ in said_by(nodes, inputs["conditioning"])]
    return said_by(nodes, inputs["conditioning_1"]) + said_by(nodes, inputs["conditioning_2"])


def test_prompt_and_boxes_are_those_of_generate(any_run: Path, tmp_path: Path) -> None:
    export(
        any_run, "comfyui", tmp_path / "w.json", "--prompt", "a <new1> cat, beside <NEW2>.", "--negative-prompt",
        "rain",
        "--region", "0,0.2,0.4,1:a <new1> cat|a dog", "--region", "0.4,0,1,1:a <new2> (red) cat", "--n", "3",
        "--seed", "7", "--steps", "12", "--guidance", "5.5",
    )  # fmt: skip
    nodes = checked(tmp_path / "w.json")
    (sampler,) = of_kind(nodes, "KSampler")
    assert said_by(nodes, sampler["positive"]) == [
        ("a embedding:new1 cat, beside embedding:new2 .", None),
        ("a embedding:new1 cat", (0.0, 0.2, 0.4, 0.8)),
        (r"a embedding:new2 \(red\) cat", (0.4, 0.0, 0.6, 1.0)),
    ]
    assert said_by(nodes, sampler["negative"]) == [("rain", None), ("a dog", (0.0, 0.2, 0.4, 0.8))]
    assert (sampler["seed"], sampler["steps"], sampler["cfg"]) == (7, 12, 5.5)
    (size,) = of_kind(nodes, "EmptyLatentImage")
    assert (size["width"], size["height"], size["batch_size"]) == (32, 32, 3)
    assert [each["lora_name"] for each in of_kind(nodes, "LoraLoaderModelOnly")] == [f"{any_run.name}.safetensors"]


@pytest.mark.parametrize("content", ['{"mine": 1}', "{}", "[1]", "not JSON", '{"1": {"inputs": {}}}'])
def test_a_file_that_is_no_workflow_is_not_replaced(content: str, run: Path, tmp_path: Path) -> None:
    (tmp_path / "w.json").write_text(content, "utf-8")
    assert main(["export", "--run", str(run), "--format", "comfyui", "--out", str(tmp_path / "w.json"),
                 "--prompt", "a <new1> cat"]) == 2  # fmt: skip
    assert (tmp_path / "w.json").read_text("utf-8") == content


def test_more_steps_than_the_sampler_has_are_refused_as_by_generate(run: Path, tmp_path: Path) -> None:
    words = ["--run", str(run), "--prompt", "a <new1> cat", "--steps", "5000"]
    assert main(["generate", *words, "--out", str(tmp_path / "out")]) == 2
    assert main(["export", *words, "--format", "comfyui", "--out", str(tmp_path / "w.json")]) == 2
    assert not (tmp_path / "w.json").exists()


def test_files_are_those_that_webui_writes(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for more in ([], ["--per-concept"]):
        export(run, "webui", tmp_path / f"out{len(more)}", "--name", "fam", *more)
        export(run, "comfyui", tmp_path / "w.json", "--name", "fam", "--prompt", "a <new1> cat", *more)
        nodes = checked(tmp_path / "w.json")
        loaded = of_kind(nodes, "LoraLoaderModelOnly")
        written = sorted(path.name for path in (tmp_path / f"out{len(more)}").glob("*.safetensors"))
        assert [each["lora_name"] for each in loaded] == written
        assert all(each["strength_model"] == 1 for each in loaded)
    said = capsys.readouterr().out
    assert f"replaced {tmp_path / 'w.json'}" in said
    assert "export --format webui --per-concept --name fam writes them" in said
    assert said.splitlines()[-1].startswith("next: drop ")


def test_every_prompt_is_drawn(run: Path, tmp_path: Path) -> None:
    export(
        run, "comfyui", tmp_path / "w.json", "--prompt", "a <new1> cat", "--prompt", "a <new2> cat",
        "--region", "0,0,1,0.5:sky",
    )  # fmt: skip
    nodes = checked(tmp_path / "w.json")
    drawn = [said_by(nodes, sampler["positive"]) for sampler in of_kind(nodes, "KSampler")]
    assert [texts[0][0] for texts in drawn] == ["a embedding:new1 cat", "a embedding:new2 cat"]
    assert all(texts[1] == ("sky", (0.0, 0.0, 1.0, 0.5)) for texts in drawn)


def test_tokens_alone_need_no_weights(tiny_base_model: Path, tmp_path: Path) -> None:
    run = write_run(tmp_path / "tokens", tiny_base_model, share=0)
    export(run, "comfyui", tmp_path / "w.json", "--prompt", "a <new1>")
    assert not of_kind(checked(tmp_path / "w.json"), "LoraLoaderModelOnly")


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("<new1>", "embedding:new1"),
        ("a <new1>.", "a embedding:new1 ."),
        ("a <new1>, big", "a embedding:new1 , big"),
        ("(<new1>)", r"\( embedding:new1 \)"),
        ("no <other> (token)", r"no <other> \(token\)"),
    ],
)
def test_prompts_as_comfyui_reads_them(prompt: str, expected: str) -> None:
    assert in_comfyui(prompt, {"<new1>": "new1"}) == expected


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], r"--prompt: is missing, and a workflow draws one"),
        (["--prompt", "a <nwe2> cat"], r"names <nwe2>, which was not learned\. Did you mean <new2>\? Learned are"),
        (["--prompt", "a cat", "--region", "0,0,1,1:a <x>"], r"--region '0,0,1,1:a <x>': names <x>"),
        (["--prompt", "a cat", "--seed", str(2**64)], r"--seed: is .* must lie between 0 and"),
        (["--prompt", "a cat", "--region", "0,0,1:a cat"], r"does not start with four numbers"),
        (["--prompt", "a <new2>", "--upto", "<new1>"], r"names <new2>, which was learned after <new1>"),
        (["--prompt", "a cat", "--out", "w.txt"], r"w\.txt does not end in \.json"),
    ],
)
def test_mistakes_are_said_before_anything_loads(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: list[str], message: str
) -> None:
    monkeypatch.setattr("cns_lightning.diffusion.base_model.BaseModel.load", None)
    with pytest.raises(UserError, match=message):
        command(["--run", str(run), "--format", "comfyui", "--out", str(tmp_path / "w.json"), *more])
