"""The masks in a registry, recomputed with stock diffusers and plain numpy."""

import math
from pathlib import Path

import numpy
import pytest
import torch
import yaml
from diffusers import StableDiffusionPipeline

from cns_lightning.diffusion.base_model import BaseModel
from cns_lightning.diffusion.rare_words import rare_word_embedding
from cns_lightning.diffusion.text import text_states, token_ids
from cns_lightning.neurons.selector import counted_positions
from cns_lightning.registry.registry import NeuronRegistry
from tests.runs.learning import learn

SHARE = 0.30


def norms(pipe: StableDiffusionPipeline, prompt: str) -> numpy.ndarray:
    """Returns the L2 norm of every text feature over all positions of a prompt."""
    states = pipe.encode_prompt(prompt, "cpu", 1, False)[0]
    return states[0].double().square().sum(0).sqrt().numpy()


def top_share(weight: numpy.ndarray, feature_norms: numpy.ndarray) -> numpy.ndarray:
    """Marks the largest scores of each row, one row after another; the lower index wins a tie."""
    scores = numpy.abs(weight) * feature_norms.astype(numpy.float32)
    marked = numpy.zeros(weight.shape, bool)
    for row, values in enumerate(scores):
        order = sorted(range(len(values)), key=lambda column: (-values[column], column))
        marked[row, order[: math.floor(SHARE * len(values))]] = True
    return marked


@pytest.mark.parametrize("token", ["<new1>", "<new2>"])
def test_masks_equal_an_independent_recomputation(token: str, tiny_base_model: Path, tmp_path: Path) -> None:
    registry = NeuronRegistry.load(learn("cns", tiny_base_model, tmp_path) / "registry")
    record = registry.record(token)
    assert record.rare_words == (registry.rare_words[registry.tokens.index(token)],)
    start = rare_word_embedding(BaseModel.load(str(tiny_base_model)), record.rare_words)[0]
    pipe = StableDiffusionPipeline.from_pretrained(tiny_base_model, safety_checker=None)
    pipe.tokenizer.add_tokens(token)
    pipe.text_encoder.resize_token_embeddings(len(pipe.tokenizer), mean_resizing=False)
    with torch.no_grad():
        pipe.text_encoder.get_input_embeddings().weight[pipe.tokenizer.convert_tokens_to_ids(token)] = start
        own = norms(pipe, f"photo of a {token} {record.class_word}")
        lines = Path("configs/calibration/stable_diffusion.txt").read_text("utf-8").splitlines()
        others = [norms(pipe, line) for line in lines]
    needed = round(float(registry.general_metadata()["threshold"]) * len(lines))
    for name, found in registry.mask(token).items():
        weight = dict(pipe.unet.named_parameters())[name].detach().numpy()
        votes = sum(top_share(weight, each).astype(int) for each in others)
        expected = top_share(weight, own) & (votes < needed)
        assert numpy.array_equal(found.numpy(), expected), name


@pytest.mark.parametrize("positions", ["all", "without_start", "concept"])
def test_the_automatic_threshold_is_set_as_concepts_are_scored(
    positions: str, tiny_base_model: Path, tmp_path: Path
) -> None:
    scoring = {"class_path": "cns_lightning.callbacks.importance_scoring.ImportanceScoring"}
    config = tmp_path / "positions.yaml"
    freezing = {"class_path": "cns_lightning.callbacks.mask_freezing.MaskFreezing"}
    content = {"trainer": {"callbacks": [scoring | {"init_args": {"positions": positions}}, freezing]}}
    config.write_text(yaml.safe_dump(content), "utf-8")
    registry = NeuronRegistry.load(learn("cns", tiny_base_model, tmp_path, "--config", str(config)) / "registry")
    expected = float(registry.general_metadata()["expected_density"])
    masks = [record.mask for record in registry.records if record.mask is not None]
    assert len(masks) == 2
    # A mask has fifty of 960 entries here: seven more or fewer are chance, and which ones differs between machines.
    found = sum(mask.count() for mask in masks) / sum(mask.total() for mask in masks)
    assert found == pytest.approx(expected, rel=0.4)


def test_padding_does_not_count_as_the_concept(tiny_base_model: Path) -> None:
    base = BaseModel.load(str(tiny_base_model))
    (tokenizer,) = base.tokenizers
    own = token_ids(tokenizer, "cat")
    tokenizer.pad_token = "!"  # as in Stable Diffusion 2.x
    counted = counted_positions(text_states(base, ["a cat asleep"]), "concept", own)[0]
    words = [tokenizer.decode([each]) for each in tokenizer("a cat asleep").input_ids]
    first = words.index("cat")
    assert counted.nonzero().flatten().tolist() == list(range(first, len(words)))
