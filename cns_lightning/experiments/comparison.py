"""Several methods on the same sequences, seeds and prompts: every run a folder of `fit`, scored by `test`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from cns_lightning.errors import Problems, UserError
from cns_lightning.experiments.experiment_file import ExperimentFile
from cns_lightning.experiments.scoring_options import ScoringOptions, read_scoring_options
from cns_lightning.methods.discovery import method_configs
from cns_lightning.sequences.sequence import Sequence, sequence_path
from cns_lightning.storage import write_atomically
from cns_lightning.user_files import shipped

KEYS = ("stack", "methods", "alone", "sets", "seeds", "fit", "test")
ALONE, ALL = "alone", "all"
CLASS_WORD, CLASS_WORD_FOLDER = "class word", "class_word"
IN_WORDS, IN_WORDS_FOLDER = "in words", "in_words"
"""Names of the bounds, in tables and as folders beside those of the methods."""
EXAMPLE = "configs/experiments/compare_quick.yaml"


def every_method(stack: tuple[str, ...]) -> dict[str, list[str]]:
    """Returns the files of every method that ships, by name.

    A method's file is the one of its name beside a file of the stack, as ``configs/miniature/cns.yaml`` beside
    ``configs/miniature/data.yaml``, else the one in ``configs/methods``.

    Args:
        stack: configuration files under every method.
    """
    folders = [shipped(each).parent for each in stack]
    found = {}
    for name, usual in method_configs().items():
        beside = [folder / usual.name for folder in folders if (folder / usual.name).is_file()]
        found[name] = [str(beside[-1] if beside else usual)]
    return found


@dataclass(frozen=True)
class Comparison:
    """What is compared.

    Attributes:
        stack: configuration files under every method: base model, hardware.
        methods: files on top of the stack, by name.
        values: values by configuration key on top of the files, by name.
        alone: name of the method with which each concept is also trained by itself, which forgets nothing; None leaves
            this bound out.
        sets: sequence files.
        seeds: base random seeds.
        fit: further settings of every ``fit``, by configuration key.
        test: options of every ``test``.
    """

    stack: tuple[str, ...]
    methods: dict[str, tuple[str, ...]]
    alone: str | None = None
    sets: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0,)
    fit: dict[str, Any] = field(default_factory=dict)
    test: ScoringOptions = field(default_factory=ScoringOptions)
    values: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Comparison:
        """Reads a configuration.

        Raises:
            UserError: listing every fault.
        """
        file = ExperimentFile(path, KEYS, EXAMPLE)
        methods: dict[str, tuple[str, ...]] = {}
        values: dict[str, dict[str, Any]] = {}
        named = file.content.get("methods")
        if named == ALL:
            stack = file.content.get("stack")  # what is wrong with it is said where it is read
            named = every_method(tuple(map(str, stack)) if isinstance(stack, list) else ())
        for name, each in file.mapping("methods", named).items():
            entry = each if isinstance(each, dict) else {"files": each}
            file.known(f"methods.{name}", entry, ("files", "values"))
            methods[name] = file.files(f"methods.{name}", entry.get("files"))
            if entry.get("values") is not None:
                values[name] = file.settings_of_fit(f"methods.{name}.values", entry["values"])
        return cls.of(file, methods, values)

    @classmethod
    def of(
        cls, file: ExperimentFile, methods: dict[str, tuple[str, ...]], values: dict[str, dict[str, Any]] | None = None
    ) -> Comparison:
        """Makes one of what a file says besides its methods; raises what `read` raises."""
        given = file.content
        for name in methods:
            if name in (ALONE, CLASS_WORD, CLASS_WORD_FOLDER, IN_WORDS, IN_WORDS_FOLDER):
                file.add(f"methods.{name}", "is the name of a bound", "Call it otherwise")
        stack, seeds = file.files("stack", given.get("stack")), file.numbers("seeds", given.get("seeds"))
        sets, test = file.words("sets", given.get("sets")), read_scoring_options(file, given.get("test"))
        fit = {} if given.get("fit") is None else file.settings_of_fit("fit", given["fit"])
        alone = given.get("alone")
        if alone is not None and alone not in methods:
            file.add("alone", f"is {alone}, none of the methods", f"Use one of {', '.join(methods)}")
        file.problems.raise_if_any()
        return cls(stack, methods, alone, sets, seeds or (0,), fit, test, values or {})


@dataclass(frozen=True)
class Run:
    """One run of a comparison.

    Attributes:
        method: its name, or the name of the bound.
        set_name: name of the sequence.
        seed: base random seed.
        folder: run folder.
        sequence: sequence file.
        files: configuration files, in order.
        fit: further arguments of ``fit``.
        test: options of ``test``.
    """

    method: str
    set_name: str
    seed: int
    folder: Path
    sequence: str
    files: tuple[str, ...] = field(repr=False)
    fit: tuple[str, ...] = field(repr=False)
    test: ScoringOptions = field(repr=False)

    def fit_arguments(self) -> list[str]:
        """Returns the words after ``fit``."""
        stacked = [word for file in self.files for word in ("--config", file)]
        own = ["--data.sequence", self.sequence, "--seed_everything", str(self.seed)]
        return [*stacked, *own, *self.fit, "--run", str(self.folder)]

    def test_arguments(self) -> list[str]:
        """Returns the words after ``test``."""
        return ["--run", str(self.folder), *self.test.arguments()]


def runs_of(comparison: Comparison, out: Path) -> list[Run]:
    """Lists the runs; `write_alone_sequences` writes the sequence files of those of one concept.

    Raises:
        UserError: what `sequences_of` raises.
    """
    found = []
    for path, sequence in sequences_of(comparison):
        name = path.stem
        for seed in comparison.seeds:
            for method, files in comparison.methods.items():
                folder = out / method / name / f"seed-{seed}"
                stacked = (*comparison.stack, *files)
                learned = str(path.absolute())
                fit = as_arguments(comparison.fit) + as_arguments(comparison.values.get(method, {}))
                found.append(Run(method, name, seed, folder, learned, stacked, fit, comparison.test))
            if comparison.alone is None:
                continue
            stacked = (*comparison.stack, *comparison.methods[comparison.alone])
            fit = as_arguments(comparison.fit) + as_arguments(comparison.values.get(comparison.alone, {}))
            test = comparison.test.model_copy(update={"matrix_pictures": 0, "curve_pictures": 0})
            for number in range(len(sequence.concepts)):
                single = alone_path(out, name, number)
                folder = out / ALONE / name / f"seed-{seed}" / single.stem
                found.append(Run(ALONE, name, seed, folder, str(single), stacked, fit, test))
    return found


def sequences_of(comparison: Comparison) -> list[tuple[Path, Sequence]]:
    """Reads the sequences, and sees to it that all of them can be scored.

    Raises:
        UserError: if there is none, two have one name, one is wrong, or prompts are missing.
    """
    if not comparison.sets:
        raise UserError("sets", "no sequence is named", "Name sequence files there, or give --set FILE")
    problems, found = Problems(), []
    for given in comparison.sets:
        path = sequence_path(given)
        sequence = Sequence.read(path)
        named = [[concept.token for concept in sequence.concepts if concept.token in prompt]
                 for prompt in sequence.prompts.single]  # fmt: skip
        if not named:
            problems.add(
                f"{path}: prompts.single",
                "is empty, a comparison scores prompts",
                "Write some, as init --images DIR does",
            )
        for concept in sequence.concepts if named and comparison.alone else ():
            if [concept.token] not in named:
                problem = f"no prompt names {concept.token}, which is also trained alone"
                problems.add(f"{path}: prompts.single", problem, "Write one")
        if path.stem in [other.stem for other, _ in found]:
            problems.add(str(path), "has the name of another set", "Rename it: folders are called by it")
        found.append((path, sequence))
    problems.raise_if_any()
    return found


def as_arguments(values: dict[str, Any]) -> tuple[str, ...]:
    """Returns values by configuration key as words of a command line."""
    return tuple(
        word for key, value in values.items() for word in (f"--{key}", "null" if value is None else str(value))
    )


def alone_path(out: Path, name: str, number: int) -> Path:
    """Returns the sequence file of one concept that is trained by itself."""
    return out / ALONE / name / f"concept-{number}.yaml"


def write_alone_sequences(comparison: Comparison, out: Path) -> None:
    """Writes a sequence file of one concept for every concept, with the prompts that name it alone.

    Raises:
        UserError: if files cannot be written, or what `sequences_of` raises.
    """
    for path, sequence in sequences_of(comparison) if comparison.alone else ():
        for number, concept in enumerate(sequence.plain()["concepts"]):
            own = [prompt for prompt in sequence.prompts.single if concept["token"] in prompt]
            content = {
                "name": f"{sequence.name}-{number}", "concepts": [concept],
                "prompts": {"single": own, "double": [], "triple": []},
            }  # fmt: skip
            text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
            write_atomically(alone_path(out, path.stem, number), text.encode())
