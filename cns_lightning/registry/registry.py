"""The registry: the concepts a model has learned, in order, and everything that follows from them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cns_lightning.diffusion.base_source import MINIATURE, BaseSource
from cns_lightning.diffusion.projections import write_weights
from cns_lightning.errors import UserError
from cns_lightning.neurons.mask import NeuronMask
from cns_lightning.neurons.overlap import overlap_of
from cns_lightning.registry import files
from cns_lightning.registry.application import pretrained_weights, write_tokens
from cns_lightning.registry.files import ConceptEntry, GeneralNeurons, Index
from cns_lightning.registry.replay import Replay
from cns_lightning.registry.store import Records, RecordStore

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from cns_lightning.registry.record import ConceptRecord


class NeuronRegistry:
    """Keeps what was learned per concept, in learning order, and builds models from it.

    Trained weights are never stored: they are the base model's plus every concept's values, added in order, so that
    removing a concept or going back to an earlier one is exact. Files are read when they are needed and compared with
    their checksums first.

    On disk a change is a new ``registry.json``, written after the files it names and before others are deleted:
    whatever moment a process dies at, the old or the new state is whole. One process writes (``write=True``); others
    that must know the same keep it in memory (``write=False``). Made by `create` and `load`.
    """

    def __init__(self, folder: Path | None, index: Index, written: Index | None) -> None:
        self.folder = folder
        self._index = index
        self._store = RecordStore(folder, written)
        self._replay = Replay()
        self._base_weights: dict[str, Tensor] | None = None

    @classmethod
    def create(
        cls,
        folder: Path | str | None,
        base_model: str | BaseSource,
        base_fingerprint: str,
        weights: Mapping[str, Tensor] | None = None,
        unet_parameters: int | None = None,
        fused_by: str | None = None,
        rare_words: Sequence[str] = (),
    ) -> NeuronRegistry:
        """Makes an empty registry; nothing is written before the first concept or the general neurons are.

        Args:
            folder: folder of the registry; None keeps it in memory.
            base_model: name or place of the base model, from which it can be loaded again; or its whole source.
            base_fingerprint: fingerprint of the base model.
            weights: the base model's key and value weights; without them they are loaded when they are needed.
            unet_parameters: number of parameters of the base model, only to tell shares of it.
            fused_by: class path of the method that makes one model of the concepts; None where they add up.
            rare_words: words from which the concepts' tokens start, best first.
        """
        source, words = BaseSource.named(base_model), tuple(rare_words)
        index = Index(source, base_fingerprint, unet_parameters, fused_by=fused_by, rare_words=words)
        registry = cls(Path(folder) if folder is not None else None, index, None)
        registry._base_weights = dict(weights) if weights is not None else None
        return registry

    @classmethod
    def load(cls, folder: Path | str, check_files: bool = True) -> NeuronRegistry:
        """Opens a registry; reads ``registry.json`` alone, so a hundred concepts open at once.

        Args:
            folder: the registry's folder.
            check_files: False opens a registry with missing files, to undo what they belong to.

        Raises:
            UserError: if there is none, it has another format version, or files are missing or cut off.
        """
        folder = Path(folder)
        index = files.read_index(folder)
        if check_files:
            files.check_files(folder, index)
        return cls(folder, index, index)

    @property
    def base_model(self) -> str:
        """Returns the name or place of the base model."""
        return self._index.source.place

    @property
    def source(self) -> BaseSource:
        """Returns what makes the base model again: its place, its revision, the LoRA files that are folded in."""
        return self._index.source

    @property
    def base_fingerprint(self) -> str:
        """Returns the fingerprint of the base model."""
        return self._index.base_fingerprint

    @property
    def unet_parameters(self) -> int | None:
        """Returns the number of parameters of the base model's UNet, if it was told."""
        return self._index.unet_parameters

    @property
    def fused_by(self) -> str | None:
        """Returns the class path of the method that makes one model of the concepts; None where they add up."""
        return self._index.fused_by

    @property
    def rare_words(self) -> tuple[str, ...]:
        """Returns the words of the base model from which tokens start, best first."""
        return self._index.rare_words

    @property
    def entries(self) -> tuple[ConceptEntry, ...]:
        """Returns what ``registry.json`` says of every concept, in learning order; reads no file."""
        return self._index.concepts

    @property
    def tokens(self) -> list[str]:
        """Returns the tokens in learning order."""
        return [entry.token for entry in self._index.concepts]

    @property
    def records(self) -> Records:
        """Returns the concepts in learning order; each is read when it is asked for."""
        return Records(self._index.concepts, self._store.record)

    def record(self, token: str) -> ConceptRecord:
        """Reads a concept.

        Raises:
            UserError: if there is none of that token, or its file is missing or damaged.
        """
        return self._store.record(self._index.concepts[self._position(token)])

    def mask(self, token: str) -> dict[str, Tensor]:
        """Returns the neurons that a concept moves, bool by parameter name, of the weights' shapes; empty for none.

        Raises:
            UserError: if there is none of that token.
        """
        mask = self.record(token).moved()
        return {} if mask is None else mask.bools()

    def embedding(self, token: str, encoder: int = 0) -> Tensor:
        """Returns a token's embedding for a text encoder, shape (vectors, width); raises what `record` raises."""
        return self._store.token_record(self._index.concepts[self._position(token)]).embeddings[encoder]

    def _position(self, token: str) -> int:
        if token not in self.tokens:
            known = ", ".join(self.tokens) or "nothing yet"
            raise UserError(self._place, f"knows no concept {token}", f"Choose one of what was learned: {known}")
        return self.tokens.index(token)

    def _upto(self, token: str | None) -> tuple[ConceptEntry, ...]:
        return self._index.concepts if token is None else self._index.concepts[: self._position(token) + 1]

    @property
    def _place(self) -> str:
        return str(self.folder / files.INDEX) if self.folder else "registry"

    def general(self) -> dict[str, Tensor]:
        """Returns the general neurons by parameter name, bool, of the weights' shapes.

        Raises:
            UserError: if none were selected, or their file is damaged.
        """
        return self.general_mask().bools()

    def general_mask(self) -> NeuronMask:
        """Returns the general neurons, packed; raises what `general` raises."""
        if self._index.general is None:
            raise UserError(self._place, "holds no general neurons", "Run fit with a method that selects neurons")
        return self._store.general(self._index.general).mask

    def general_fingerprint(self) -> str | None:
        """Returns what the general neurons follow from: model, prompts and settings; None if none were selected."""
        return self._index.general.fingerprint if self._index.general else None

    def general_metadata(self) -> dict[str, str]:
        """Returns how the general neurons were chosen, for example rule, threshold and density."""
        return dict(self._index.general.metadata) if self._index.general else {}

    def set_general(
        self, mask: NeuronMask, fingerprint: str, metadata: Mapping[str, str] | None = None, write: bool = True
    ) -> None:
        """Keeps the general neurons, in place of others.

        Args:
            mask: the neurons.
            fingerprint: fingerprint of model, prompts and settings.
            metadata: how they were chosen.
            write: whether this process writes files.
        """
        entry = self._store.keep_general(GeneralNeurons(mask, fingerprint, dict(metadata or {})))
        self._index = replace(self._index, general=entry)
        if write:
            self.save()

    def add(self, record: ConceptRecord, write: bool = True) -> None:
        """Appends a concept; the last one, or one with equal content, is replaced in its place.

        Args:
            record: record of the concept.
            write: whether this process writes files.

        Raises:
            UserError: if the token belongs to another concept, on top of which others were learned; or if the files
                cannot be written.
        """
        concepts = list(self._index.concepts)
        position = self.tokens.index(record.token) if record.token in self.tokens else len(concepts)
        is_new = position == len(concepts)
        file = files.file_name(files.next_number(concepts), record.token) if is_new else concepts[position].file
        entry = self._store.keep(record, file)
        if position < len(concepts) - 1 and entry != concepts[position]:
            raise UserError(
                self._place,
                f"holds another concept {record.token}, and {concepts[position + 1].token} was learned on top of it",
                "Use another token, or go back with `concepts --rollback` first",
            )
        concepts[position:] = [entry, *concepts[position + 1 :]]
        self._store.forget_written(self._index.concepts)
        self._index = replace(self._index, concepts=tuple(concepts))
        if write:
            self.save()

    def save(self) -> None:
        """Writes what is not on disk yet, ``registry.json`` last; does nothing for a registry in memory.

        Raises:
            UserError: if the files cannot be written; what was there before is intact.
        """
        self._store.save(self._index)

    def truncate(self, count: int) -> None:
        """Forgets all but the first concepts, in memory; files follow with the next change that is written.

        Args:
            count: number of concepts to keep.

        Raises:
            UserError: if there are fewer.
        """
        if count > len(self._index.concepts):
            raise UserError(
                self._place,
                f"holds {len(self._index.concepts)} concepts, the checkpoint speaks of {count}",
                f"Restore the registry from a copy, or go on from it with `concepts --rollback {self.tokens[-1]}`"
                if self.tokens
                else "Restore the registry from a copy, or start anew in another --run folder",
            )
        self._index = replace(self._index, concepts=self._index.concepts[:count])

    def later(self, token: str) -> list[str]:
        """Returns the tokens learned after one, and so on top of it.

        Raises:
            UserError: if there is none of that token.
        """
        return self.tokens[self._position(token) + 1 :]

    def remove(self, token: str) -> list[str]:
        """Takes one concept out; what is left equals a model built from the other concepts alone, bit for bit.

        Returns:
            The tokens that were learned on top of it and stay.

        Raises:
            UserError: if there is none of that token, or the files cannot be written.
        """
        position, later = self._position(token), self.later(token)
        concepts = self._index.concepts
        self._index = replace(self._index, concepts=concepts[:position] + concepts[position + 1 :])
        self.save()
        return later

    def rollback(self, token: str) -> list[str]:
        """Goes back to the state right after a concept was learned, bit for bit.

        Returns:
            The tokens that were taken out.

        Raises:
            UserError: if there is none of that token, or the files cannot be written.
        """
        removed = self.later(token)
        self.truncate(self._position(token) + 1)
        self.save()
        return removed

    def check_base(self, fingerprints: Sequence[str], base_model: str = "the one in use") -> None:
        """Refuses a base model the concepts were not learned on.

        Args:
            fingerprints: what `BaseModel.fingerprints` returns for the base model in use.
            base_model: its name, for the message.

        Raises:
            UserError: if it is another one.
        """
        self._index.check_base(fingerprints, base_model, self._place)

    def move_base(self, source: BaseSource, write: bool = True) -> None:
        """Notes where the base model is now, on disk if this process writes files; raises what `save` raises."""
        if self.base_model == MINIATURE:  # which is where it always was
            source = source.at(MINIATURE)
        if source != self.source:
            self._index = replace(self._index, source=source)
            if write:
                self.save()

    def verify(self) -> int:
        """Reads every file and compares it with its checksum and with ``registry.json``; returns how many were read.

        Raises:
            UserError: naming every file that is missing, damaged or another concept's.
        """
        return self._store.verify(self._index)

    def lend_base_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Spares the registry loading the base model where its weights are there already, by parameter name."""
        self._base_weights = self._base_weights or dict(weights)

    def union(self, upto: str | None = None) -> NeuronMask:
        """Returns the neurons that any concept moves, up to and with a token; an empty mask if there are none.

        Raises:
            UserError: if there is none of that token.
        """
        union = self._replay.union(self._upto(upto), self._store.record)
        if union is not None:
            return union
        if self._index.general is not None:
            return NeuronMask.empty(self.general_mask().shapes)
        return NeuronMask.empty({name: tuple(weight.shape) for name, weight in (self._base_weights or {}).items()})

    def weights(
        self,
        upto: str | None = None,
        base: Mapping[str, Tensor] | None = None,
        strengths: Mapping[str, float] | None = None,
    ) -> dict[str, Tensor]:
        """Returns the trained key and value weights by parameter name, float32, on the CPU.

        Base weights plus every concept's values, in learning order: the same bits whenever and wherever it is asked.

        Args:
            upto: the last concept to take in; None takes all.
            base: pretrained key and value weights; loaded from the base model if not given.
            strengths: factors on what concepts add, by token; 1 for those that are not named.

        Raises:
            UserError: if there is no concept of a token, the base model cannot be loaded or is another one, or the
                concepts do not add up.
        """
        if self.fused_by is not None:
            problem = f"holds concepts that {self.fused_by.rsplit('.', 1)[-1]} fuses, they do not add up"
            raise UserError(self._place, problem, "Use load_pipeline on the run folder")
        entries = self._upto(upto)
        base = base if base is not None else self._loaded_base_weights()
        for token in strengths or ():
            self._position(token)
        return self._replay.weights(base, entries, self._store.record, strengths)

    def _loaded_base_weights(self) -> dict[str, Tensor]:
        self._base_weights = self._base_weights or pretrained_weights(self)
        return self._base_weights

    def apply(self, pipe: Any, upto: str | None = None, base: Mapping[str, Tensor] | None = None) -> None:
        """Makes a diffusers pipeline know the concepts: trained weights, tokens, embeddings, in its own precision.

        Args:
            pipe: a pipeline of the base model.
            upto: the last concept to take in; None takes all.
            base: pretrained key and value weights; loaded from the base model if not given.

        Raises:
            UserError: if there is none of that token, or the pipeline is of another model.
        """
        write_weights(pipe, self.weights(upto, base))
        self.apply_tokens(pipe, upto)

    def apply_tokens(self, pipe: Any, upto: str | None = None) -> None:
        """Makes a diffusers pipeline know the tokens and their embeddings alone; raises what `apply` raises."""
        write_tokens(pipe, self.base_model, [self._store.token_record(entry) for entry in self._upto(upto)])

    def overlap(self) -> dict[str, Any]:
        """Returns how much the concepts' neurons overlap; see `overlap_of`. Those that move none are left out."""
        return overlap_of({record.token: moved for record in self.records if (moved := record.moved()) is not None})
