"""C-LoRA: what earlier concepts moved is kept, what they left alone is free; its token starts from nothing."""

from pathlib import Path

import pytest
import torch
import yaml

from cns_lightning.cli.main import main
from cns_lightning.diffusion.base_model import BaseModel
from cns_lightning.diffusion.cross_attention import key_value_projections
from cns_lightning.diffusion.start_embeddings import random_embedding
from cns_lightning.methods.continual_diffusion import ContinualDiffusion, self_regularization
from cns_lightning.registry.registry import NeuronRegistry
from tests.runs.learning import arguments, learn, write_sequence


def test_penalty_is_zero_on_untouched_entries_and_grows_with_what_was_moved() -> None:
    generator = torch.Generator().manual_seed(0)
    earlier = torch.randn(5, 4, generator=generator) * (torch.rand(5, 4, generator=generator) < 0.5)
    product = torch.randn(5, 4, generator=generator, requires_grad=True)
    self_regularization([earlier], [product]).backward()
    assert product.grad is not None
    assert (product.grad[earlier == 0] == 0).all()
    assert torch.allclose(product.grad, 2 * earlier.square() * product.detach())
    by_hand = sum((abs(float(earlier[i, j])) * float(product.detach()[i, j])) ** 2 for i in range(5) for j in range(4))
    assert abs(float(self_regularization([earlier], [product]).detach()) - by_hand) < 1e-5


def test_weights_are_the_base_plus_every_product(tiny_base_model: Path, tmp_path: Path) -> None:
    run = learn("continual_diffusion", tiny_base_model, tmp_path)
    registry = NeuronRegistry.load(run / "registry")
    base = {
        name: each.weight.detach()
        for name, each in key_value_projections(BaseModel.load(str(tiny_base_model)).unet).items()
    }
    expected = {name: weight.double() for name, weight in base.items()}
    for record in registry.records:
        assert record.mask is None
        for name, (up, down) in record.factors.items():
            expected[name] = expected[name] + up.double() @ down.double()
    weights = registry.weights()
    assert all(torch.allclose(weights[name].double(), expected[name], rtol=0, atol=1e-6) for name in base)
    assert any(not torch.equal(weights[name], base[name]) for name in base)


def test_token_starts_at_random_and_prompts_leave_the_class_word_out(tiny_base_model: Path, tmp_path: Path) -> None:
    sequence, run = write_sequence(tmp_path / "sequence", ["cat"]), tmp_path / "run"
    still = ("--model.method.init_args.token_learning_rate", "0")
    assert main(arguments(tiny_base_model, sequence, run, *still, method="continual_diffusion", steps=1)) == 0
    started = random_embedding(BaseModel.load(str(tiny_base_model)), "cat", 0, "<new1>")[0]
    record = NeuronRegistry.load(run / "registry").record("<new1>")
    assert torch.equal(record.embeddings[0], started)
    assert record.prompt == "photo of a <new1>"
    content = yaml.safe_load((run / "config.yaml").read_text("utf-8"))
    assert content["settings"]["model.method.init_args.rank"] == 16


def test_a_run_is_verified(tiny_base_model: Path, tmp_path: Path) -> None:
    run = learn("continual_diffusion", tiny_base_model, tmp_path)
    assert main(["concepts", "--run", str(run), "--verify"]) == 0
    assert main(["concepts", "--run", str(run)]) == 0


def test_from_the_second_stage_on_the_penalty_holds_what_the_first_moved(
    tiny_base_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[int, list[float | None]] = {}
    held: dict[int, dict[str, torch.Tensor]] = {}
    own = ContinualDiffusion.penalty

    def penalty(self: ContinualDiffusion) -> torch.Tensor | None:
        found, stage = own(self), self.context.stage
        seen.setdefault(stage, []).append(None if found is None else float(found.detach()))
        held[stage] = dict(zip(self.delta.names, (matrix.clone() for matrix in self.earlier), strict=True))
        return found

    monkeypatch.setattr(ContinualDiffusion, "penalty", penalty)
    registry = NeuronRegistry.load(learn("continual_diffusion", tiny_base_model, tmp_path) / "registry")
    assert set(seen[0]) == {None}
    # The product starts at zero, so the first step of the stage has nothing to hold.
    assert seen[1][0] == 0.0
    assert (seen[1][-1] or 0.0) > 0
    first = registry.weights("<new1>")
    for name, weight in key_value_projections(BaseModel.load(str(tiny_base_model)).unet).items():
        torch.testing.assert_close(held[1][name], first[name] - weight.weight.detach(), rtol=0, atol=1e-6)
