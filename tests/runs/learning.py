"""Short runs on the tiny model, for tests that look at what a run leaves behind."""

from pathlib import Path

import numpy
import yaml
from PIL import Image

from cns_lightning.cli.main import main

FOR_TINY = {
    "custom_diffusion": ["--data.prior.pictures", "3"],
    "orthogonal_adaptation": ["--model.method.rank", "3"],
    "mix_of_show": ["--model.method.iterations", "5", "--model.method.other_iterations", "5"],
}
"""What methods need to be at home on the tiny model."""


def write_sequence(folder: Path, words: list[str]) -> Path:
    """Writes a sequence of concepts of three small noisy pictures each, stored as people's photos are."""
    concepts = []
    for number, word in enumerate(words):
        pictures = folder / f"{word}{number}"
        pictures.mkdir(parents=True)
        for index, (mode, suffix) in enumerate([("RGB", "png"), ("CMYK", "jpg"), ("RGBA", "webp")]):
            pixels = numpy.random.default_rng([number, index]).integers(0, 256, (40, 32, 3), dtype=numpy.uint8)
            exif = Image.Exif()
            exif[0x0112] = 6  # to be shown a quarter turn clockwise
            Image.fromarray(pixels).convert(mode).save(pictures / f"{index}.{suffix}", exif=exif)
        concepts.append({"token": f"<new{number + 1}>", "class_word": word, "kind": "animal", "images": pictures.name})
    prompts = {"single": ["a photo of <new1> cat"], "double": [], "triple": []}
    path = folder / "sequence.yaml"
    path.write_text(yaml.safe_dump({"name": "two", "concepts": concepts, "prompts": prompts}), "utf-8")
    return path


def arguments(
    base: Path, sequence: Path, run: Path, *more: str, method: str = "cns", steps: int | None = 3
) -> list[str]:
    """Returns the command line of a short run."""
    return [
        "fit", "--config", f"configs/methods/{method}.yaml", "--config", "configs/hardware/cpu.yaml",
        "--model.base_model", str(base), "--data.sequence", str(sequence), "--data.batch_size", "2",
        "--run", str(run), *(["--steps", str(steps)] if steps else []), "--samples.steps", "2",
        "--samples.pictures", "2", "--data.prior.steps", "2", *FOR_TINY.get(method, []), *more,
    ]  # fmt: skip


def learn(method: str, base: Path, folder: Path, *more: str) -> Path:
    """Learns two concepts for a few steps and gives the run folder."""
    sequence = write_sequence(folder / "sequence", ["cat", "dog"])
    assert main(arguments(base, sequence, folder / "run", *more, method=method, steps=2)) == 0
    return folder / "run"
