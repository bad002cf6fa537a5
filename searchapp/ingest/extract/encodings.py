"""Bytes of unknown encoding to clean text."""

from __future__ import annotations

import codecs
import re
from pathlib import Path

from .records import Unreadable

_SAMPLE_BYTES = 256 * 1024
# Longest first: the UTF-32 mark begins with the UTF-16 one.
_MARKS = [
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
]
# PostgreSQL keeps no NUL, UTF-8 no lone surrogate, and readers no other control characters.
_UNWANTED = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f\ud800-\udfff\ufeff\ufffe\uffff]")
_META_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([A-Za-z0-9_.:-]+)", re.I)


def clean(text: str) -> str:
    """Without NUL, control characters and lone surrogates; every line end is one newline."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\x0c", "\n")
    return _UNWANTED.sub("", text)


def detect(path: Path) -> tuple[str, str]:
    """(encoding, note): the note is a sentence when the encoding is a guess, else empty.

    Raises Unreadable when no encoding fits.
    """
    with path.open("rb") as file:
        sample = file.read(_SAMPLE_BYTES)
    for mark, name in _MARKS:
        if sample.startswith(mark):
            return (name, "") if _decodes(path, name) else (name, _damaged(name))
    if b"\x00" not in sample and _decodes(path, "utf-8"):
        return "utf-8", ""
    return _guess(sample)


def decode(path: Path) -> tuple[str, str]:
    """(clean text, note) of a whole text file."""
    encoding, note = detect(path)
    return clean(path.read_bytes().decode(encoding, errors="replace")), note


def decode_html(path: Path) -> tuple[str, str]:
    """Like `decode`, believing the page's own meta charset where the bytes agree with it."""
    data = path.read_bytes()
    declared = _META_CHARSET.search(data[:4096])
    if declared and not any(data.startswith(mark) for mark, _ in _MARKS):
        try:
            return clean(data.decode(declared.group(1).decode("ascii"))), ""
        except (LookupError, UnicodeError):
            pass
    return decode(path)


def _decodes(path: Path, encoding: str) -> bool:
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        with path.open("rb") as file:
            while chunk := file.read(1024 * 1024):
                decoder.decode(chunk)
        decoder.decode(b"", final=True)
    except UnicodeError:
        return False
    return True


def _guess(sample: bytes) -> tuple[str, str]:
    bare = _bare_utf16(sample)
    if bare:
        return bare, f"The text states no encoding; it was read as {bare.upper()}."
    if b"\x00" in sample:
        raise Unreadable("This is not a text: the encoding could not be recognised.")
    import charset_normalizer

    matches = list(charset_normalizer.from_bytes(sample))
    if not matches:
        raise Unreadable("The encoding of this text could not be recognised. Save it as UTF-8.")
    name = matches[0].encoding
    for match in matches:
        # Equally likely ones come in alphabetical order, but Windows-1252 is the one in use.
        is_level = (match.chaos, match.coherence) == (matches[0].chaos, matches[0].coherence)
        if is_level and "cp1252" in [match.encoding, *match.could_be_from_charset]:
            name = "cp1252"
    shown = name.replace("_", "-").replace("cp125", "windows-125")
    return name, (
        f"The text is not UTF-8; it was read as {shown}, which is a guess: "
        "some characters may be wrong."
    )


def _bare_utf16(sample: bytes) -> str:
    """UTF-16 without a mark: mostly Latin text has NUL in every second byte."""
    if len(sample) < 4:
        return ""
    even, odd = sample[0::2].count(0), sample[1::2].count(0)
    half = len(sample) // 2
    if odd > 0.6 * half and even < 0.1 * half:
        return "utf-16-le"
    if even > 0.6 * half and odd < 0.1 * half:
        return "utf-16-be"
    return ""


def _damaged(name: str) -> str:
    return f"Some bytes are not valid {name.upper().removesuffix('-SIG')}; they were replaced by �."
