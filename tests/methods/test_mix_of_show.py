"""Mix-of-Show: what it trains, when vectors stop, and that fusion minimizes what it says."""

from pathlib import Path
from typing import Any

import pytest
import torch

from cns_lightning.cli.main import main
from cns_lightning.diffusion.base_model import BaseModel
from cns_lightning.diffusion.cross_attention import key_value_projections
from cns_lightning.diffusion.layerwise import LayerwiseText
from cns_lightning.diffusion.projections import TEXT_PREFIX, read_weights, write_weights
from cns_lightning.diffusion.text import text_states
from cns_lightning.methods.mix_of_show import MixOfShow, Solver
from cns_lightning.pipeline import load_pipeline
from cns_lightning.registry.application import write_tokens
from cns_lightning.registry.registry import NeuronRegistry
from tests.runs.learning import learn

FAST = ["--model.method.learning_rate", "0.05", "--model.method.text_learning_rate", "0.05"]


@pytest.fixture(scope="module")
def run(tiny_base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return learn("mix_of_show", tiny_base_model, tmp_path_factory.mktemp("mix"), *FAST, "--trainer.precision", "32")


def _fused(run: Path, base_folder: Path, count: int, solver: Solver) -> tuple[dict[str, Any], dict[str, Any]]:
    registry, base = NeuronRegistry.load(run / "registry"), BaseModel.load(str(base_folder))
    method = MixOfShow(solver=solver, fusion_steps=2, iterations=300, other_iterations=300, ridge=1e-7)
    pretrained = read_weights(method.projections(base))
    records = list(registry.records)[:count]
    write_tokens(base.pipeline(), "tiny", records)
    return method.fuse(records, base, pretrained), pretrained


def test_every_projection_and_both_vectors_of_every_layer_move(run: Path, tiny_base_model: Path) -> None:
    record = NeuronRegistry.load(run / "registry").record("<new1>")
    base = BaseModel.load(str(tiny_base_model))
    assert record.factors.keys() == MixOfShow().projections(base).keys()
    assert any(name.startswith(TEXT_PREFIX) for name in record.factors)
    assert all(bool(up.any()) for up, _ in record.factors.values())
    (vectors,) = record.embeddings
    start = MixOfShow().initial_embedding(base, _concept(), seed=0)[0]
    assert vectors.shape == start.shape == (2 * record.layers, vectors.shape[1])
    assert bool((vectors != start).any(dim=1).all())


def _concept() -> Any:
    from cns_lightning.sequences.sequence import Concept

    return Concept("<new1>", "cat", "animal", Path())


def test_both_solvers_read_prompts_alike(run: Path, tiny_base_model: Path) -> None:
    records = list(NeuronRegistry.load(run / "registry").records)
    states = []
    for solver in ("gram", "iterations", None):
        base = BaseModel.load(str(tiny_base_model))
        write_tokens(base.pipeline(), "tiny", records)
        if solver is not None:
            write_weights(base, _fused(run, tiny_base_model, 2, solver)[0])
        encoded = text_states(base, [record.prompt for record in records])
        # What is read; elsewhere the two may differ, as iterations end when single precision sees no gain.
        states.append(encoded.states[encoded.positions])
    gram, iterations, pretrained = states
    assert float((gram - iterations).norm()) < 0.01 * float((gram - pretrained).norm())


def test_fused_keys_and_values_read_each_layers_own_vectors(run: Path, tiny_base_model: Path) -> None:
    (record,) = list(NeuronRegistry.load(run / "registry").records)[:1]
    fused, pretrained = _fused(run, tiny_base_model, 1, "gram")
    base = BaseModel.load(str(tiny_base_model))
    write_tokens(base.pipeline(), "tiny", [record])
    write_weights(base, fused)
    own = {name: weight.clone() for name, weight in pretrained.items()}
    record.add_to(own)
    encoded = text_states(base, [record.prompt])
    states = encoded.states[encoded.token_ids >= base.vocabulary_sizes[0]]
    for number, name in enumerate(key_value_projections(base.unet)):
        read = LayerwiseText.of(base).own_part(states, number // 2)
        wanted = read @ (own[name] - pretrained[name]).T
        assert float((read @ (fused[name] - own[name]).T).norm()) < 1e-4 * float(wanted.norm()), name


def test_a_fused_run_verifies(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["concepts", "--run", str(run), "--verify"]) == 0
    assert "are moved by concepts" in capsys.readouterr().out


def test_one_pipeline_draws_with_layerwise_tokens_and_regions(run: Path) -> None:
    pipe: Any = load_pipeline(run)
    assert pipe.maybe_convert_prompt("a <new1>", pipe.tokenizer) == "a <new1> <new1>_1"
    ids = pipe.tokenizer("a <new1>", return_tensors="pt").input_ids
    width = pipe.text_encoder.config.hidden_size
    layers = NeuronRegistry.load(run / "registry").record("<new1>").layers
    assert pipe.text_encoder(ids).last_hidden_state.shape[-1] == layers * width
    arguments = ["generate", "--run", str(run), "--prompt", "a <new1>", "--steps", "2", "--n", "1"]
    target = run.parent / "picture.png"
    assert main([*arguments, "--region", "0,0,0.5,1:a <new2>", "--out", str(target)]) == 0
    assert target.exists()


def test_vectors_stay_once_they_are_long_enough() -> None:
    method = MixOfShow(largest_norm=1.0)
    method.token = torch.nn.ParameterList([torch.zeros(2, 4)])
    method.register_buffer("is_still", torch.zeros((), dtype=torch.bool))
    method.register_buffer("kept", torch.zeros(2, 4))
    lengths = []
    for length in (0.5, 1.0, 3.0, 0.1):
        with torch.no_grad():
            method.token[0].fill_(length / 2)
        method.after_step(0)
        lengths.append(float(method.token[0].detach().norm(dim=-1).mean()))
    assert lengths == [0.5, 1.0, 1.0, 1.0]
