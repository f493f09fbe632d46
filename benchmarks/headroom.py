"""Measures whether the miniature's concepts are fit to compare methods on; writes a section of docs/miniature.md.

Headroom: trained alone, token and all key and value weights must show a concept better than the token alone, and that
better than its class word. Something to forget: naive fine-tuning over the sequence must lose the first concepts.

``python -m benchmarks.headroom --work runs/headroom --out docs/miniature.md``
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

import yaml

from benchmarks.scoring import Judge, own_prompts, write_section
from cns_lightning.cli.main import main as command_line
from cns_lightning.data.templates import class_prompt
from cns_lightning.diffusion.base_model import BaseModel
from cns_lightning.pipeline import load_pipeline
from cns_lightning.sequence import Sequence, sequence_path

# Rates at which each learns a concept in the demo's number of steps; a wider search is left to the comparison.
BOUNDS = {
    "textual_inversion": {"token_learning_rate": 1e-2},
    "fine_tuning": {"learning_rate": 5e-4, "token_learning_rate": 1e-2},
}


class Bench:
    """Fits and scores.

    Args:
        work: folder of runs; finished ones are not repeated.
        steps: optimizer steps a concept.
        pictures: of each prompt.
    """

    def __init__(self, work: Path, steps: int, pictures: int) -> None:
        self.work, self.steps, self.judge = work, steps, Judge(pictures)

    def fit(self, method: str, sequence: Path, name: str) -> Path:
        """Learns a sequence with a method in the demo's setting and gives the run folder."""
        run = self.work / name
        bare = self.work / f"{method}.yaml"
        init = {"class_path": f"cns_lightning.methods.{method}.{_class_of(method)}", "init_args": BOUNDS[method]}
        demo = yaml.safe_load(Path("configs/experiments/demo.yaml").read_text("utf-8"))
        demo["model"]["method"], demo["trainer"]["callbacks"] = init, []
        bare.write_text(yaml.safe_dump(demo), "utf-8")
        given = ["--data.sequence", str(sequence), "--run", str(run), "--steps", str(self.steps)]
        if command_line(["fit", "--config", str(bare), *given, "--samples.pictures", "1"]) != 0:
            raise RuntimeError(f"{name} could not be fitted")
        return run


def _class_of(method: str) -> str:
    return "".join(part.title() for part in method.split("_"))


def headroom(bench: Bench, sequence: Sequence) -> dict[str, list[float]]:
    """Gives by condition the CLIP-I of every concept of a sequence, each trained alone."""
    base = BaseModel.load("miniature").pipeline()
    result: dict[str, list[float]] = {"class word": [], "textual_inversion": [], "fine_tuning": []}
    for concept in sequence.concepts:
        prompts = own_prompts(sequence, concept)
        result["class word"].append(
            bench.judge.image_alignment(base, concept, [class_prompt(prompt, sequence) for prompt in prompts])
        )
        alone = bench.work / f"{sequence.name}-{concept.token.strip('<>')}.yaml"
        content = {
            "name": alone.stem,
            "concepts": [entry for entry in sequence.plain()["concepts"] if entry["token"] == concept.token],
        }
        alone.write_text(yaml.safe_dump(content), "utf-8")
        for method in BOUNDS:
            run = bench.fit(method, alone, f"{alone.stem}-{method}")
            result[method].append(bench.judge.image_alignment(load_pipeline(run), concept, prompts))
    return result


def forgetting(bench: Bench, sequence: Sequence) -> list[tuple[str, float, float]]:
    """Gives for the first four concepts their CLIP-I after their own stage and after the last one."""
    assert sequence.path is not None
    run = bench.fit("fine_tuning", sequence.path, f"{sequence.name}-naive")
    rows = []
    for concept in sequence.concepts[:4]:
        prompts = own_prompts(sequence, concept)
        own = bench.judge.image_alignment(load_pipeline(run, upto=concept.token), concept, prompts)
        rows.append(
            (
                f"{concept.token} {concept.class_word}",
                own,
                bench.judge.image_alignment(load_pipeline(run), concept, prompts),
            )
        )
    return rows


def document(scores: dict[str, list[float]], rows: list[tuple[str, float, float]], command: str) -> str:
    """Gives the section of the document."""
    lines = [f"`{command}`", "", "| trained alone | mean CLIP-I | standard deviation over concepts |", "|---|---|---|"]
    lines += [
        f"| {name} | {statistics.mean(each):.3f} | {statistics.stdev(each):.3f} |" for name, each in scores.items()
    ]
    lines += ["", "| naive fine-tuning over seven | after its stage | after the last | lost |", "|---|---|---|---|"]
    lines += [f"| {name} | {own:.3f} | {last:.3f} | {own - last:.3f} |" for name, own, last in rows]
    return "\n".join([*lines, ""])


def main() -> None:
    """Reads the command line, measures, and writes the figures into the document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("docs/miniature.md"))
    parser.add_argument("--set", default="miniature_set1")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--pictures", type=int, default=4)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    sequence = Sequence.read(sequence_path(arguments.set))
    bench = Bench(arguments.work, arguments.steps, arguments.pictures)
    command = " ".join(["python -m benchmarks.headroom", *sys.argv[1:]])
    text = document(headroom(bench, sequence), forgetting(bench, sequence), command)
    write_section(arguments.out, "headroom", text)
    print(text)


if __name__ == "__main__":
    main()
