"""Keys, options, messages, links and drawings of the documents are those of the program."""

import importlib.util
import inspect
import re
import shlex
import tomllib
from pathlib import Path

import pytest

from benchmarks.licences import licence_of, names_of, needed_here
from cns_lightning.cli.main import COMMANDS, main
from cns_lightning.configuration.usual_callbacks import USUAL
from cns_lightning.methods.discovery import method_configs
from tests.docs.documents import ROOT, blocks, code_spans, commands, prose, read, slug, words

PAGES = [str(path.relative_to(ROOT)) for path in sorted((ROOT / "docs").glob("*.md"))]
LINKED = ["README.md", "CONTRIBUTING.md", *PAGES]
OPTION = re.compile(r"(?<![\w-])--([a-z][\w.-]*)")
GROUPS = "|".join(["model", "data", "trainer", *USUAL])
KEY = re.compile(rf"^(?:{GROUPS})(?:\.(?!csv|json)\w+)+$")
WORDED = ["README.md", "docs/first-hour.md", "docs/troubleshooting.md", "docs/formats.md", "docs/cns.md",
          "docs/new-method.md", "docs/regions.md", "docs/export.md", "docs/licences.md"]  # fmt: skip
"""Documents whose options are all this program's; docs/slurm.md names sbatch's."""
OWN = "model.method.init_args."


@pytest.fixture(scope="module")
def keys() -> set[str]:
    """Returns every key of ``fit``, by its own help."""
    import contextlib
    import io

    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), pytest.raises(SystemExit):
        main(["fit", "--help-all"])
    return set(OPTION.findall(shown.getvalue()))


@pytest.fixture(scope="module")
def arguments() -> set[str]:
    """Returns the arguments of every method's constructor."""
    from cns_lightning.methods.base import Method

    found: set[str] = set()
    for name in method_configs():
        module = importlib.import_module(f"cns_lightning.methods.{name}")
        for kind in vars(module).values():
            if isinstance(kind, type) and issubclass(kind, Method):
                found |= set(inspect.signature(kind).parameters)
    return found


def options_of(command: str, keys: set[str]) -> set[str]:
    """Returns the options that a command takes."""
    if command == "fit":
        return keys
    parser = importlib.import_module(COMMANDS[command][0]).parser()
    own = {option.lstrip("-") for option in parser._option_string_actions}
    return own | keys if command in ("doctor", "launch") else own


def is_known(option: str, known: set[str], arguments: set[str]) -> bool:
    own = option.removeprefix(OWN)
    return option in known or (option.startswith(OWN) and (own in arguments or own == "NAME"))


@pytest.mark.parametrize("page", LINKED)
def test_commands_have_the_options_that_documents_give_them(page: str, keys: set[str], arguments: set[str]) -> None:
    for line in commands(read(page)):
        if "-m cns_lightning " in line and not line.endswith("cns_lightning COMMAND"):
            name, *rest = words(line)
            known = options_of(name, keys)
            unknown = [each for word in rest for each in OPTION.findall(word) if not is_known(each, known, arguments)]
            assert not unknown, line


@pytest.mark.parametrize("page", WORDED)
def test_options_and_keys_in_the_text_exist(page: str, keys: set[str], arguments: set[str]) -> None:
    every = keys.union(*(options_of(command, keys) for command in COMMANDS))
    for span in code_spans(read(page)):
        if span.startswith(("pip ", "python -m benchmarks", "<lora:")):
            continue
        first = span.split()[0]
        known = options_of(first, keys) if first in COMMANDS else every
        unknown = [option for option in OPTION.findall(span) if not is_known(option, known, arguments)]
        if KEY.match(span) and not is_known(span, keys, arguments):
            unknown.append(span)
        assert not unknown, span


def test_settings_that_troubleshooting_gives_are_accepted(keys: set[str], tmp_path: Path) -> None:
    from cns_lightning.configuration.parser import checked_configuration

    stack = "--config configs/base/sd15.yaml --config configs/methods/cns.yaml --data.sequence miniature_set1".split()
    tried = 0
    for span in code_spans(read("docs/troubleshooting.md")):
        given = shlex.split(span) if span.startswith("--") else []
        names = OPTION.findall(span)
        if names and len(given) == 2 * len(names) and all("." in each for each in names) and not given[1].isupper():
            checked_configuration([*stack, "--run", str(tmp_path), *given])
            tried += 1
    assert tried > 10


def test_messages_that_troubleshooting_quotes_are_the_programs() -> None:
    text = read("docs/troubleshooting.md")
    sources = "\n".join(
        path.read_text("utf-8") for folder in ("cns_lightning", "callbacks") for path in (ROOT / folder).rglob("*.py")
    )
    sources = re.sub(r'"\s*\n\s*f?"', "", sources)  # sentences over several lines
    # Prompts begin with an article, commands have options.
    quoted = [span for span in code_spans(text) if len(span.split()) > 3 and not re.search(r"^a |--|<", span)]
    assert len(quoted) > 8
    for span in quoted:
        for part in re.split(r"\b[A-Z]+\b|\d+|\.\.\.", span):
            assert part.strip() in sources, span


def test_continuing_names_the_settings_that_may_change() -> None:
    from cns_lightning.configuration.continuation import SAFE_KEYS

    (sentence,) = re.findall(
        r"^May change between two starts: everything under (.*?);", read("docs/troubleshooting.md"), re.M
    )
    groups = {key for key in SAFE_KEYS if "." not in key}
    assert groups == set(code_spans(sentence))


@pytest.mark.parametrize("page", LINKED)
def test_relative_links_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(read(page))):
        if target.startswith(("http:", "https:")):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.exists(), target
        if anchor:
            assert anchor in {slug(each) for each in re.findall(r"^#+ (.+)$", file.read_text("utf-8"), re.MULTILINE)}


def test_every_page_is_reached_from_the_index() -> None:
    index = read("docs/index.md")
    listed = re.findall(r"^[\w-]+$", "\n".join(blocks(index, "{toctree}")), re.MULTILINE)
    assert sorted([*listed, "index"]) == [Path(page).stem for page in PAGES]
    assert all(f"({name}.md)" in index for name in listed), "code hosts show no table of contents"


def test_readme_shows_a_picture_within_a_screen() -> None:
    head, _, _ = read("README.md").partition("![")
    assert len(head.splitlines()) <= 20
    assert "make setup" in head
    assert "make demo" in head


def test_drawings_are_what_their_script_draws() -> None:
    place = ROOT / "docs" / "figures"
    spec = importlib.util.spec_from_file_location("drawings", place / "draw.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert {path.stem for path in place.glob("*.svg")} == set(module.DRAWINGS)
    for name, draw in module.DRAWINGS.items():
        assert (place / f"{name}.svg").read_text("utf-8") == draw(), name


def test_licences_of_what_the_project_needs_are_listed() -> None:
    text = read("docs/licences.md")
    project = tomllib.loads(read("pyproject.toml"))["project"]
    for name in names_of(needed_here(project["dependencies"])):
        assert re.search(rf"^\| \*\*{name}\*\* \| \S+ \| {re.escape(licence_of(name))} \|$", text, re.MULTILINE), name
