"""Training loops beside each other on one UNet: ours without the framework, and what most people run.

Each takes its place on a frozen base model, trains, and leaves it as it was. All read the same encoded pictures, noise
and timesteps; none encodes pictures, as the published scripts do at every step.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from cns_lightning.determinism import noise_for, timestep_for
from cns_lightning.diffusion.cross_attention import WeightOverrides, key_value_projections
from cns_lightning.diffusion.denoising import denoising_loss
from cns_lightning.diffusion.projections import read_weights
from cns_lightning.diffusion.text import ConceptTokens, text_states
from cns_lightning.methods.cns import gram
from cns_lightning.methods.deltas import SparseDelta
from cns_lightning.methods.quadratic_form import QuadraticForm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cns_lightning.diffusion.base_model import BaseModel
    from cns_lightning.neurons.mask import NeuronMask

RANK = 4
PENALTY = 1e-3
FIXED_NOISE_SAMPLES, FIXED_NOISE_EVERY = 8, 50
"""Of `callbacks.MetricsTable`: the loss on fixed noise that `fit` computes."""


@dataclass(frozen=True)
class Batch:
    """Encoded pictures, noise and timesteps of one step, on the device."""

    latents: Tensor
    noise: Tensor
    timesteps: Tensor

    @classmethod
    def random(cls, base: BaseModel, count: int, seed: int) -> Batch:
        """Draws a batch of ``count`` samples."""
        drawn = torch.Generator().manual_seed(seed)
        shape = (count, *base.latent_shape)
        latents, noise = (torch.randn(shape, generator=drawn).to(base.device) for _ in range(2))
        timesteps = torch.randint(base.noise_scheduler.config["num_train_timesteps"], (count,), generator=drawn)
        return cls(latents, noise, timesteps.to(base.device))


class Loop(ABC):
    """One way to train.

    Args:
        base: base model, frozen.
        samples: number of samples of a step.
        precision: ``bf16-mixed`` runs the forward pass under autocast, as Lightning and accelerate do.
    """

    name = ""

    def __init__(self, base: BaseModel, samples: int, precision: str) -> None:
        self.base, self.samples, self.precision = base, samples, precision
        self.batches = [Batch.random(base, samples, seed) for seed in range(4)]
        self.done = 0

    @property
    def prompts(self) -> list[str]:
        """Returns the prompts of a step."""
        return ["a photo of a cat"] * self.samples

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Puts what is trained on the base model, and takes it off again."""
        self.attach()
        try:
            yield
        finally:
            self.detach()

    @abstractmethod
    def attach(self) -> None:
        """Puts what is trained on the base model."""

    @abstractmethod
    def detach(self) -> None:
        """Leaves the base model as it was."""

    @abstractmethod
    def step(self) -> None:
        """Takes one optimizer step."""

    def autocast(self) -> torch.autocast:
        """Returns the precision in which the forward pass runs."""
        kind = self.base.device.type
        return torch.autocast(kind, dtype=torch.bfloat16, enabled=self.precision == "bf16-mixed")

    def denoising(self, trains_text: bool) -> Tensor:
        """Returns the mean denoising loss of the next batch, a scalar."""
        batch = self.batches[self.done % len(self.batches)]
        self.done += 1
        states = text_states(self.base, self.prompts, with_gradient=trains_text)
        return denoising_loss(self.base, batch.latents, batch.noise, batch.timesteps, states).mean()


class BareLoop(Loop):
    """Our own maths in a plain loop: delta, token and tie; no Lightning, no callbacks, no loader."""

    name = "bare loop"
    token = "<bare1>"

    def __init__(self, base: BaseModel, samples: int, precision: str, mask: NeuronMask) -> None:
        super().__init__(base, samples, precision)
        self.mask, self.projections = mask, key_value_projections(base.unet)
        self.weights = read_weights(self.projections)
        self.tokens = ConceptTokens(base)
        self.tokens.add(self.token)

    @property
    def prompts(self) -> list[str]:
        """Returns prompts that name the token."""
        return [f"a photo of a {self.token} cat"] * self.samples

    def attach(self) -> None:
        """Overrides the projections, and trains the token's row."""
        device = self.base.device
        self.overrides = WeightOverrides(self.projections, detach_first_token=True)
        self.delta = SparseDelta(self.weights, self.mask, device)
        with torch.no_grad():
            states = gram(text_states(self.base, ["a photo of a cat", "a picture of a dog"]).states)
        nothing = {name: torch.zeros_like(weight) for name, weight in self.weights.items()}
        self.tie = QuadraticForm(self.mask, states, nothing, torch.zeros_like(states))
        self.rows = self.tokens.train(self.token)
        groups = [{"params": [self.delta.values], "lr": 1e-4}, {"params": self.rows, "lr": 1e-5}]
        self.optimizer = AdamW(groups, weight_decay=0.0)

    def detach(self) -> None:
        """Ends the token's training and takes the overrides off."""
        self.tokens.fold(self.token)
        self.overrides.remove()
        del self.delta, self.tie, self.rows, self.optimizer, self.overrides

    def loss(self) -> Tensor:
        """Returns the loss of a step, a scalar."""
        self.overrides.set(self.delta.weights())
        return self.denoising(trains_text=True) + PENALTY * self.tie(self.delta.values)

    def step(self) -> None:
        """Takes one optimizer step."""
        with self.autocast():
            loss = self.loss()
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def parts(self, seconds_of: Callable[[Callable[[], Any]], float]) -> dict[str, float]:
        """Returns the seconds of parts of a step, each by itself, the way back included.

        Args:
            seconds_of: seconds that a function takes.
        """
        batch = Batch.random(self.base, FIXED_NOISE_SAMPLES, 9)

        def text() -> None:
            with self.autocast():
                states = text_states(self.base, self.prompts, with_gradient=True).states
            states.float().sum().backward()

        def write() -> None:
            sum(weight.sum() for weight in self.delta.weights().values()).backward()  # type: ignore[union-attr]

        @torch.no_grad()
        def fixed_noise() -> None:
            self.overrides.set(self.delta.weights())
            with self.autocast():
                states = text_states(self.base, [self.prompts[0]] * FIXED_NOISE_SAMPLES)
                denoising_loss(self.base, batch.latents, batch.noise, batch.timesteps, states)

        def draw() -> None:
            for sample in range(self.samples):
                noise_for(self.base.latent_shape, 0, 0, 0, sample)
                timestep_for(self.base.noise_scheduler.config["num_train_timesteps"], 1, 0, "timestep", 0, 0, sample)

        found = {
            "text encoder": seconds_of(text),
            "weights with the delta": seconds_of(write),
            "tie (L_reg)": seconds_of(lambda: self.tie(self.delta.values).backward()),
            "optimizer": seconds_of(self.optimizer.step),
            "drawing noise and timesteps (on the host)": seconds_of(draw),
            "loss on fixed noise, a step's share": seconds_of(fixed_noise) / FIXED_NOISE_EVERY,
        }
        self.optimizer.zero_grad()
        return found


class LoraLoop(Loop):
    """A low-rank adapter of peft on queries, keys, values and outputs of all attentions; the text encoder is frozen."""

    name = f"peft LoRA, rank {RANK}"

    def attach(self) -> None:
        """Adds the adapter, in single precision."""
        from diffusers.training_utils import cast_training_params
        from peft import LoraConfig

        targets = ["to_q", "to_k", "to_v", "to_out.0"]
        config = LoraConfig(r=RANK, lora_alpha=RANK, init_lora_weights="gaussian", target_modules=targets)
        self.base.unet.add_adapter(config)
        cast_training_params(self.base.unet, dtype=torch.float32)
        self.trained = [each for each in self.base.unet.parameters() if each.requires_grad]
        self.optimizer = AdamW(self.trained, lr=1e-4)

    def detach(self) -> None:
        """Takes the adapter off."""
        self.base.unet.unload_lora()
        del self.trained, self.optimizer

    def step(self) -> None:
        """Takes one optimizer step."""
        with self.autocast():
            loss = self.denoising(trains_text=False)
        loss.backward()
        nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()


class CustomDiffusionLoop(Loop):
    """Custom Diffusion as it is commonly run: all key and value weights, and the token's row of the whole table.

    Without pictures of the class, which double a step.
    """

    name = "Custom Diffusion"
    token = "<custom1>"

    def __init__(self, base: BaseModel, samples: int, precision: str) -> None:
        super().__init__(base, samples, precision)
        self.tokens = ConceptTokens(base)
        self.tokens.add(self.token)
        self.projections = key_value_projections(base.unet)

    @property
    def prompts(self) -> list[str]:
        """Returns prompts that name the token."""
        return [f"a photo of a {self.token} cat"] * self.samples

    def attach(self) -> None:
        """Puts trainable copies in single precision in place of key and value weights and embedding tables."""
        tables = [self.base.embedding_table(number) for number in range(len(self.base.text_encoders))]
        modules: list[Any] = [*self.projections.values(), *tables]
        self.kept = [(module, module.weight) for module in modules]
        # The optimizer's copy is in single precision, the encoder may be in half.
        self.hooks = [table.register_forward_hook(partial(_rounded, table.weight.dtype)) for table in tables]
        for module, weight in self.kept:
            module.weight = nn.Parameter(weight.detach().float().clone())
        self.tables = [table.weight for table in tables]
        self.trained = [module.weight for module, _ in self.kept]
        self.optimizer = AdamW(self.trained, lr=1e-5)

    def detach(self) -> None:
        """Puts the frozen weights back."""
        for module, weight in self.kept:
            module.weight = weight
        for hook in self.hooks:
            hook.remove()
        del self.hooks, self.kept, self.tables, self.trained, self.optimizer

    def step(self) -> None:
        """Takes one optimizer step; of the gradient of a table only the token's row is kept."""
        with self.autocast():
            loss = self.denoising(trains_text=True)
        loss.backward()
        for number, table in enumerate(self.tables):
            assert table.grad is not None, "the prompt names the token"
            row = table.grad[self.tokens.row(self.token, number)].clone()
            table.grad.zero_()[self.tokens.row(self.token, number)] = row
        nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()


def _rounded(dtype: torch.dtype, table: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    """Forward hook: the output in another precision."""
    return output.to(dtype)


@contextmanager
def aside(base: BaseModel) -> Iterator[None]:
    """Takes off what a running `fit` has put on the base model; puts it back, and the tables' rows as they were."""
    modules = list(base.unet.modules())
    tables = [base.embedding_table(number) for number in range(len(base.text_encoders))]
    # Of the projections what gives them other weights, of compiled blocks what compiles them.
    shadows = [{name: vars(each).pop(name) for name in ("forward", "override") if name in vars(each)}
               for each in modules]  # fmt: skip
    hooks, rows = [dict(table._forward_hooks) for table in tables], [table.weight.detach().clone() for table in tables]
    for table in tables:
        table._forward_hooks.clear()
    try:
        yield
    finally:
        for module, shadow in zip(modules, shadows, strict=True):
            vars(module).update(shadow)
        for table, kept, content in zip(tables, hooks, rows, strict=True):
            table._forward_hooks.update(kept)
            with torch.no_grad():
                table.weight.copy_(content)


def seconds_of(act: Callable[[], Any], device: torch.device, repeats: int = 1) -> float:
    """Returns the mean seconds that a function takes, waiting for the device before and after."""
    wait_for(device)
    begin = time.perf_counter()
    for _ in range(repeats):
        act()
    wait_for(device)
    return (time.perf_counter() - begin) / repeats


def wait_for(device: torch.device) -> None:
    """Waits until a GPU has done what it was told; does nothing for a processor."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
