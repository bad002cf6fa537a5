"""What happens to a document that is too long, found out from scores and counts alone."""

from __future__ import annotations

import time

from rerank.parity.report import Check
from rerank.parity.subject import Subject, gap
from rerank.types import RerankScores

# Characters of the over-long document; the first size that is cut is enough.
SIZES = (2_000, 8_000, 32_000, 128_000)
# After a size that took longer the next one, up to sixteen times as dear, is not tried.
PATIENCE_SECONDS = 5.0
# A document that could not be cut at exactly the model's limit may differ by this share.
_INEXACT = 0.05

_QUERY = "why is the sky red at sunset"
_OTHER_QUERY = "how often should a sourdough starter be fed"
_OPENING = "At sunset the sky is red because the air scatters the blue light away. "
# Tokenizers of all kinds read each of these characters as one token, so that a document can be cut
# by hand exactly where the model cuts it.
_FILLER = "1,2,3,4,5,6,7,8,9,0,"
_TAIL = " A starter kept on the counter is fed every twelve hours, in the cold once a week."


def truncation(subject: Subject) -> Check:
    """A document too long is cut at its end, counted, and scored like one that was cut by hand; the
    query still matters."""
    size, scores = _first_cut(subject)
    if not scores.truncated:
        return _never_cut(subject, size, scores)
    cut, is_exact = _cut_by_hand(subject, size, scores)
    by_hand = _ask(subject, cut)
    difference = gap(scores.logits, by_hand.logits)
    limit = subject.noise if is_exact else max(subject.noise, _INEXACT * subject.spread)
    other = subject.ask(_OTHER_QUERY, [_document(size)]).logits
    query_difference = gap(scores.logits, other)
    figures = {
        "difference": difference,
        "characters_read": cut,
        "characters": size,
        "query_difference": query_difference,
    }
    if difference > limit:
        sentence = (
            f"A document of {size:,} characters scores {difference:.4g} away from the same cut at "
            f"{cut:,}: more than the document's end was lost."
        )
    elif query_difference <= subject.noise:
        sentence = f"Beside a document of {size:,} characters the query no longer matters."
    else:
        sentence = (
            f"Documents are cut at about {cut:,} characters, counted, and scored as if whole."
        )
        return Check("truncation", True, sentence, figures, limit)
    return Check("truncation", False, sentence, figures, limit)


def _first_cut(subject: Subject) -> tuple[int, RerankScores]:
    """The first size that is counted as cut, else the last one tried."""
    for size in SIZES:
        started = time.monotonic()
        scores = _ask(subject, size)
        if scores.truncated or time.monotonic() - started > PATIENCE_SECONDS:
            break
    return size, scores


def _never_cut(subject: Subject, size: int, scores: RerankScores) -> Check:
    """Nothing was counted: either all was read, or the end was dropped silently."""
    room = size // 10
    tail = (_TAIL * (room // len(_TAIL) + 1))[:room]
    other = subject.ask(_QUERY, [_document(size - room) + tail])
    if gap(scores.logits, other.logits) > 0:
        sentence = f"Documents of {size:,} characters are read whole; nothing was cut."
        return Check("truncation", None, sentence, {"characters": size})
    sentence = f"The end of a document of {size:,} characters is dropped without being counted."
    # A service cannot be made to count what it cuts.
    passed = None if subject.card.dtype == "remote" else False
    return Check("truncation", passed, sentence, {"characters": size})


def _cut_by_hand(subject: Subject, size: int, scores: RerankScores) -> tuple[int, bool]:
    """(characters of the longest document that is not cut, whether it has as many tokens as the
    cut one)."""
    guess = _by_tokens(subject, scores.tokens)
    if guess is not None:
        return guess, True
    low, high = 0, size
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _ask(subject, middle).truncated else (middle, high)
    return low, bool(scores.tokens) and _ask(subject, low).tokens == scores.tokens


def _by_tokens(subject: Subject, wanted: int) -> int | None:
    """The same by counting: filler adds one token a character, so two short documents tell."""
    first, second = len(_OPENING) + 1, len(_OPENING) + 11
    tokens = _ask(subject, first).tokens
    if not wanted or _ask(subject, second).tokens != tokens + second - first:
        return None
    guess = first + wanted - tokens
    found = _ask(subject, guess) if guess >= first else None
    return guess if found and not found.truncated and found.tokens == wanted else None


def _ask(subject: Subject, characters: int) -> RerankScores:
    return subject.ask(_QUERY, [_document(characters)])


def _document(characters: int) -> str:
    filler = _FILLER * (characters // len(_FILLER) + 1)
    return (_OPENING + filler)[:characters]
