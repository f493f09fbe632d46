"""Where a registry's records live: read from files on demand, kept in memory until they are written.

    save()    concept and general files            registry.json             what it no longer names
              temporary name, sync, rename   ->    the same, at last   ->    deleted

A file that changes its content is first taken out of ``registry.json``. So the process may die between any two steps:
what ``registry.json`` names is there and has the checksum it gives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, overload

from cns_lightning.errors import Problems, UserError
from cns_lightning.registry import files
from cns_lightning.registry.files import ConceptEntry, GeneralEntry, GeneralNeurons, Index
from cns_lightning.storage import remove_partial_files, sha256_of, write_atomically

if TYPE_CHECKING:
    from cns_lightning.registry.record import ConceptRecord

_CACHED_RECORDS = 2


class RecordStore:
    """Reads and writes the files of one registry; knows no order and no meaning.

    Args:
        folder: folder of the files; None keeps everything in memory.
        written: what ``registry.json`` says now, None if it is not known.
    """

    def __init__(self, folder: Path | None, written: Index | None) -> None:
        self.folder = folder
        self._written = written
        self._unsaved: dict[str, bytes] = {}
        self._recent: dict[str, ConceptRecord] = {}
        self._general: GeneralNeurons | None = None
        self._general_is_unsaved = False
        self._may_have_leftovers = True  # of a process that was killed

    def path(self, file: str) -> Path:
        """Returns the place of a file."""
        return (self.folder or Path()) / file

    # ---- reading ----------------------------------------------------------------------------------------------------

    def record(self, entry: ConceptEntry) -> ConceptRecord:
        """Returns a concept, from memory or from its file.

        Raises:
            UserError: if the file is missing or damaged.
        """
        if entry.sha256 in self._recent:
            return self._recent[entry.sha256]
        if entry.sha256 in self._unsaved:
            return self._decoded(entry, self._unsaved[entry.sha256])
        assert self.folder is not None, "a registry without a folder keeps everything in memory"
        return self._decoded(entry, files.read_checked(self.folder, entry))

    def token_record(self, entry: ConceptEntry) -> ConceptRecord:
        """Returns a concept's token and embeddings; the neurons may be left out. Raises what `record` raises."""
        if entry.sha256 in self._recent or entry.sha256 in self._unsaved:
            return self.record(entry)
        assert self.folder is not None, "a registry without a folder keeps everything in memory"
        return files.decode_record(files.read_checked(self.folder, entry), str(self.path(entry.file)), False)

    def _decoded(self, entry: ConceptEntry, data: bytes) -> ConceptRecord:
        record = files.decode_record(data, str(self.path(entry.file)))
        self._recent[entry.sha256] = record
        while len(self._recent) > _CACHED_RECORDS:
            del self._recent[next(iter(self._recent))]
        return record

    def general(self, entry: GeneralEntry) -> GeneralNeurons:
        """Returns the general neurons, from memory or from their file.

        Raises:
            UserError: if the file is missing or damaged.
        """
        if self._general is None:
            assert self.folder is not None, "a registry without a folder keeps everything in memory"
            data = files.read_checked(self.folder, entry)
            self._general = files.decode_general(data, str(self.path(entry.file)))
        return self._general

    # ---- keeping ----------------------------------------------------------------------------------------------------

    def keep(self, record: ConceptRecord, file: str) -> ConceptEntry:
        """Takes a concept in, exactly as its file will give it back; `save` writes it.

        Args:
            record: the concept.
            file: name of its file.
        """
        data = files.encode_record(record)
        entry = ConceptEntry(
            token=record.token,
            class_word=record.class_word,
            kind=record.kind,
            prompt=record.prompt,
            file=file,
            sha256=files.sha256_of_bytes(data),
            bytes=len(data),
            counts=record.counts,
        )
        self._unsaved[entry.sha256] = data
        return entry

    def keep_general(self, general: GeneralNeurons) -> GeneralEntry:
        """Takes general neurons in; `save` writes them."""
        data = files.encode_general(general)
        self._general, self._general_is_unsaved = general, True
        return GeneralEntry(
            fingerprint=general.fingerprint,
            file=files.GENERAL,
            sha256=files.sha256_of_bytes(data),
            bytes=len(data),
            counts={"neurons": general.mask.count(), "key_value_weights": general.mask.total()},
            metadata=dict(general.metadata),
        )

    def forget_written(self, entries: Sequence[ConceptEntry]) -> None:
        """Lets go of concepts that another process has written in the meantime, so that memory does not grow."""
        for entry in entries:
            if entry.sha256 in self._unsaved:
                path = self.path(entry.file)
                if path.exists() and sha256_of(path) == entry.sha256:
                    del self._unsaved[entry.sha256]

    # ---- writing ----------------------------------------------------------------------------------------------------

    def save(self, index: Index) -> None:
        """Brings the folder to a state; does nothing without a folder.

        Raises:
            UserError: if the files cannot be written; what was there before is intact.
        """
        if self.folder is None:
            return
        concepts = [entry for entry in index.concepts if entry.sha256 in self._unsaved]
        general = index.general if self._general_is_unsaved else None
        named = {entry.file for entry in index.entries()}
        has_leftovers = (
            self._may_have_leftovers
            or self._written is None
            or any(entry.file not in named for entry in self._written.entries())
        )
        self._may_have_leftovers = True
        self._unname(index, [*concepts, *([general] if general else [])])
        for entry in concepts:
            write_atomically(self.path(entry.file), self._unsaved[entry.sha256])
        if general and self._general:
            write_atomically(self.path(general.file), files.encode_general(self._general))
        self._write_index(index)
        self._unsaved, self._general_is_unsaved = {}, False
        if has_leftovers:
            # Only then: to look through the folder at every save would cost more with every concept.
            files.remove_unnamed(self.folder, index)
            remove_partial_files(self.folder)
        self._may_have_leftovers = False

    def _unname(self, index: Index, changing: Sequence[ConceptEntry | GeneralEntry]) -> None:
        named = {entry.file: entry.sha256 for entry in self._written.entries()} if self._written else {}
        is_known = self._written is not None or not self.path(files.INDEX).exists()
        if is_known and all(named.get(entry.file, entry.sha256) == entry.sha256 for entry in changing):
            return
        names = {entry.file for entry in changing}
        general = index.general if index.general and index.general.file not in names else None
        kept = tuple(entry for entry in index.concepts if entry.file not in names)
        self._write_index(replace(index, general=general, concepts=kept))

    def _write_index(self, index: Index) -> None:
        if index != self._written and self.folder is not None:
            files.write_index(self.folder, index)
            self._written = index

    # ---- checking ---------------------------------------------------------------------------------------------------

    def verify(self, index: Index) -> int:
        """Reads every file and compares it with what an index says; returns how many were read.

        Raises:
            UserError: naming every file that is missing, damaged or another concept's.
        """
        if self.folder is None:
            return 0
        problems = Problems()
        for entry in index.entries():
            try:
                self._verify(entry, files.read_checked(self.folder, entry))
            except UserError as error:
                problems.add(error.where, error.problem, error.remedy)
        problems.raise_if_any()
        return len(index.entries())

    def _verify(self, entry: ConceptEntry | GeneralEntry, data: bytes) -> None:
        path = str(self.path(entry.file))
        if isinstance(entry, GeneralEntry):
            files.decode_general(data, path)
            return
        record = files.decode_record(data, path)
        if (record.token, record.counts) != (entry.token, entry.counts):
            raise UserError(path, f"holds {record.token}, {files.INDEX} says {entry.token}", files.DAMAGED_REMEDY)


class Records(Sequence["ConceptRecord"]):
    """Concepts in learning order, each read when it is asked for."""

    def __init__(self, entries: Sequence[ConceptEntry], read: Callable[[ConceptEntry], ConceptRecord]) -> None:
        self._entries = entries
        self._read = read

    def __len__(self) -> int:
        return len(self._entries)

    @overload
    def __getitem__(self, position: int) -> ConceptRecord: ...
    @overload
    def __getitem__(self, position: slice) -> Records: ...
    def __getitem__(self, position: int | slice) -> ConceptRecord | Records:
        """Reads one concept, or gives a part of them unread."""
        if isinstance(position, slice):
            return Records(self._entries[position], self._read)
        return self._read(self._entries[position])
