"""Measures the miniature: the judge, the autoencoder, the base model; writes docs/miniature.md.

``python -m benchmarks.miniature --out docs``  (about ten minutes on two cores)
"""

from __future__ import annotations

import argparse
import random
import sys
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy
import torch
from PIL import Image

from benchmarks.scoring import write_section
from cns_lightning.diffusion.cross_attention import key_value_projections
from cns_lightning.diffusion.sampling import generate_pairs
from cns_lightning.diffusion.sheets import grid
from cns_lightning.evaluation.metrics import ClipEncoder
from cns_lightning.miniature import base_model_path, judge_path
from cns_lightning.miniature.world import sampling
from cns_lightning.sequences.sequence import Sequence, picture_files

PLACES = {
    "meadow": "in the meadow",
    "beach": "on the beach",
    "night": "at night",
    "city": "in the city",
    "snow": "in the snow",
    "desert": "in the desert",
    "room": "in the room",
    "sea": "in the sea",
}
HELD_OUT_SEED = 987_654_321


@dataclass(frozen=True)
class Single:
    """One thing of the base world and what a caption says of it."""

    kind: str
    colour: str
    scene: str

    @property
    def prompt(self) -> str:
        """Returns the caption that names everything."""
        return f"a photo of {article(self.colour)} {self.kind} {PLACES[self.scene]}"


def article(words: str) -> str:
    """Puts the right article before words."""
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


def nearest(encoder: ClipEncoder, pictures: torch.Tensor, texts: list[list[str]]) -> list[int]:
    """Returns for every picture the index of its nearest text among its own list."""
    vocabulary = sorted({text for each in texts for text in each})
    encoded = dict(zip(vocabulary, encoder.texts(vocabulary), strict=True))
    return [
        int((torch.stack([encoded[text] for text in each]) @ picture).argmax())
        for picture, each in zip(pictures, texts, strict=True)
    ]


def accuracy(encoder: ClipEncoder, images: list[Image.Image], truth: list[Single]) -> dict[str, float]:
    """Returns the judge's zero-shot accuracy for kind, colour and scene over pictures of one thing."""
    encoded = encoder.images(images)
    kinds: list[str] = list(sampling.KINDS)
    colours, scenes = list(sampling.COLOURS), list(PLACES)
    tasks = {
        "kind": ([[article(kind) for kind in kinds]] * len(truth), [kinds.index(each.kind) for each in truth]),
        "colour": (
            [[f"{article(colour)} {each.kind}" for colour in colours] for each in truth],
            [colours.index(each.colour) for each in truth],
        ),
        "scene": (
            [[f"{article(each.kind)} {PLACES[scene]}" for scene in scenes] for each in truth],
            [scenes.index(each.scene) for each in truth],
        ),
    }
    result = {}
    for name, (texts, right) in tasks.items():
        found = nearest(encoder, encoded, texts)
        result[name] = float(numpy.mean([a == b for a, b in zip(found, right, strict=True)]))
    return result


def held_out_renders(count: int) -> tuple[list[Image.Image], list[Single]]:
    """Renders pictures of one thing that no training pool holds, in every style of the base world."""
    numbers, images, truth = random.Random(HELD_OUT_SEED), [], []
    while len(images) < count:
        picture, _ = sampling.sample_picture(numbers)
        if len(picture.things) == 1:
            thing = picture.things[0]
            images.append(sampling.render(picture))
            truth.append(Single(thing.kind, nearest_colour(thing.colour), picture.scene))
    return images, truth


def nearest_colour(colour: tuple[int, int, int]) -> str:
    """Returns the name of the base colour a jittered colour came from."""

    def distance(name: str) -> float:
        return sum((a - b) ** 2 for a, b in zip(sampling.COLOURS[name], colour, strict=True))

    return min(sampling.COLOURS, key=distance)


def fidelity(encoder: ClipEncoder, pipeline, pictures: list[Image.Image]) -> dict[str, float]:  # noqa: ANN001
    """Compares pictures with what the autoencoder makes of them: PSNR in dB and the judge's cosine."""
    pixels = (
        torch.stack([torch.from_numpy(numpy.array(each)).permute(2, 0, 1) for each in pictures]).float() / 127.5 - 1
    )
    with torch.no_grad():
        copies = pipeline.vae.decode(pipeline.vae.encode(pixels).latent_dist.mean).sample.clamp(-1, 1)
    errors = ((copies - pixels) / 2).square().mean((1, 2, 3))
    images = [Image.fromarray(((each + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()) for each in copies]
    cosines = (encoder.images(pictures) * encoder.images(images)).sum(-1)
    decibels = -10 * errors.log10()
    return {
        "psnr_mean": float(decibels.mean()),
        "psnr_least": float(decibels.min()),
        "clip_i_mean": float(cosines.mean()),
        "clip_i_least": float(cosines.min()),
    }


def concept_pictures() -> list[Image.Image]:
    """Reads the 105 pictures of the shipped concepts."""
    files = []
    for number in (1, 2, 3):
        sequence = Sequence.read(Path("configs/sequences") / f"miniature_set{number}.yaml")
        files += [path for concept in sequence.concepts for path in picture_files(concept.images)]
    return [Image.open(path).convert("RGB") for path in files]


def pairs_right(encoder: ClipEncoder, images: list[Image.Image], truth: list[tuple[str, str]]) -> float:
    """Returns the share of pictures whose nearest text among all pairs of kinds names both kinds asked for."""
    pairs = list(combinations(sampling.KINDS, 2))
    texts = [f"{article(first)} and {article(second)}" for first, second in pairs]
    found = nearest(encoder, encoder.images(images), [texts] * len(images))
    return float(numpy.mean([set(pairs[index]) == set(asked) for index, asked in zip(found, truth, strict=True)]))


@dataclass(frozen=True)
class Asked:
    """How much to draw and how.

    Attributes:
        singles: prompts of one thing.
        doubles: prompts of two things.
        guidance: scale of classifier-free guidance.
        steps: number of steps of the sampler.
    """

    singles: int
    doubles: int
    guidance: float
    steps: int


def measure(asked: Asked, out: Path) -> dict[str, dict[str, float]]:
    """Runs every measurement and draws the sheet ``miniature.jpg``."""
    from diffusers import StableDiffusionPipeline

    encoder = ClipEncoder(judge_path())
    pipeline = StableDiffusionPipeline.from_pretrained(base_model_path())
    numbers = random.Random(HELD_OUT_SEED + 1)
    truth = [
        Single(
            numbers.choice(list(map(str, sampling.KINDS))),
            numbers.choice(list(sampling.COLOURS)),
            numbers.choice(list(PLACES)),
        )
        for _ in range(asked.singles)
    ]
    pairs = [(first, second) for first, second in (numbers.sample(sampling.KINDS, 2) for _ in range(asked.doubles))]
    singles = generate_each(pipeline, [each.prompt for each in truth], asked)
    doubles = generate_each(pipeline, [f"a photo of {article(a)} and {article(b)}" for a, b in pairs], asked)
    rows = [singles[start : start + 8] for start in range(0, 32, 8)] + [doubles[:8], doubles[8:16]]
    grid(rows, ["one thing"] * 4 + ["two things"] * 2, [str(number) for number in range(8)]).save(
        out / "miniature.jpg", quality=88
    )
    return {
        "judge": accuracy(encoder, *held_out_renders(2000)),
        "single": accuracy(encoder, singles, truth),
        "double": {"both kinds": pairs_right(encoder, doubles, pairs)},
        "autoencoder": fidelity(encoder, pipeline, concept_pictures()),
        "sizes": {
            "megabytes": sum(file_size(folder) for folder in (base_model_path(), judge_path())) / 1e6,
            "key_value_weights": sum(each.weight.numel() for each in key_value_projections(pipeline.unet).values()),
        },
    }


def file_size(folder: Path) -> int:
    """Sums the bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def generate_each(pipeline, prompts: list[str], asked: Asked) -> list[Image.Image]:  # noqa: ANN001 - any pipeline
    """Draws one picture per prompt, each from a seed of its own."""
    pairs = [(prompt, seed) for seed, prompt in enumerate(prompts)]
    return generate_pairs(pipeline, pairs, asked.steps, asked.guidance, batch_size=50)


# What is measured, the bar, and what it is called in the document.
BARS = (
    ("judge", "kind", 0.95, "judge: kind right, 2,000 held-out renders"),
    ("judge", "colour", 0.95, "judge: colour right"),
    ("judge", "scene", 0.95, "judge: scene right"),
    ("single", "kind", 0.85, "one thing: kind right"),
    ("single", "colour", 0.85, "one thing: colour right"),
    ("single", "scene", 0.90, "one thing: scene right"),
    ("double", "both kinds", 0.75, "two things: both kinds right"),
    ("autoencoder", "clip_i_mean", 0.95, "autoencoder: CLIP-I of picture and reconstruction, mean of 105"),
    ("autoencoder", "psnr_mean", 27.0, "autoencoder: PSNR in dB, mean of 105"),
)


def document(result: dict[str, dict[str, float]], command: str) -> str:
    """Returns the table of docs/miniature.md."""
    lines = ["| what | measured | bar | |", "|---|---|---|---|"]
    for group, name, bar, said in BARS:
        value = result[group][name]
        verdict = "met" if value >= bar else f"missed by {bar - value:.3g}"
        lines.append(f"| {said} | {value:.3f} | {bar} | {verdict} |")
    least = result["autoencoder"]
    sizes = result["sizes"]
    lines += [
        "",
        f"Least of the 105 pictures: CLIP-I {least['clip_i_least']:.3f}, PSNR {least['psnr_least']:.1f} dB. All files "
        f"together: {sizes['megabytes']:.1f} MB (at most 40). 5 % of the key and value weights: "
        f"{0.05 * sizes['key_value_weights']:,.0f} (more than 20,000).",
    ]
    return "\n".join([f"`{command}`", "", *lines, "", "![what the base model draws](miniature.jpg)", ""])


def main() -> None:
    """Reads the command line, measures, and writes the figures into the document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs"))
    parser.add_argument("--singles", type=int, default=500)
    parser.add_argument("--doubles", type=int, default=200)
    parser.add_argument("--guidance", type=float, default=4.0)
    parser.add_argument("--steps", type=int, default=25)
    arguments = parser.parse_args()
    asked = Asked(arguments.singles, arguments.doubles, arguments.guidance, arguments.steps)
    result = measure(asked, arguments.out)
    command = " ".join(["python -m benchmarks.miniature", *sys.argv[1:]])
    text = document(result, command)
    write_section(arguments.out / "miniature.md", "quality", text)
    print(text)


if __name__ == "__main__":
    main()
