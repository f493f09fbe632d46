"""What the benchmarks share: the judge at work, and sections of documents that a command writes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cns_lightning.cli.main import main as command_line
from cns_lightning.data.images import read_photos
from cns_lightning.diffusion.sampling import generate
from cns_lightning.evaluation.metrics import ClipEncoder, ImageAlignment, TextAlignment
from cns_lightning.miniature import judge_path

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from diffusers import DiffusionPipeline

    from cns_lightning.sequences.sequence import Concept
    from cns_lightning.sequences.sequence import Sequence as ConceptSequence

GUIDANCE = 4.0
STACK = tuple(
    word
    for name in ("base/miniature", "miniature/data", "miniature/cns", "hardware/cpu")
    for word in ("--config", f"configs/{name}.yaml")
)
"""Words of `fit` for CNS on the miniature."""


class Judge:
    """Draws pictures with the miniature and scores them.

    Args:
        pictures: number of pictures of each prompt, from seeds 0, 1, ...
    """

    def __init__(self, pictures: int) -> None:
        self.seeds = list(range(pictures))
        self.encoder = ClipEncoder(judge_path())

    def image_alignment(self, pipeline: DiffusionPipeline, concept: Concept, prompts: list[str]) -> float:
        """Returns the CLIP-I of pictures for prompts against a concept's own pictures."""
        metric = ImageAlignment()
        drawn = generate(pipeline, prompts, self.seeds, guidance=GUIDANCE, batch_size=40)
        metric.update(self.encoder.images(drawn), self.encoder.images(read_photos(concept)))
        return float(metric.compute())

    def text_alignment(self, pipeline: DiffusionPipeline, prompts: list[str]) -> float:
        """Returns the CLIP-T, as a raw cosine, of pictures for prompts of the base world."""
        metric = TextAlignment()
        drawn = generate(pipeline, prompts, self.seeds, guidance=GUIDANCE, batch_size=40)
        texts = self.encoder.texts(prompts).repeat_interleave(len(self.seeds), 0)
        metric.update(self.encoder.images(drawn), texts)
        return float(metric.compute())


def learn(run: Path, sequence: Path, steps: int) -> Path:
    """Learns a sequence with CNS in the settings of `configs/miniature/cns.yaml`; goes on where it stopped.

    Raises:
        RuntimeError: if `fit` fails.
    """
    words = [
        "fit",
        *STACK,
        "--data.sequence",
        str(sequence),
        "--steps",
        str(steps),
        "--samples.pictures",
        "0",
        "--run",
        str(run),
    ]
    if command_line(words) != 0:
        raise RuntimeError("the run failed")
    return run


def own_prompts(sequence: ConceptSequence, concept: Concept) -> list[str]:
    """Lists the single prompts that name a concept."""
    return [prompt for prompt in sequence.prompts.single if concept.token in prompt]


def command_of(module: str, words: Sequence[str]) -> str:
    """Returns the command line of a benchmark as documents show it: without the file that all figures went to.

    Args:
        module: name of the module.
        words: its arguments, with ``--out FILE`` or without.
    """
    kept = list(words)
    if "--out" in kept:
        place = kept.index("--out")
        del kept[place : place + 2]
    return " ".join(["python -m", module, *kept])


def check_section(path: Path, name: str) -> None:
    """Refuses a document without the marks of a section, before the work whose result it shall take.

    Raises:
        SystemExit: naming document and marks.
    """
    if not path.is_file() or f"<!-- {name} -->" not in path.read_text("utf-8"):
        raise SystemExit(
            f"{path} has no marks <!-- {name} --> and <!-- /{name} -->. Put them where the result shall go"
        )


def write_section(path: Path, name: str, text: str) -> None:
    """Puts a text between the marks ``<!-- NAME -->`` and ``<!-- /NAME -->`` of a document."""
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    whole = path.read_text("utf-8")
    before, after = whole.split(start)[0], whole.split(end)[1]
    path.write_text(f"{before}{start}\n{text}{end}{after}", "utf-8")
