"""A compiled and a captured step compute what the plain one does, or are refused; nothing is compiled anew."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

from cns_lightning.callbacks import step_mode
from cns_lightning.cli.main import main
from cns_lightning.diffusion.base_model import BaseModel
from cns_lightning.diffusion.cross_attention import WeightOverrides, key_value_projections
from cns_lightning.diffusion.projections import read_weights
from cns_lightning.diffusion.sampling import generate_pairs
from cns_lightning.diffusion.text import TextStates, text_states
from cns_lightning.errors import UserError
from cns_lightning.training.compiled_step import CompiledBlocks, CompiledStep, _with_own_gradient
from cns_lightning.training.step import PlainStep
from tests.runs.learning import arguments, write_sequence
from tests.runs.stop_at import CALLBACK, StopAt


class AllWeights:
    """Stands for a method that trains all key and value weights."""

    prior_weight = 0.0

    def __init__(self, base: BaseModel) -> None:
        self.base, self.deltas = base, {}
        weights = read_weights(key_value_projections(base.unet))
        self.deltas = {name: nn.Parameter(torch.zeros_like(each)) for name, each in weights.items()}
        self.weights = weights

    def trained_weights(self) -> dict[str, Tensor]:
        return {name: each + self.deltas[name] for name, each in self.weights.items()}

    def text_states(self, prompts: list[str]) -> TextStates:
        return text_states(self.base, prompts)

    def penalty(self) -> None:
        return None

    def parameters(self) -> list[nn.Parameter]:
        return list(self.deltas.values())


def batch(base: BaseModel, seed: int) -> dict[str, Any]:
    drawn = torch.Generator().manual_seed(seed)
    latents, noise = (torch.randn(2, *base.latent_shape, generator=drawn) for _ in range(2))
    region = torch.ones(2, 1, *base.latent_shape[1:])
    return {"latents": latents, "noise": noise, "timestep": torch.tensor([100 + seed, 700]),
            "valid_region": region, "prompt": ["a cat", "a dog in a house"]}  # fmt: skip


def gradient(step: Callable[[dict[str, Any]], Any], method: AllWeights, given: dict[str, Any]) -> Tensor:
    found = torch.autograd.grad(step(given).total(), method.parameters())
    return torch.cat([each.flatten() for each in found])


@pytest.fixture
def overrides(base: BaseModel) -> Iterator[WeightOverrides]:
    made = WeightOverrides(key_value_projections(base.unet), detach_first_token=True)
    torch._dynamo.reset()
    yield made
    made.remove()
    torch._dynamo.reset()


@pytest.fixture
def method(base: BaseModel) -> Any:
    return AllWeights(base)


@pytest.mark.parametrize("is_checkpointed", [False, True])
def test_compiled_blocks_give_the_gradient_and_are_compiled_once(
    base: BaseModel, overrides: WeightOverrides, method: Any, is_checkpointed: bool
) -> None:
    if is_checkpointed:
        base.unet.enable_gradient_checkpointing()
    expected = [gradient(PlainStep(base, method, overrides), method, batch(base, seed)) for seed in range(3)]
    counter = CompileCounterWithBackend("aot_eager")
    step = CompiledStep(base, method, overrides, method.parameters, backend=counter)
    assert torch.allclose(gradient(step, method, batch(base, 0)), expected[0], rtol=1e-4, atol=1e-7)
    blocks: list[Any] = [each for each in base.unet.modules() if type(each).__name__ == "BasicTransformerBlock"]
    shapes = {each.attn1.to_q.in_features for each in blocks}
    made = counter.frame_count
    # Those of one width may stand at two sizes of picture.
    assert 1 <= made <= 2 * len(shapes) < 2 * len(blocks)
    # Neither other tensors of the same shapes, as the next step and the next stage bring, nor drawing compile anew.
    for seed in (1, 2):
        assert torch.allclose(gradient(step, method, batch(base, seed)), expected[seed], rtol=1e-4, atol=1e-7)
    with torch.no_grad():
        generate_pairs(base.pipeline(), [("a cat", 0)], 2, 1.0)
    assert torch.allclose(gradient(step, method, batch(base, 0)), expected[0], rtol=1e-4, atol=1e-7)
    assert counter.frame_count == made


def wrong_way_back(graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., Any]:
    """Compiles to code that computes the right numbers and loses half of the gradient on the way."""

    def run(*given: Any) -> Any:
        return tuple(0.5 * each + 0.5 * each.detach() for each in graph(*given))

    return run


def test_a_compiler_that_gets_the_gradient_wrong_is_refused(
    base: BaseModel, overrides: WeightOverrides, method: Any
) -> None:
    step = CompiledStep(base, method, overrides, method.parameters, backend=wrong_way_back)
    with pytest.raises(UserError, match=r"training\.compile: gives a gradient \d.* off that of the plain step"):
        step(batch(base, 0))
    assert not step.checked


def test_the_gradient_of_what_learns_later_is_checked_too(
    base: BaseModel, overrides: WeightOverrides, method: Any
) -> None:
    step = CompiledStep(base, method, overrides, method.parameters, backend="aot_eager")
    first, *others = method.parameters()
    for each in others:
        each.requires_grad_(False)
    step(batch(base, 0))
    assert len(step.checked) == 1
    step.blocks = CompiledBlocks(base.unet, wrong_way_back)
    step(batch(base, 1))  # checked already
    for each in (first, *others):
        each.requires_grad_(each is not first)
    with pytest.raises(UserError, match="off that of the plain step"):
        step(batch(base, 2))


def test_a_loss_that_is_not_finite_is_not_the_compilers_fault(
    base: BaseModel, overrides: WeightOverrides, method: Any
) -> None:
    step = CompiledStep(base, method, overrides, method.parameters, backend=wrong_way_back)
    given = batch(base, 0)
    assert step(given | {"latents": given["latents"] * torch.nan}).losses.isnan().all()
    # Two ranks agree: one whose gradient is right stops with the other.
    asked: list[Tensor] = []
    step.most = lambda distance: (asked.append(distance), torch.tensor(0.5))[1]
    with pytest.raises(UserError, match=r"a gradient 50\.0% off"):
        step(given)
    assert len(asked) == 1


def test_a_captured_unet_is_handed_all_that_changes(
    base: BaseModel, overrides: WeightOverrides, method: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    captured: list[Callable[..., Tensor]] = []

    def capture(predict: Callable[..., Tensor], static: tuple[Tensor, ...], **_: Any) -> Callable[..., Tensor]:
        predict(*static)
        captured.append(predict)
        return predict

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", capture)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 1))
    plain = PlainStep(base, method, overrides)
    step = CompiledStep(base, method, overrides, method.parameters, backend=None, captures=True)
    for seed in range(3):
        for each in method.deltas.values():
            each.data.fill_(0.01 * seed)
        assert torch.equal(gradient(step, method, batch(base, seed)), gradient(plain, method, batch(base, seed)))
    assert len(captured) == 1
    step({name: each[:1] for name, each in batch(base, 0).items()})
    assert len(captured) == 2
    # Pictures of the class have graphs of their own: replayed twice before its way back, one would lose what it needs.
    method.prior_weight = 0.7
    given = batch(base, 0)
    given |= {f"prior_{name}": batch(base, 1)[name] for name in ("latents", "noise", "timestep", "prompt")}
    assert torch.equal(gradient(step, method, given), gradient(plain, method, given))
    assert len(captured) == 3


def test_gradients_of_a_graph_that_add_up_are_copies() -> None:
    class Replayed(torch.autograd.Function):
        """Returns one tensor, written anew, as the gradient of every call, as a graph does."""

        @staticmethod
        def forward(context: Any, kept: Tensor, tensor: Tensor) -> Tensor:
            context.kept = kept
            return tensor.sum()

        @staticmethod
        def backward(context: Any, *gradients: Any) -> Any:
            context.kept += 1
            return None, context.kept.detach()

    held = torch.zeros(3)
    weight = nn.Parameter(torch.zeros(3))
    for _ in range(2):
        Replayed.apply(held, _with_own_gradient(weight)).backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == [3.0, 3.0, 3.0]


def test_what_cannot_be_captured_is_refused(
    tiny_base_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sequence = write_sequence(tmp_path / "sequence", ["cat"])
    more = ("--training.cuda_graph", "true", "--model.gradient_checkpointing", "true")
    assert main(arguments(tiny_base_model, sequence, tmp_path / "run", *more)) == 2
    said = capsys.readouterr().err
    assert "training.cuda_graph: needs an NVIDIA GPU, and this run computes on cpu" in said
    assert "training.cuda_graph: cannot capture a UNet that computes its blocks again" in said


def test_a_compiled_run_goes_on_exactly_and_in_its_own_mode(
    tiny_base_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # What compiles to C++ or for a GPU takes a minute here; this one goes the same way without that.
    monkeypatch.setattr(step_mode, "BACKEND", "aot_eager")
    sequence, compiled = write_sequence(tmp_path / "sequence", ["cat", "dog"]), ("--training.compile", "true")
    whole, other = (arguments(tiny_base_model, sequence, tmp_path / name, CALLBACK, *compiled) for name in "ab")
    assert main(whole) == 0
    monkeypatch.setattr(StopAt, "step", 5)
    with pytest.raises(SystemExit):
        main(other)
    monkeypatch.setattr(StopAt, "step", None)
    assert main([*other, "--training.compile", "false"]) == 2
    assert "training.compile was True and is False" in capsys.readouterr().err
    assert main(other) == 0
    for name in ("registry/registry.json", "metrics.csv"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
