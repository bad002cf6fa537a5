"""What a language model wrote -> the order it meant."""

from __future__ import annotations

import re
from collections.abc import Iterator

# An answer is short; whoever writes more than this is not answering.
LONGEST_ANSWER = 50_000
BRACKETED = re.compile(r"[\[({<【［〔（]\s*(\d{1,6})\s*[\])}>】］〕）]")
BARE = re.compile(r"(?<![\d.])\d{1,6}(?!\d)")
WORDED = re.compile(
    r"(?:passage|document|text)s?\s*(?:no\.?|#|:)?\s*(\d{1,6})(?!\d)", re.IGNORECASE
)
# Between two identifiers of one list: signs of order, quotes, emphasis, a bullet or a number.
BETWEEN_BRACKETED = re.compile(r"[\s>,;≻→=*_`\"'-]*(?:\d{1,6}\s*[.):])?[\s*_`\"'-]*")
BETWEEN_BARE = re.compile(r"[\s>,;≻→=\"'-]+")
THOUGHT = re.compile(r"^.*</think(?:ing)?>", re.DOTALL | re.IGNORECASE)


def read_permutation(answer: str, count: int) -> list[int]:
    """Places 0..count-1 in the order named by identifiers 1..count; [] when none is named.

    Duplicates count once, numbers out of range not at all. Among several lists the longest counts,
    of equally long ones the last: models think aloud before they answer. Identifiers stand in
    brackets of any kind, or bare in a list, or behind the word passage.
    """
    text = THOUGHT.sub("", answer[-LONGEST_ANSWER:])
    bracketed = [(match.span(), match[1]) for match in BRACKETED.finditer(text)]
    chains = [_places(chain, count) for chain in _chains(text, bracketed, BETWEEN_BRACKETED)]
    best = _longest(chains)
    if len(best) > 1:
        return best
    # No list, but sentences such as "[3] is best, then comes [1]".
    named = _places([number for _, number in bracketed], count)
    if named:
        return named
    worded = _places(WORDED.findall(text), count)
    if len(worded) > 1:
        return worded
    bare = [(match.span(), match[0]) for match in BARE.finditer(text)]
    best = _longest([_places(chain, count) for chain in _chains(text, bare, BETWEEN_BARE)])
    if len(best) > 1 or text.strip().isdigit():
        return best
    return worded


def _chains(
    text: str, found: list[tuple[tuple[int, int], str]], between: re.Pattern[str]
) -> Iterator[list[str]]:
    """The numbers found, in runs with nothing but `between` in the gaps."""
    chain: list[str] = []
    end = 0
    for (start, stop), number in found:
        if chain and not between.fullmatch(text, end, start):
            yield chain
            chain = []
        chain.append(number)
        end = stop
    if chain:
        yield chain


def _longest(chains: list[list[int]]) -> list[int]:
    best: list[int] = []
    for chain in chains:
        if len(chain) >= len(best):
            best = chain
    return best


def _places(numbers: list[str], count: int) -> list[int]:
    places = (int(number) - 1 for number in numbers)
    return list(dict.fromkeys(place for place in places if 0 <= place < count))
