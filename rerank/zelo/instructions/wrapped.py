"""Contrasts around given passages: only what is said about a passage differs, never its topic."""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rerank.errors import BadInput
from rerank.reading import numbered_json_rows

from .composed import SHAPES, placed
from .contrasts import (
    LABEL_KINDS,
    Contrast,
    assemble,
    beside,
    drawn,
    merged,
    opposites,
    random_of,
    unasked,
)
from .rules import NEUTRAL, Facts, Labelled, Rule
from .wording import Wording

# Passages of other lengths are left out: short ones say too little, and of long ones small models
# would not read what stands behind them.
SHORTEST, LONGEST = 40, 900
# Two queries and an instruction must leave a document room within 512 tokens, in any script.
LONGEST_QUERY = 200
# Longer than this, a passage has its metadata in front.
_FRONT = 300
# One source in so many is kept for measuring.
_HELD_SOURCES = 5
KINDS = (
    "recency",
    "version",
    *LABEL_KINDS,
    "access",
    "facet",
    "priority",
    "form",
    "language",
    "product",
)
_JOINTS = ("{a} / {b}", "{a}\n{b}", "1) {a} 2) {b}", "{a} And: {b}")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])|\n+")
# Names of languages as instructions say them.
LANGUAGES: Mapping[str, str] = {
    "ar": "Arabic", "cs": "Czech", "da": "Danish", "de": "German", "el": "Greek", "en": "English",
    "es": "Spanish", "fa": "Persian", "fr": "French", "he": "Hebrew", "hi": "Hindi",
    "hu": "Hungarian", "id": "Indonesian", "it": "Italian", "ja": "Japanese", "ko": "Korean",
    "nl": "Dutch", "no": "Norwegian", "pl": "Polish", "pt": "Portuguese", "ro": "Romanian",
    "ru": "Russian", "sv": "Swedish", "th": "Thai", "tr": "Turkish", "uk": "Ukrainian",
    "vi": "Vietnamese", "zh": "Chinese",
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """A query, a passage that answers it, and passages that do not. `language`: an ISO code or
    ""."""

    query: str
    positive: str
    negatives: tuple[str, ...]
    source: str
    language: str = ""

    @property
    def product(self) -> str:
        """Of "docs:owner/repository#part" the repository in words; "" for other sources."""
        found = re.fullmatch(r"docs:[^/]+/([^#]+)(#.*)?", self.source)
        return re.sub(r"[-_.]+", " ", found.group(1)).strip() if found else ""

    @property
    def is_held_out(self) -> bool:
        """Whether its source is kept for measuring."""
        return zlib.crc32(self.source.partition("#")[0].encode()) % _HELD_SOURCES == 0


class Rows:
    """Rows of one side of the split, for drawing. Raises BadInput when none are left."""

    def __init__(self, rows: Iterable[Row], held_out: bool) -> None:
        every = list(rows)
        # A text that stands in a source of training is no unseen one.
        seen = {text for row in every if not row.is_held_out for text in (row.query, row.positive)}
        self.held_out = held_out
        self.rows = [
            row
            for row in every
            if row.is_held_out == held_out
            and (not held_out or (row.query not in seen and row.positive not in seen))
        ]
        if len(self.rows) < 2:
            raise BadInput(
                "The rows hold fewer than two usable passages of "
                f"{'a held-out' if held_out else 'a training'} source, between {SHORTEST} and "
                f"{LONGEST} characters. Give more rows or other ones."
            )
        self._by_language = _grouped(self.rows, lambda row: LANGUAGES.get(row.language, ""))
        self._by_product = _grouped(self.rows, lambda row: row.product)
        self._by_code: dict[str, list[Row]] = {}
        for row in self.rows:
            self._by_code.setdefault(row.language, []).append(row)

    def kinds(self) -> tuple[str, ...]:
        """Which contrasts they allow: two languages and two products are needed for these."""
        lacking = {"language": len(self._by_language) < 2, "product": len(self._by_product) < 2}
        return tuple(kind for kind in KINDS if not lacking.get(kind, False))

    def contrast(self, name: str, kind: str, *, held_wording: bool, seed: int) -> Contrast:
        """The contrast called `name`, the same for the same rows and arguments."""
        chance = random_of("wrapped", seed, name, kind, held_wording, self.held_out)
        wording = Wording(held_wording)
        if kind == "language":
            return self._of_two(name, kind, self._by_language, wording, chance)
        if kind == "product":
            return self._of_two(name, kind, self._by_product, wording, chance)
        row = self._row(kind, chance)
        if kind == "form":
            one, other = chance.sample(list(SHAPES), 2)
            asked: tuple[str, ...] = ("form",)
            changes = tuple(Facts(labels={"form": value}) for value in (one, other))
            named = chance.random() < 0.6
            rules: tuple[Rule, Rule] = (
                Labelled("form", one, instead_of=other if named else ""),
                Labelled("form", other, instead_of=one if named else ""),
            )
        else:
            pair = opposites(kind, wording, chance)
            asked, changes = pair.families, pair.changes[:2]
            rules = (pair.wanted, pair.unwanted)
        families = [*asked, *unasked(asked, wording, chance, most=1)]
        texts = [row.positive, row.positive, *self._beside(row, chance)]
        documents = []
        for at, text in enumerate(texts):
            extra = [drawn(each, wording, chance) for each in families[len(asked) :]]
            facts = merged([changes[at % 2], *extra], on_topic=at < 2)
            documents.append((_document(text, facts, families, wording, chance), facts))
        return self._assembled(
            name, kind, row, row.query, documents, rules, families, wording, chance
        )

    def _of_two(
        self,
        name: str,
        kind: str,
        groups: Mapping[str, Sequence[Row]],
        wording: Wording,
        chance: random.Random,
    ) -> Contrast:
        """A query made of two rows' queries, which differ in language or product."""
        one, other = chance.sample(sorted(groups), 2)
        rows = [chance.choice(groups[one]), chance.choice(groups[other])]
        query = chance.choice(_JOINTS).format(a=rows[0].query, b=rows[1].query)
        if chance.random() < 0.5:
            query = chance.choice(_JOINTS).format(a=rows[1].query, b=rows[0].query)
        # A text shows its language by itself; a product has to be named.
        families = [kind] if kind == "product" or chance.random() < 0.3 else []
        documents = []
        for on_topic in (True, False):
            for value, row in zip((one, other), rows, strict=True):
                text = row.positive if on_topic else self._unlike(rows, groups[value], chance)
                facts = Facts(on_topic, labels={kind: value})
                if text:
                    documents.append((_document(text, facts, families, wording, chance), facts))
        excluded = chance.random() < 0.5
        rules: tuple[Rule, Rule] = (
            Labelled(kind, one, strict=True),
            Labelled(kind, one if excluded else other, strict=True, excluded=excluded),
        )
        asked = [kind, "edition", "version"]
        return self._assembled(name, kind, rows[0], query, documents, rules, asked, wording, chance)

    def _assembled(
        self,
        name: str,
        kind: str,
        row: Row,
        query: str,
        documents: Sequence[tuple[str, Facts]],
        rules: tuple[Rule, Rule],
        families: Sequence[str],
        wording: Wording,
        chance: random.Random,
    ) -> Contrast:
        besides = beside(families, wording, chance)
        source = row.source.partition("#")[0]
        return assemble(
            name,
            kind,
            source,
            wording,
            self.held_out,
            query,
            documents,
            rules,
            besides,
            chance,
            NEUTRAL,
        )

    def _row(self, kind: str, chance: random.Random) -> Row:
        """Any row; for forms one of several sentences, where a few draws find one."""
        rows = chance.sample(self.rows, min(20, len(self.rows)))
        if kind == "form":
            rows = [row for row in rows if len(_sentences(row.positive)) > 1] or rows
        return rows[0]

    def _beside(self, row: Row, chance: random.Random) -> list[str]:
        """Two passages that do not answer the row's query: its own negatives, else other rows'."""
        own = chance.sample(row.negatives, min(2, len(row.negatives)))
        alike = self._by_code[row.language]
        missing = [self._unlike([row], alike, chance) for _ in range(2 - len(own))]
        return [text for text in (*own, *missing) if text]

    def _unlike(self, rows: Sequence[Row], among: Sequence[Row], chance: random.Random) -> str:
        """Another row's passage; "" when the draw finds none that differs."""
        taken = {row.positive for row in rows} | {row.query for row in rows}
        for _ in range(5):
            found = chance.choice(among)
            if found.positive not in taken and found.query not in taken:
                return found.positive
        return ""


def read_rows(paths: Sequence[Path]) -> list[Row]:
    """Rows `{"query", "positives", "negatives"?, "source"?, "lang"?}` of .jsonl[.gz] files; those
    without a passage of a usable length or with a very long query are left out. Raises BadInput
    with the line's number."""
    rows = []
    for path in paths:
        for number, record in numbered_json_rows(path, ("query", "positives")):
            row = _row(record, f"Line {number} of {path.name}", path.name.partition(".")[0])
            if row is not None:
                rows.append(row)
    return rows


def _row(record: Mapping[str, Any], where: str, name: str) -> Row | None:
    query = record["query"]
    if not isinstance(query, str) or not query.strip():
        raise BadInput(f"{where}: the query should be text and not empty.")
    passages = {}
    for key in ("positives", "negatives"):
        value = record.get(key) or []
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            raise BadInput(f"{where}: {key} should be a list of texts.")
        passages[key] = tuple(each.strip() for each in value if _fits(each))
    labels = [record.get("source") or name, record.get("lang") or ""]
    if not all(isinstance(each, str) for each in labels):
        raise BadInput(f"{where}: source and lang should be texts.")
    try:
        "".join([query, *passages["positives"], *passages["negatives"], *labels]).encode()
    except UnicodeEncodeError as error:
        raise BadInput(f"{where} holds no valid Unicode text. Write the file as UTF-8.") from error
    if not passages["positives"] or len(query.strip()) > LONGEST_QUERY:
        return None
    known = {text.strip() for text in record["positives"]}
    negatives = tuple(text for text in passages["negatives"] if text not in known)
    return Row(query.strip(), passages["positives"][0], negatives, *labels)


def _fits(text: str) -> bool:
    return SHORTEST <= len(text.strip()) <= LONGEST


def _grouped(rows: Iterable[Row], name_of: Any) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if name_of(row):
            groups.setdefault(name_of(row), []).append(row)
    return groups


def _document(
    text: str, facts: Facts, families: Sequence[str], wording: Wording, chance: random.Random
) -> str:
    form = facts.labels.get("form")
    if form is not None:
        text = SHAPES[form]([part.replace("|", "/") for part in _sentences(text)])
    marks = wording.marks(facts, families, chance)
    if len(text) > _FRONT:
        return "\n".join([" ".join(marks), text] if marks else [text])
    return placed(marks, text, chance)


def _sentences(text: str) -> list[str]:
    parts = (" ".join(part.split()) for part in _SENTENCE_END.split(text))
    return [part for part in parts if part]
