"""What README shows in Python runs as it stands there."""

import re
from pathlib import Path

import pytest

from cns_lightning.registry.registry import NeuronRegistry
from tests.runs.learning import write_sequence


def test_the_python_of_the_readme_runs(tiny_base_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"```python\n(.*?)```", Path("README.md").read_text("utf-8"), re.DOTALL)
    assert len(blocks) == 2
    sequence = write_sequence(tmp_path, ["cat", "dog"])
    # On a smaller model, for one step, with fewer pictures; every line else is the reader's.
    small = {
        'base_model="miniature"': f"base_model={str(tiny_base_model)!r}",
        '"miniature_set1"': repr(str(sequence)),
        "steps=300": "steps=1",
        "runs/notebook": "runs/demo",
    }
    for text, other in small.items():
        assert text in "".join(blocks), text
        blocks = [block.replace(text, other) for block in blocks]
    monkeypatch.chdir(tmp_path)
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {"__name__": "readme"})
    assert NeuronRegistry.load(tmp_path / "runs" / "demo" / "registry").tokens == ["<new1>", "<new2>"]
