"""``config.yaml`` of a run: what is read from it, and what is said where it cannot be."""

from pathlib import Path

import pytest
import yaml

from cns_lightning.errors import UserError
from cns_lightning.methods.cns import ConceptNeuronSelection
from cns_lightning.runs.config import RunConfig
from cns_lightning.runs.folder import RunFolder
from cns_lightning.sequences.templates import DEFAULT_TEMPLATES

CONCEPT = {"token": "<new1>", "class_word": "Katze", "kind": "animal", "images": "/pictures/größe"}
SEQUENCE = {"name": "one", "concepts": [CONCEPT], "prompts": {"single": ["a <new1> Katze"], "double": [], "triple": []}}
METHOD = {"class_path": "cns_lightning.methods.cns.ConceptNeuronSelection", "init_args": {"learning_rate": 0.1}}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert RunConfig.find(folder) is None
    whole = {"model": {"method": METHOD}, "samples": {"steps": 9, "guidance": 4}}
    RunConfig(folder.config, {"data.seed": 0}, SEQUENCE, whole).write()
    kept = RunConfig.read(folder)
    assert kept == RunConfig(folder.config, {"data.seed": 0}, SEQUENCE, whole)
    assert kept.read_sequence().plain() == SEQUENCE
    assert kept.sampling == (9, 4.0)
    assert kept.method() == (ConceptNeuronSelection, {"learning_rate": 0.1})
    # Of a run that is older than these settings.
    RunConfig(folder.config, {}, SEQUENCE, {"model": {"method": METHOD}}).write()
    assert RunConfig.read(folder).sampling == (25, 7.5)
    assert RunConfig.read(folder).templates == DEFAULT_TEMPLATES


def test_a_missing_or_damaged_file_is_named(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with pytest.raises(UserError, match=r"config\.yaml: is missing"):
        RunConfig.read(folder)
    whole = {"settings": {}, "sequence": SEQUENCE, "whole": {}}
    texts = ["{", "", "[]", *(yaml.safe_dump({key: whole[key] for key in whole if key != name}) for name in whole)]
    texts.append(yaml.safe_dump({**whole, "sequence": {"name": "one"}}))
    for text in texts:
        folder.config.write_text(text, "utf-8")
        with pytest.raises(UserError, match=r"config\.yaml: is damaged"):
            RunConfig.read(folder)
    gone = {"model": {"method": {"class_path": "cns_lightning.methods.gone.Gone"}}}
    RunConfig(folder.config, {}, SEQUENCE, gone).write()
    with pytest.raises(UserError, match=r"config\.yaml: model\.method: .*gone"):
        RunConfig.read(folder).method()
