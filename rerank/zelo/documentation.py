"""Installed documentation -> rows of a query, the passage that answers it, and passages that do
not.

The first sentence of a docstring says what something is for, as one would ask for it; what follows
explains it. So the sentence becomes the query and the rest, without it, the positive; a heading of
a readme or of the language reference is a query for its section. Negatives are other passages of
the same module or page. Nobody judged these rows: they are honest in that no model wrote or chose
them, and nothing of a query stands word for word in its positive.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rerank.errors import BadInput

from .documentation_overlap import NONE_JUDGED, Judged, normalised, read_judged
from .documentation_passages import (
    SHORTEST,
    Passage,
    Unreadable,
    passages_of_module,
    passages_of_page,
    passages_of_topics,
    python_text,
)
from .documentation_sources import TOPICS, Source, all_installed
from .mining import COPY_SHARE, Row
from .progress import with_bar

MOST_PER_PACKAGE = 400
NEGATIVES = 3
# Of a package with more, so many passages for each row wanted are read, of files drawn by chance.
_ROOM = 6
_SHINGLE_WORDS = 6
# Words of a query; one with fewer than `_LEANING` words leans on where it stands.
_FEWEST, _LEANING, _MOST = 3, 5, 25
# A summary that a package has more often says nothing of its own.
_REPEATED = 3
_LEANS = re.compile(
    r"\b(?:this|self|its?|above|below|here|these|those|such|given|current|underlying|following|"
    r"other|another|same|object'?s|instance'?s|the (?:class|object|instance|method|function|module|"
    r"model|result|value|data|request|response|node|item))\b",
    re.IGNORECASE,
)
_GENERIC = re.compile(
    r"^(?:see\b|refer to|same as|alias|deprecated|internal|private|helper|base class|todo|fixme|"
    r"undocumented|no docs|initiali[sz]e self|a?n? ?(?:simple )?test|unit ?test|tests? |private|"
    r"overrides?|overridden|implements? |abstract method|placeholder|dummy|example|copyright|"
    r"created on|author|parameters?\b|args?\b|notes?:|warning|usage:|install|constructor\b|"
    r"wrapper (?:around|for|of)\b|return self\b|default implementation|like\b|as\b)",
    re.IGNORECASE,
)
# Of a body that only points elsewhere.
_SEE_OTHER = re.compile(
    r"^(?:see (?:also )?\S+(?: for .{0,80})?$|refer to .{0,80} for (?:full|more)|"
    r"(?:this|it) (?:is|was|has been) deprecated)",
    re.IGNORECASE | re.MULTILINE,
)
_STOP_WORDS = frozenset(
    re.findall(
        r"\w+",
        "a an and are as at be by can for from has have if in is it its no not of on one or that "
        "the then there this to used was when which will with you your",
    )
)
# A summary that ends so was cut off by its markup.
_UNFINISHED = frozenset(
    {"a", "an", "the", "of", "to", "and", "or", "by", "for", "with", "is", "as"}
)
# Least shares of English's small words among the words, and of ASCII among the letters.
_PROSE, _ASCII = 0.12, 0.9


@dataclass(frozen=True)
class Documented:
    """A row and its source, "docs:installed/PACKAGE#docstring" or "…#section"."""

    row: Row
    source: str


@dataclass(frozen=True)
class PackageRows:
    """What a package gave. `licence`: as its metadata states it, "" for none."""

    name: str
    version: str
    licence: str
    rows: int


@dataclass(frozen=True)
class Generated:
    """`removed`: reason -> passages (or files, where the reason says so) that became no row."""

    rows: list[Documented]
    packages: list[PackageRows]
    removed: dict[str, int]


def documentation_rows(
    *, most_per_package: int = MOST_PER_PACKAGE, avoid: Path | None = None, seed: int = 0
) -> list[Row]:
    """Rows of everything that is installed beside this interpreter, by package; the same for the
    same versions, `seed` and limit. `avoid`: a BEIR folder, or a folder of such, whose queries and
    documents must not come up. Takes a minute or two. Raises BadInput."""
    generated = generate(all_installed(), most_per_package=most_per_package, avoid=avoid, seed=seed)
    return [each.row for each in generated.rows]


def generate(
    sources: Sequence[Source],
    *,
    most_per_package: int = MOST_PER_PACKAGE,
    count: int = 0,
    avoid: Path | None = None,
    seed: int = 0,
) -> Generated:
    """At most `most_per_package` rows of each source and `count` of all (0: no limit), drawn by
    `seed`. Raises BadInput for limits that make no sense, for an unreadable folder to avoid, and
    when nothing is left."""
    if most_per_package < 1 or count < 0:
        raise BadInput("The most rows of a package must be at least 1, and the count 0 or more.")
    drawer = _Drawer(read_judged(avoid) if avoid else NONE_JUDGED, seed)
    found: list[Documented] = []
    for source in with_bar(sources, "reading", "packages", len(sources)):
        found += drawer.rows_of(source, most_per_package)
    if not found:
        reasons = ", ".join(f"{name} {n:,}" for name, n in drawer.removed.most_common(4))
        raise BadInput(
            "Nothing in these packages and folders became a row"
            f"{f' (left out: {reasons})' if reasons else ''}. Name some with docstrings or "
            f"sections of at least {SHORTEST} characters below their first sentence."
        )
    if count and count < len(found):
        drawer.removed["beyond the count"] += len(found) - count
        kept = set(random.Random(f"count {seed}").sample(range(len(found)), count))
        found = [each for at, each in enumerate(found) if at in kept]
    by_source = Counter(each.source.partition("#")[0] for each in found)
    packages = [
        PackageRows(each.name, each.version, each.licence, by_source[_source_name(each)])
        for each in sources
    ]
    return Generated(
        found,
        [each for each in packages if each.rows],
        dict(sorted(drawer.removed.items())),
    )


def _source_name(source: Source) -> str:
    return f"docs:{source.kind}/{source.name.replace(' ', '.')}"


class _Drawer:
    """Rows of one package after the other; what was taken before is not taken again."""

    def __init__(self, judged: Judged, seed: int) -> None:
        self.removed: Counter[str] = Counter()
        self._judged, self._seed = judged, seed
        self._queries: set[str] = set()
        self._texts: set[str] = set()
        # Of all positives taken.
        self._shingles: set[int] = set()

    def rows_of(self, source: Source, most: int) -> Iterator[Documented]:
        chance = random.Random(f"{self._seed} {source.name}")
        asked = self._asked(list(self._passages(source, most * _ROOM, chance)))
        by_document: dict[str, list[Passage]] = {}
        for _, passage in asked:
            by_document.setdefault(passage.document, []).append(passage)
        chance.shuffle(asked)
        asked.sort(key=lambda each: _is_internal(each[1]))
        taken = 0
        for at, (query, passage) in enumerate(asked):
            if taken == most:
                self.removed["beyond the most of a package"] += len(asked) - at
                return
            if reason := self._reason(query, passage):
                self.removed[reason] += 1
                continue
            self._queries.add(normalised(query))
            self._texts.add(normalised(passage.text))
            self._shingles |= _shingles(_body(passage.text))
            negatives = self._negatives(passage, by_document[passage.document], chance)
            taken += 1
            yield Documented(
                Row(query, (passage.text,), negatives), f"{_source_name(source)}#{passage.kind}"
            )

    def _passages(self, source: Source, enough: int, chance: random.Random) -> Iterator[Passage]:
        """All of the readme and of pages; of files drawn by chance until there are enough."""
        sections = passages_of_page(source.readme, source.name, "readme", source.is_markdown)
        for name, path in source.pages.items():
            try:
                text = path.read_bytes().decode("utf-8", errors="replace")
            except OSError:
                self.removed["files unreadable"] += 1
                continue
            sections += passages_of_page(text, _title(text, path), name, path.suffix == ".md")
        yield from (each for each in sections if self._is_usable(each))
        names = list(source.files)
        chance.shuffle(names)
        names.sort(key=lambda name: "/_" in name.rpartition("/")[0])
        found = 0
        for name in names:
            if found >= enough:
                self.removed["files beyond what was needed"] += 1
                continue
            try:
                text = python_text(source.files[name].read_bytes())
                passages = (
                    passages_of_topics(text) if name == TOPICS else passages_of_module(text, name)
                )
            except (Unreadable, OSError) as error:
                reason = str(error) if isinstance(error, Unreadable) else "unreadable"
                self.removed[f"files {reason}"] += 1
                continue
            usable = [each for each in passages if self._is_usable(each)]
            found += len(usable)
            yield from usable

    def _is_usable(self, passage: Passage) -> bool:
        """Whether its text is prose of a usable length; counts why not."""
        reason = _unusable(passage)
        if reason:
            self.removed[reason] += 1
        return not reason

    def _asked(self, passages: Sequence[Passage]) -> list[tuple[str, Passage]]:
        """Each passage with its query; those without one are left out."""
        often = Counter(normalised(each.summary) for each in passages)
        asked = []
        for each in passages:
            times = often[normalised(each.summary)]
            query = "" if times > _REPEATED else query_of(each, is_repeated=times > 1)
            if query:
                asked.append((query, each))
            else:
                self.removed["no query" if times <= _REPEATED else "same summary often"] += 1
        return asked

    def _reason(self, query: str, passage: Passage) -> str:
        """Why a passage becomes no row; "" for one that does."""
        key, text = normalised(query), normalised(passage.text)
        if normalised(passage.summary) in text or key in text:
            return "repeats the query"
        if key in self._queries:
            return "same query"
        if text in self._texts:
            return "same passage"
        own = _shingles(_body(passage.text))
        if len(own & self._shingles) > COPY_SHARE * len(own):
            return "near copy"
        return self._judged.overlap(query, passage.text)

    def _negatives(
        self, passage: Passage, beside: Sequence[Passage], chance: random.Random
    ) -> tuple[str, ...]:
        """Other passages of its document, drawn by chance, without twins of it."""
        own = _shingles(_body(passage.text))
        summary = normalised(passage.summary)
        found: dict[str, None] = {}
        for each in chance.sample(beside, len(beside)):
            if len(found) == NEGATIVES:
                break
            shingles = _shingles(_body(each.text))
            shared = len(own & shingles)
            is_twin = (
                each.is_near(passage)
                or normalised(each.summary) == summary
                or summary in normalised(each.text)
                or shared > COPY_SHARE * min(len(own), len(shingles))
            )
            if not is_twin and not self._judged.holds(each.text):
                found[each.text] = None
        return tuple(found)


def query_of(passage: Passage, is_repeated: bool = False) -> str:
    """Its summary as one would type it, behind its subject where it leans on that; "" for one that
    says too little or too much. `is_repeated`: others have the same."""
    summary = re.sub(r"\s+", " ", passage.summary).strip().rstrip(" .!:;,")
    words = summary.split()
    if passage.kind == "section":
        return summary if 2 <= len(words) <= _MOST and _is_english(summary) else ""
    letters = sum(each.isalpha() or each == " " for each in summary)
    if (
        not _FEWEST <= len(words) <= _MOST
        or letters < 0.8 * len(summary)
        or passage.summary.rstrip().endswith(":")
        or words[-1].lower() in _UNFINISHED
        or _GENERIC.match(summary)
        or not _is_english(summary)
    ):
        return ""
    if len(words) < _LEANING or is_repeated or _LEANS.search(summary):
        said = normalised(summary).split()
        missing = [word for word in passage.subject.split() if normalised(word) not in said]
        # Of a named package only a class has to be named as well.
        if passage.subject.split()[:1] != missing[:1]:
            missing = [word for word in missing if word[0].isupper()]
        return f"{' '.join(missing)}: {summary}" if missing else summary
    return summary


def _unusable(passage: Passage) -> str:
    body = _body(passage.text) if passage.kind == "docstring" else passage.text
    if len(body) < SHORTEST:
        return "short"
    if _SEE_OTHER.match(body) or re.search(r"\bdeprecated\b", body[:200], re.IGNORECASE):
        return "deprecated or elsewhere"
    words = re.findall(r"[^\W\d_]+", body.lower())
    small = sum(word in _STOP_WORDS for word in words)
    if not words or small < _PROSE * len(words) or not _is_english(body):
        return "no English prose"
    return ""


def _is_english(text: str) -> bool:
    letters = [each for each in text if each.isalpha()]
    return bool(letters) and sum(each.isascii() for each in letters) >= _ASCII * len(letters)


def _is_internal(passage: Passage) -> bool:
    """Whether a private package holds it, whose documentation few will ask for."""
    return "._" in passage.document.rpartition(".")[0]


def _body(text: str) -> str:
    """Without the signature."""
    return text.partition("\n\n")[2] or text


def _shingles(text: str) -> set[int]:
    words = re.findall(r"\w+", text.lower())
    runs = range(max(len(words) - _SHINGLE_WORDS + 1, 1))
    return {hash(tuple(words[at : at + _SHINGLE_WORDS])) for at in runs}


def _title(text: str, path: Path) -> str:
    """Of a page: its first heading, else its file's name."""
    found = re.search(r"^#[ \t]+(\S.*)$|^(\S.*)\n[=*#]{3,}[ \t]*$", text, re.MULTILINE)
    return (found.group(1) or found.group(2)).strip("# ") if found else path.stem
