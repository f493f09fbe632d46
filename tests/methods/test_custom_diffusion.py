"""Custom Diffusion in a run: concepts by themselves, one merged model, pictures of the class drawn once."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from cns_lightning.cli.main import main
from cns_lightning.determinism import normal
from cns_lightning.diffusion.base_model import BaseModel
from cns_lightning.diffusion.cross_attention import key_value_projections
from cns_lightning.diffusion.denoising import denoising_loss
from cns_lightning.diffusion.rare_words import chosen_rare_words
from cns_lightning.diffusion.start_embeddings import initial_embedding
from cns_lightning.diffusion.text import ConceptTokens
from cns_lightning.errors import UserError
from cns_lightning.methods.constrained_merge import ConstrainedMerge
from cns_lightning.methods.custom_diffusion import CustomDiffusion, states_of_captions, states_of_words
from cns_lightning.methods.token_starts import token_starts
from cns_lightning.module import ContinualPersonalization
from cns_lightning.pipeline import load_pipeline
from cns_lightning.registry.registry import NeuronRegistry
from cns_lightning.sequences.calibration import read_calibration_prompts
from cns_lightning.sequences.sequence import Concept
from tests.runs.learning import arguments, learn, write_sequence

FAST = ("--model.method.init_args.learning_rate", "1e-2")


@pytest.fixture(scope="module")
def finished(tiny_base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Returns base model, sequence file and run folder of a finished run of two concepts."""
    folder = tmp_path_factory.mktemp("custom_diffusion")
    sequence = write_sequence(folder, ["cat", "dog"])
    assert main(arguments(tiny_base_model, sequence, folder / "run", *FAST, method="custom_diffusion")) == 0
    return tiny_base_model, sequence, folder / "run"


def weights(pipe: object) -> dict[str, torch.Tensor]:
    """Returns a pipeline's key and value weights."""
    return {name: each.weight.detach() for name, each in key_value_projections(pipe.unet).items()}  # type: ignore[attr-defined]


def test_a_fused_concept_does_what_its_own_training_did(finished: tuple[Path, Path, Path]) -> None:
    base_folder, _, run = finished
    pipe = load_pipeline(run, upto="<new1>")
    record = NeuronRegistry.load(run / "registry").record("<new1>")
    fused, pretrained = weights(pipe), weights(BaseModel.load(str(base_folder)))
    own = {name: weight.clone() for name, weight in pretrained.items()}
    record.add_to(own)
    states = states_of_words(BaseModel(pipe, str(base_folder)), ["<new1> cat"], "<new1>")
    assert len(states) == 3  # token, class word, end
    for name in own:
        assert torch.allclose(fused[name] @ states.T, own[name] @ states.T, rtol=0, atol=1e-4), name
    assert any(float(((own[name] - pretrained[name]) @ states.T).abs().max()) > 1e-2 for name in own)


def _largest_error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).abs().max() / wanted.abs().max())


def _merge_of_seven(starts: dict[str, list[torch.Tensor]], classes: dict[str, str]) -> tuple[float, float, float]:
    """Merges random deltas: the largest violation, as a share of the largest key, drift on the captions, and how far
    W moved, in deltas.
    """
    base = BaseModel.load("miniature")
    ConceptTokens(base).add_all(starts)
    words = [
        states_of_words(base, [f"{token} {word}", f"a photo of a {token} {word}"], token)
        for token, word in classes.items()
    ]
    captions = states_of_captions(base, list(read_calibration_prompts("miniature")))
    name, projection = next(iter(key_value_projections(base.unet).items()))
    pretrained = projection.weight.detach().float()
    deltas = [0.05 * normal(pretrained.shape, 0, name, number) for number in range(len(words))]
    merged = ConstrainedMerge(captions, words).merged(pretrained, deltas)
    pairs = zip(words, deltas, strict=True)
    violation = max(_largest_error(merged @ own.T, (pretrained + delta) @ own.T) for own, delta in pairs)
    drift = ((merged - pretrained) @ captions.T).square().mean() / (pretrained @ captions.T).square().mean()
    return violation, float(drift), float((merged - pretrained).norm() / deltas[0].norm())


def test_seven_concepts_of_the_miniature_keep_their_keys_and_values() -> None:
    base = BaseModel.load("miniature")
    words = ["cat", "dog", "style", "car", "cup", "style", "cat"]
    classes = {f"<c{number}>": word for number, word in enumerate(words)}
    concepts = [Concept(token, word, "object", Path()) for token, word in classes.items()]
    registry = NeuronRegistry.create(None, "miniature", base.fingerprint(), rare_words=chosen_rare_words(base, "auto"))
    own = token_starts(CustomDiffusion(), base, concepts, registry, seed=0).embeddings
    violation, drift, moved = _merge_of_seven(own, classes)
    assert violation < 1e-5
    assert drift < 0.01
    # Tokens near their class word would make the states of two cats almost equal, and the merge run away.
    near = {token: initial_embedding(base, word, 0, token) for token, word in classes.items()}
    assert moved < 0.6 * _merge_of_seven(near, classes)[2]


def test_a_later_concept_does_not_know_the_earlier_ones(finished: tuple[Path, Path, Path], tmp_path: Path) -> None:
    base, sequence, run = finished
    text = sequence.read_text("utf-8").replace("class_word: cat", "class_word: dog")
    other = sequence.with_name("other.yaml")
    other.write_text(text, "utf-8")
    assert main(arguments(base, other, tmp_path / "run", *FAST, method="custom_diffusion")) == 0
    one, two = (NeuronRegistry.load(folder / "registry").record("<new2>") for folder in (run, tmp_path / "run"))
    assert torch.equal(one.values, two.values)


def test_fused_weights_are_kept_and_made_anew_when_they_are_gone(
    finished: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    run = Path(shutil.copytree(finished[2], tmp_path / "run"))
    assert sorted(path.name for path in (run / "fused").iterdir()) == ["after-000.safetensors", "after-001.safetensors"]
    before = weights(load_pipeline(run, upto="<new1>"))
    shutil.rmtree(run / "fused")
    after = weights(load_pipeline(run, upto="<new1>"))
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert main(["concepts", "--run", str(run), "--remove", "<new1>"]) == 0
    assert main(["concepts", "--run", str(run), "--verify"]) == 0
    left = weights(load_pipeline(run))
    assert any(not torch.equal(left[name], before[name]) for name in left)


def test_a_registry_alone_refuses_to_add_them_up(finished: tuple[Path, Path, Path]) -> None:
    with pytest.raises(UserError, match=r"CustomDiffusion fuses.*load_pipeline"):
        NeuronRegistry.load(finished[2] / "registry").weights()


def test_pictures_of_the_class_are_drawn_once_and_count(finished: tuple[Path, Path, Path], tmp_path: Path) -> None:
    base, sequence, run = finished
    assert len(list((run / "prior").glob("*.safetensors"))) == 2
    other = tmp_path / "run"
    without = ("--model.method.init_args.prior_weight", "0")
    assert main(arguments(base, sequence, other, *FAST, *without, method="custom_diffusion")) == 0
    assert not (other / "prior").exists()
    one, two = (NeuronRegistry.load(folder / "registry").record("<new1>") for folder in (run, other))
    assert not torch.equal(one.values, two.values)


def test_the_loss_of_the_class_counts_as_published(
    tiny_base_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts, totals = [], []

    def recorded(*arguments: Any, **keywords: Any) -> torch.Tensor:
        parts.append(denoising_loss(*arguments, **keywords))
        return parts[-1]

    def step(self: ContinualPersonalization, *arguments: Any) -> torch.Tensor:
        totals.append(own_step(self, *arguments))
        return totals[-1]

    own_step = ContinualPersonalization.training_step
    monkeypatch.setattr("cns_lightning.training.step.denoising_loss", recorded)
    monkeypatch.setattr(ContinualPersonalization, "training_step", step)
    alone = ("--metrics.fixed_noise_every_steps", "0")
    learn("custom_diffusion", tiny_base_model, tmp_path, *FAST, *alone, "--model.method.prior_weight", "2")
    assert len(parts) == 2 * len(totals) == 8
    for number, total in enumerate(totals):
        own, prior = parts[2 * number].mean(), parts[2 * number + 1].mean()
        # Published: the sum over four latent channels, plus the weight times a mean.
        assert torch.allclose(4 * total, 4 * own + 2 * prior)
