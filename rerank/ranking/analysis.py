"""Text -> terms, the same for indexing and for querying."""

from __future__ import annotations

import functools
import re
import threading
import unicodedata
from typing import Any

import Stemmer

from rerank.ranking.stop_words import STOP_WORDS

STEMMERS = {
    "en": "english",
    "da": "danish",
    "de": "german",
    "es": "spanish",
    "fi": "finnish",
    "fr": "french",
    "it": "italian",
    "nl": "dutch",
    "no": "norwegian",
    "pt": "portuguese",
    "ru": "russian",
    "sv": "swedish",
}
# A term is a key of a database index, whose entries may not be long; nobody types more either.
MAX_TERM_LENGTH = 100
# Distinct words kept analysed per language; then the table starts anew.
CACHE_WORDS = 50_000
# Longer words are rarely seen twice, above all the runs of scripts without spaces.
CACHE_WORD_LENGTH = 32

# Python's \w leaves out the signs that South Asian, Arabic and Hebrew words are written with.
_MARKS = (
    "\u0300-\u036f\u0483-\u0487\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06dc"
    "\u0900-\u0963\u0966-\u0dff\u0e31\u0e34-\u0e3a\u0e47-\u0e4e\u0eb1-\u0ebc\u0ec8-\u0ecd"
    "\u102b-\u103e\u17b4-\u17d3"
)
_WORD = re.compile(rf"[\w{_MARKS}]+")
# Scripts written without spaces (Korean has them, but its particles cling to the word): Thai, Lao,
# Burmese, Hangul, Khmer, kana, Bopomofo, Han.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3100-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\U00020000-\U0003ffff"
)
_RUN = re.compile(rf"([{_UNSPACED}]+)")
_CAMEL_PART = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|[0-9]+")


def terms(text: str, language: str) -> list[str]:
    """The terms of `text` in reading order, repeats included; what the index holds.

    NFKC, lower case, Snowball stems (languages of `STEMMERS`; others as they are). Runs of Chinese,
    Japanese, Korean, Thai and the like become character bigrams, a run of one its character.
    `snake_case` and `CamelCase` names give themselves and their parts; `os.path.join` its parts.
    Stop words are kept here and dropped by `query_terms`.
    """
    lookup = _analysed(language)
    found: list[str] = []
    for word in _words(text):
        found += lookup[word]
    return found


def query_terms(text: str, language: str) -> list[str]:
    """The terms to look up for a query: as `terms`, without stop words.

    A query of nothing but stop words ("to be or not to be", "for") keeps them all: the index holds
    them, so it finds what it says.
    """
    stop_words = STOP_WORDS.get(language, frozenset())
    words = _words(text)
    kept = [word for word in words if word.lower() not in stop_words]
    lookup = _analysed(language)
    found: list[str] = []
    for word in kept or words:
        found += lookup[word]
    return found


def _words(text: str) -> list[str]:
    if not text.isascii() and not unicodedata.is_normalized("NFKC", text):
        text = unicodedata.normalize("NFKC", text)
    return _WORD.findall(text)


class _Terms(dict[str, tuple[str, ...]]):
    """word -> its terms, computed on first sight. Reads take no lock: a dict's are atomic."""

    def __init__(self, stemmer: Any) -> None:
        super().__init__()
        self._stemmer = stemmer
        self._lock = threading.Lock()  # Snowball stemmers are not safe across threads

    def __missing__(self, word: str) -> tuple[str, ...]:
        found = tuple(term[:MAX_TERM_LENGTH] for term in self._analyse(word) if term)
        if len(word) <= CACHE_WORD_LENGTH:
            if len(self) >= CACHE_WORDS:
                self.clear()
            self[word] = found
        return found

    def _analyse(self, word: str) -> list[str]:
        if not word.isascii():
            pieces = _RUN.split(word)
            if len(pieces) > 1:  # odd pieces are the runs
                return [
                    term
                    for place, piece in enumerate(pieces)
                    if piece
                    for term in (_bigrams(piece) if place % 2 else self._analyse(piece))
                ]
        lowered = word.lower()
        if "_" in word:
            parts = [part for part in lowered.split("_") if part]
            stems = [self._stem(part) for part in parts]
            return stems if parts == [lowered] else [lowered, *stems]
        return [self._stem(lowered), *(self._stem(part) for part in _camel_parts(word))]

    def _stem(self, word: str) -> str:
        if self._stemmer is None or len(word) > MAX_TERM_LENGTH:
            return word
        with self._lock:
            return str(self._stemmer.stemWord(word))


@functools.lru_cache(maxsize=64)
def _analysed(language: str) -> _Terms:
    name = STEMMERS.get(language)
    return _Terms(Stemmer.Stemmer(name) if name else None)


def _bigrams(run: str) -> list[str]:
    return [run[i : i + 2] for i in range(len(run) - 1)] or [run]


def _camel_parts(word: str) -> list[str]:
    """`OrderedDict` -> ordered, dict; nothing for plain words and for `LaTeX` or `iPhone`."""
    if not word.isascii() or word.islower() or word.isupper() or word[1:].islower():
        return []
    parts = _CAMEL_PART.findall(word)
    if len(parts) < 2 or min(map(len, parts)) < 2:
        return []
    return [part.lower() for part in parts]
