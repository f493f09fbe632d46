"""What docs/python.md shows runs as it stands there."""

from pathlib import Path

import pytest

from cns_lightning.registry.registry import NeuronRegistry
from tests.docs.documents import blocks as blocks_of
from tests.docs.documents import read
from tests.runs.learning import write_sequence


def test_the_page_runs(tiny_base_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = blocks_of(read("docs/python.md"), "python")
    assert len(blocks) == 2
    sequence = write_sequence(tmp_path, ["cat", "dog"])
    # On a smaller model, for one step, with fewer pictures; every line else is the reader's.
    small = {
        'base_model="miniature"': f"base_model={str(tiny_base_model)!r}",
        '"miniature_set1"': repr(str(sequence)),
        "steps=250": "steps=1",
        "runs/notebook": "runs/demo",
    }
    for text, other in small.items():
        assert text in "".join(blocks), text
        blocks = [block.replace(text, other) for block in blocks]
    monkeypatch.chdir(tmp_path)
    for block in blocks:
        exec(compile(block, "docs/python.md", "exec"), {"__name__": "page"})
    assert NeuronRegistry.load(tmp_path / "runs" / "demo" / "registry").tokens == ["<new1>", "<new2>"]
