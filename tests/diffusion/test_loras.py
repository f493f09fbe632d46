"""LoRA files that are folded into a base model: every format, at any strength; or refused by name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from cns_lightning.cli.main import main
from cns_lightning.diffusion.base_model import BaseModel
from cns_lightning.diffusion.base_source import BaseSource
from cns_lightning.errors import UserError
from cns_lightning.pipeline import load_pipeline
from cns_lightning.storage import read_json
from tests.runs.learning import arguments, write_sequence

pytest.importorskip("peft", reason="LoRA files are read with peft")

UNET = (
    "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0",
    "mid_block.attentions.0.transformer_blocks.0.attn2.to_k",
    "mid_block.attentions.0.transformer_blocks.0.attn2.to_v",
    "mid_block.attentions.0.transformer_blocks.0.ff.net.0.proj",
    "up_blocks.1.attentions.0.proj_in",
    "down_blocks.0.resnets.0.conv1",
)
TEXT = tuple(
    f"encoder.layers.{layer}.{part}"
    for layer in range(2)
    for part in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj", "mlp.fc1", "mlp.fc2")
)
RANK = 3
Factors = dict[str, tuple[Tensor, Tensor, float]]


def layers(base: BaseModel, names: dict[str, tuple[str, ...]]) -> dict[str, nn.Module]:
    """Returns the layers that a LoRA moves, by ``unet:NAME`` and ``0:NAME`` for the first text encoder."""
    found = {f"unet:{name}": base.unet.get_submodule(name) for name in names.get("unet", ())}
    for number, encoder in enumerate(base.text_encoders):
        # transformers 5.6 took this prefix out of the names.
        modules = {name.removeprefix("text_model."): module for name, module in encoder.named_modules()}
        found |= {f"{number}:{name}": modules[name] for name in names.get(str(number), ())}
    return found


def factors(moved: dict[str, nn.Module], alphas: bool) -> Factors:
    """Makes up, for every layer, up and down as kohya's trainer has them, and alpha."""
    generator, found = torch.Generator().manual_seed(0), {}
    for number, (name, layer) in enumerate(moved.items()):
        weight: Any = layer.weight
        down = torch.randn(RANK, *weight.shape[1:], generator=generator).half()
        up = torch.randn(weight.shape[0], RANK, *[1] * (weight.ndim - 2), generator=generator).half()
        found[name] = (up, down, 1.0 + number % 3 if alphas else float(RANK))
    return found


def deltas(moved: Factors) -> dict[str, Tensor]:
    """Multiplies factors out, in double precision."""
    return {
        name: torch.einsum("or,ri...->oi...", up.double().flatten(1), down.double()) * alpha / RANK
        for name, (up, down, alpha) in moved.items()
    }


def in_kohya(moved: Factors, is_xl: bool = False) -> dict[str, Tensor]:
    found = {}
    for name, (up, down, alpha) in moved.items():
        part, module = name.split(":")
        prefix = "lora_unet_" if part == "unet" else f"lora_te{int(part) + 1 if is_xl else ''}_text_model_"
        key = prefix + module.replace(".", "_")
        found |= {f"{key}.lora_up.weight": up, f"{key}.lora_down.weight": down, f"{key}.alpha": torch.tensor(alpha)}
    return found


def in_diffusers(moved: Factors) -> dict[str, Tensor]:
    found = {}
    for name, (up, down, _) in moved.items():
        part, module = name.split(":")
        key = f"unet.{module}.lora" if part == "unet" else f"text_encoder.text_model.{module}.lora_linear_layer"
        found |= {f"{key}.up.weight": up, f"{key}.down.weight": down}
    return found


def in_peft(moved: Factors) -> dict[str, Tensor]:
    found = {}
    for name, (up, down, _) in moved.items():
        part, module = name.split(":")
        key = f"unet.{module}" if part == "unet" else f"text_encoder.text_model.{module}"
        found |= {f"{key}.lora_B.weight": up, f"{key}.lora_A.weight": down}
    return found


def write(path: Path, tensors: dict[str, Tensor]) -> Path:
    save_file({name: tensor.clone().contiguous() for name, tensor in tensors.items()}, path, {"format": "pt"})
    return path


def weights(base: BaseModel) -> dict[str, Tensor]:
    """Returns copies of all weights, by the names that `layers` uses."""
    parts = {"unet": base.unet, "vae": base.vae} | {str(n): each for n, each in enumerate(base.text_encoders)}
    return {
        f"{part}:{name.removeprefix('text_model.')}": weight.detach().clone()
        for part, module in parts.items()
        for name, weight in module.named_parameters()
    }


def check_folded(folded: BaseModel, plain: BaseModel, added: dict[str, Tensor], strength: float) -> None:
    before, after = weights(plain), weights(folded)
    assert before.keys() == after.keys()
    for name, weight in before.items():
        delta = added.get(name.removesuffix(".weight"))
        expected = weight if delta is None else (weight.double() + strength * delta).float()
        assert (
            torch.allclose(after[name], expected, rtol=2e-7, atol=0)
            if delta is not None
            else torch.equal(after[name], weight)
        ), name
    assert not any(weight.requires_grad for weight in folded.unet.parameters())


FORMATS: dict[str, tuple[Callable[[Factors], dict[str, Tensor]], bool]] = {
    "kohya": (in_kohya, True), "diffusers": (in_diffusers, False), "peft": (in_peft, False),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("strength", [0.8, -1.5])
def test_a_file_of_any_format_adds_its_factors(
    base: BaseModel, tiny_base_model: Path, tmp_path: Path, form: str, strength: float
) -> None:
    spell, has_alphas = FORMATS[form]
    moved = factors(layers(base, {"unet": UNET, "0": TEXT}), has_alphas)
    file = write(tmp_path / "style.safetensors", spell(moved))
    folded = BaseModel.load(BaseSource.of(str(tiny_base_model), strengths={str(file): strength}))
    check_folded(folded, base, deltas(moved), strength)


def test_both_text_encoders_of_sdxl(xl_base: BaseModel, tiny_xl_base_model: Path, tmp_path: Path) -> None:
    moved = factors(layers(xl_base, {"unet": UNET[1:4], "0": TEXT, "1": TEXT}), alphas=True)
    file = write(tmp_path / "style.safetensors", in_kohya(moved, is_xl=True))
    folded = BaseModel.load(BaseSource.of(str(tiny_xl_base_model), strengths={str(file): 0.5}))
    check_folded(folded, xl_base, deltas(moved), 0.5)


def test_several_files_add_up(base: BaseModel, tiny_base_model: Path, tmp_path: Path) -> None:
    one, two = (factors(layers(base, {"unet": names}), alphas=True) for names in (UNET[:3], UNET[2:]))
    files = {str(write(tmp_path / f"{n}.safetensors", in_kohya(each))): 1.0 for n, each in enumerate((one, two))}
    folded = BaseModel.load(BaseSource.of(str(tiny_base_model), strengths=files))
    first, second = deltas(one), deltas(two)
    both = {name: first.get(name, 0) + second.get(name, 0) for name in first | second}
    before, after = weights(base), weights(folded)
    for name, delta in both.items():
        assert torch.allclose(
            after[f"{name}.weight"], (before[f"{name}.weight"].double() + delta).float(), rtol=1e-6, atol=1e-6
        )


def test_the_fingerprint_covers_content_and_strength_not_the_place(
    base: BaseModel, tiny_base_model: Path, tmp_path: Path
) -> None:
    moved = factors(layers(base, {"unet": UNET}), alphas=True)
    file = write(tmp_path / "style.safetensors", in_kohya(moved))
    (tmp_path / "elsewhere").mkdir()
    other = write(tmp_path / "elsewhere" / "other name.safetensors", in_kohya(moved))
    prints = [
        BaseModel.load(BaseSource.of(str(tiny_base_model), strengths=strengths)).fingerprint()
        for strengths in ({str(file): 0.8}, {str(other): 0.8}, {str(file): 0.7}, None)
    ]
    assert prints[0] == prints[1]
    assert len(set(prints)) == 3
    assert prints[3] == base.fingerprint()


def refused(base: Path, file: Path) -> str:
    with pytest.raises(UserError) as found:
        BaseModel.load(BaseSource.of(str(base), strengths={str(file): 1.0}))
    assert str(file) in str(found.value)
    return str(found.value)


def test_a_lora_of_another_model_is_refused(
    base: BaseModel, xl_base: BaseModel, tiny_base_model: Path, tiny_xl_base_model: Path, tmp_path: Path
) -> None:
    own = write(tmp_path / "own.safetensors", in_kohya(factors(layers(base, {"unet": UNET[1:3]}), alphas=True)))
    assert "does not fit" in (said := refused(tiny_xl_base_model, own))
    assert "size mismatch" in said
    names = {"unet": UNET[1:3], "1": TEXT}
    other = write(tmp_path / "xl.safetensors", in_kohya(factors(layers(xl_base, names), alphas=True), is_xl=True))
    assert "does not fit" in refused(tiny_base_model, other)


@pytest.mark.parametrize("spell", [in_kohya, in_diffusers, in_peft])
def test_tensors_that_find_no_place_are_refused(
    base: BaseModel, tiny_base_model: Path, tmp_path: Path, spell: Callable[[Factors], dict[str, Tensor]]
) -> None:
    moved = factors(layers(base, {"unet": UNET[:3]}), alphas=False)
    moved["unet:down_blocks.7.attentions.0.transformer_blocks.0.attn2.to_k"] = moved.pop(f"unet:{UNET[1]}")
    message = refused(tiny_base_model, write(tmp_path / "style.safetensors", spell(moved)))
    assert "does not fit the base model" in message
    assert message.endswith("Give a LoRA that was trained on this kind of base model")


def test_a_part_that_the_model_does_not_have_is_refused(base: BaseModel, tiny_base_model: Path, tmp_path: Path) -> None:
    tensors = in_peft(factors(layers(base, {"unet": UNET[:2]}), alphas=False))
    tensors |= {name.replace("unet.", "transformer."): value + 1 for name, value in tensors.items()}
    message = refused(tiny_base_model, write(tmp_path / "style.safetensors", tensors))
    assert "4 of 8 tensors find no place (transformer." in message


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("lora_unet_mid_block_attentions_0.dora_scale", "is a DoRA"),
        ("lora_unet_mid_block_attentions_0.hada_w1_a", "is a LoHa"),
        ("lora_unet_mid_block_attentions_0.lokr_w1", "is a LoKr"),
        ("lora_unet_mid_block_attentions_0.diff", "whole differences"),
        ("base_model.model.mid_block.attn2.to_k.lora_A.weight", "as peft alone saves it"),
        ("emb_params", "is not a LoRA: it holds emb_params"),
    ],
)
def test_files_of_another_kind_say_what_they_are(tiny_base_model: Path, tmp_path: Path, name: str, said: str) -> None:
    assert said in refused(tiny_base_model, write(tmp_path / "style.safetensors", {name: torch.zeros(2, 2)}))


def test_numbers_that_are_not_finite_and_cut_off_files_are_refused(
    base: BaseModel, tiny_base_model: Path, tmp_path: Path
) -> None:
    tensors = in_kohya(factors(layers(base, {"unet": UNET[:2]}), alphas=False))
    name = next(each for each in tensors if each.endswith("lora_up.weight"))
    tensors[name][0, 0] = torch.inf
    file = write(tmp_path / "style.safetensors", tensors)
    assert f"not finite in {name}" in refused(tiny_base_model, file)
    file.write_bytes(file.read_bytes()[:-8])
    assert "is damaged or not a safetensors file" in refused(tiny_base_model, file)


def test_peft_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cns_lightning.diffusion.base_source.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"read with peft, which is not installed\. Install it: pip install"):
        BaseSource.of("miniature", strengths={str(tmp_path / "style.safetensors"): 1.0})


def test_a_run_keeps_its_loras(
    base: BaseModel, tiny_base_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = factors(layers(base, {"unet": UNET, "0": TEXT}), alphas=True)
    file = write(tmp_path / "style.safetensors", in_kohya(moved))
    sequence, run = write_sequence(tmp_path / "sequence", ["cat", "dog"]), tmp_path / "run"

    def fit(place: Path, strength: float) -> int:
        loras = ["--model.base_loras", f'{{"{place}": {strength}}}']
        return main(arguments(tiny_base_model, sequence, run, *loras, steps=2))

    assert fit(file, 0.8) == 0
    entry = read_json(run / "registry" / "registry.json")["base_model"]
    assert [(each["file"], each["strength"]) for each in entry["loras"]] == [(str(file), 0.8)]
    assert "with style.safetensors at 0.8 folded in" in (run / "report.html").read_text("utf-8")
    learned: Any = load_pipeline(run)
    name = "down_blocks.0.resnets.0.conv1"  # which no concept moves
    expected = (base.unet.get_submodule(name).weight.double() + 0.8 * deltas(moved)[f"unet:{name}"]).float()  # type: ignore[union-attr,operator]
    assert torch.allclose(learned.unet.get_submodule(name).weight, expected, rtol=2e-7, atol=0)
    capsys.readouterr()
    # Other strengths, or none, are another base model.
    for words in (["--model.base_loras", f'{{"{file}": 0.7}}'], []):
        assert main(arguments(tiny_base_model, sequence, run, *words, steps=2)) == 2
        assert "base model has style.safetensors at 0.8 folded in" in capsys.readouterr().err
    assert main(["concepts", "--run", str(run), "--verify"]) == 0
    assert "with style.safetensors at 0.8 folded in is the model that was learned on" in capsys.readouterr().out
    # The exported folder has them in its weights.
    assert main(["export", "--run", str(run), "--format", "diffusers", "--out", str(tmp_path / "out")]) == 0
    exported = load_file(tmp_path / "out" / "unet" / "diffusion_pytorch_model.safetensors")
    assert torch.equal(exported[f"{name}.weight"], learned.unet.get_submodule(name).weight)
    assert "learned on it with style.safetensors at 0.8 folded in" in (tmp_path / "out" / "README.md").read_text()
    capsys.readouterr()
    # A file that is gone is named; one that moved goes on, and is known from then on.
    moved_file = file.rename(tmp_path / "moved.safetensors")
    draw = ["generate", "--run", str(run), "--prompt", "a <new1> cat", "--n", "1", "--steps", "1"]
    draw += ["--out", str(tmp_path / "picture.png")]
    assert main(draw) == 2
    assert f"LoRA file {file}: is gone; the base model" in capsys.readouterr().err
    assert fit(moved_file, 0.8) == 0
    assert main(draw) == 0
    assert main([*draw, "--base-model", str(tiny_base_model), "--seed", "1"]) == 0
    capsys.readouterr()
    write(moved_file, in_kohya(factors(layers(base, {"unet": UNET[:1]}), alphas=True)))
    assert main(draw) == 2
    assert f"LoRA file {moved_file}: has changed" in capsys.readouterr().err


def test_wrong_settings_are_refused_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pickled = tmp_path / "style.ckpt"
    pickled.write_bytes(b"")
    zero = write(tmp_path / "zero.safetensors", {"a": torch.zeros(1)})
    loras = f'{{"nowhere.safetensors": 1, "{pickled}": 1.0, "{zero}": 0}}'
    sequence = write_sequence(tmp_path / "sequence", ["cat"])
    assert main(arguments(Path("miniature"), sequence, tmp_path / "run", "--model.base_loras", loras)) == 2
    said = capsys.readouterr().err
    assert "nowhere.safetensors: there is no such file" in said
    assert "style.ckpt: is a .ckpt, not a .safetensors file" in said
    assert "zero.safetensors: has strength 0" in said
    assert not (tmp_path / "run").exists()
