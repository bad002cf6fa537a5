"""One file to its items: sniff, choose the reader, turn every bad end into a sentence."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module

from .records import ExtractionFailure, ExtractionNote, Item, Source, Unreadable, megabytes
from .sniffing import ARCHIVE_KINDS, sniff

# kind -> (module, function); imported when first needed, so that a child starts at once
_READERS = {
    "pdf": ("pdf", "read_pdf"),
    "docx": ("docx", "read_docx"),
    "pptx": ("pptx", "read_pptx"),
    "xlsx": ("xlsx", "read_xlsx"),
    "html": ("html", "read_html"),
    "markdown": ("markdown", "read_markdown"),
    "plain": ("plain", "read_plain"),
    "delimited": ("delimited", "read_delimited"),
    "json": ("jsonfiles", "read_json"),
    "jsonl": ("jsonfiles", "read_json_lines"),
    "zip": ("archives", "read_zip"),
    "tar": ("archives", "read_tar"),
    "gzip": ("archives", "read_gzip"),
}
# An archive in an archive is opened, one deeper is not.
_DEEPEST_ARCHIVE = 1


def read_items(source: Source) -> Iterator[Item]:
    """Items in the order of the file. A failure comes last; what came before it stands."""
    try:
        kind, note = sniff(source)
        if kind in ARCHIVE_KINDS and source.depth > _DEEPEST_ARCHIVE:
            raise Unreadable(
                "This is an archive in an archive in an archive. "
                "Unpack it and upload what it holds."
            )
        if note:
            yield ExtractionNote(note)
        yield from _reader(kind)(source)
    except Unreadable as failure:
        yield ExtractionFailure(failure.message, failure.retryable)
    except MemoryError:
        yield ExtractionFailure(out_of_memory(source.limits.memory_bytes), retryable=True)
    except RecursionError:
        yield ExtractionFailure("This file is nested too deeply to be read.")
    except OSError as error:
        yield ExtractionFailure(f"The file could not be read: {error.strerror or error}.", True)
    except Exception as error:  # a reader met something its format does not allow
        yield ExtractionFailure(f"The file could not be read ({type(error).__name__}: {error}).")


def out_of_memory(memory_bytes: int) -> str:
    return f"Reading this file needs more than the {megabytes(memory_bytes)} of memory allowed."


def _reader(kind: str) -> Callable[[Source], Iterator[Item]]:
    module, function = _READERS[kind]
    reader: Callable[[Source], Iterator[Item]] = getattr(
        import_module(f"{__package__}.{module}"), function
    )
    return reader
