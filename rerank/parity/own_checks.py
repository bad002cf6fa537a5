"""What every backend owes whatever other backends say. Each check asks for scores only."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np

from rerank.errors import WrongModel
from rerank.inference.golden import TOLERANCE, check_golden
from rerank.parity.probes import prior_scores
from rerank.parity.report import Check
from rerank.parity.subject import Subject, gap
from rerank.parity.truncation import truncation

# Relevances of relevant and irrelevant passages alike within less than this say nothing.
LEAST_RELEVANCE_RANGE = 0.01
# Share of pairs with different logits that may have the same relevance.
MOST_LOST_PAIRS = 0.05
# Texts that are control tokens to one tokenizer or another.
CONTROL_TEXTS = (
    "[SEP]",
    "[CLS]",
    "[MASK]",
    "[PAD]",
    "</s>",
    "<|im_end|>",
    "<|im_start|>",
    "<|endoftext|>",
)
_REPEATS = 8
# Documents of a check that needs no long list.
_FEW = 8
_QUERY = "why is the sky red at sunset"
_DOCUMENT = "The air scatters the blue light away, and what is left is red."


def golden(subject: Subject) -> Check:
    """The published scores of the model's name come out again."""
    name = subject.card.name
    try:
        count = check_golden(subject.reranker, name)
    except WrongModel as error:
        return Check("golden", False, str(error), {}, TOLERANCE)
    if not count:
        return Check("golden", None, f"No scores are published for {name}.")
    return Check("golden", True, f"{count} published scores come out again.", {"scores": count})


def finite(subject: Subject) -> Check:
    """Every probe has a number for every document, and relevances lie in [0, 1]."""
    pairs = odd = outside = 0
    for probe, scores in zip(subject.probes, subject.base, strict=True):
        if scores.logits.shape != (len(probe.documents),):
            sentence = f"{len(probe.documents)} documents got {len(scores.logits)} scores."
            return Check("finite", False, sentence)
        numbers = np.isfinite(scores.logits) & np.isfinite(scores.relevance)
        kept = scores.relevance[numbers]
        pairs += len(numbers)
        odd += int(np.count_nonzero(~numbers))
        outside += int(np.count_nonzero((kept < 0) | (kept > 1)))
    figures = {"not_numbers": odd, "outside": outside, "pairs": pairs}
    if odd:
        sentence = f"{odd} of {pairs} pairs have a score that is no number."
    elif outside:
        sentence = f"{outside} of {pairs} relevances lie outside 0 and 1."
    else:
        sentence = f"All {pairs} scores are numbers, all relevances within 0 and 1."
    return Check("finite", not odd and not outside, sentence, figures, 0)


def resolution(subject: Subject) -> Check:
    """Documents that differ in logit differ in relevance: the map to [0, 1] is not saturated."""
    pairs = lost = 0
    values = []
    for scores in subject.base:
        keep = np.isfinite(scores.logits) & np.isfinite(scores.relevance)
        logits, relevance = scores.logits[keep], scores.relevance[keep]
        upper = np.triu_indices(len(logits), 1)
        differ = (logits[:, None] != logits[None, :])[upper]
        pairs += int(differ.sum())
        lost += int((differ & (relevance[:, None] == relevance[None, :])[upper]).sum())
        values.append(relevance)
    spread = float(np.ptp(np.concatenate(values))) if sum(map(len, values)) else 0.0
    share = lost / pairs if pairs else 1.0
    figures = {"range": spread, "lost_share": share}
    if not pairs:
        sentence = "Every document has the same score."
    elif spread < LEAST_RELEVANCE_RANGE:
        sentence = f"All relevances lie within {spread:.5f}: they are saturated."
    elif share > MOST_LOST_PAIRS:
        sentence = f"{share:.0%} of documents with different logits have the same relevance."
    else:
        sentence = f"Relevances range over {spread:.2f} and keep the logits apart."
    passed = pairs > 0 and spread >= LEAST_RELEVANCE_RANGE and share <= MOST_LOST_PAIRS
    return Check("resolution", passed, sentence, figures, LEAST_RELEVANCE_RANGE)


def determinism(subject: Subject) -> Check:
    """The same request twice gives the same scores."""
    probe = subject.probes[0]
    again = subject.ask(
        probe.query, probe.documents, priors=prior_scores(probe.query, probe.documents)
    )
    difference = gap(subject.base[0].logits, again.logits)
    same = f"Asked twice, the scores are the same{_within(difference)}."
    other = f"Asked twice, a logit moves by {difference:.4g}."
    return _held("determinism", difference, subject.noise, same, other)


def permutation(subject: Subject) -> Check:
    """The order in which documents are given does not matter."""
    if subject.ranks_lists:
        return Check(
            "permutation", None, "The model ranks whole lists; its order may depend on it."
        )
    difference = 0.0
    chance = random.Random(1)
    probe, scores = subject.probes[0], subject.base[0]
    count = len(probe.documents)
    for order in (list(range(count))[::-1], chance.sample(range(count), count)):
        texts = [probe.documents[place] for place in order]
        moved = subject.ask(probe.query, texts, priors=prior_scores(probe.query, texts))
        difference = max(difference, gap(scores.logits[order], moved.logits))
    same = f"In any order the documents get the same scores{_within(difference)}."
    other = f"In another order of the documents a logit moves by {difference:.4g}."
    return _held("permutation", difference, subject.noise, same, other)


def batch_mates(subject: Subject) -> Check:
    """A document alone scores as it does before others of very different lengths."""
    if subject.ranks_lists:
        return Check(
            "batch_mates", None, "The model ranks whole lists; scores depend on the others."
        )
    probe = subject.probes[0]
    by_length = sorted(probe.documents, key=len)
    last = len(by_length) - 1
    chosen = list(dict.fromkeys(by_length[last * step // 4] for step in range(5)))
    difference = 0.0
    for text in chosen:
        # First in both, so that only its company differs.
        company = [text, *(other for other in chosen if other != text)]
        alone = subject.ask(probe.query, [text]).logits
        together = subject.ask(probe.query, company).logits[:1]
        difference = max(difference, gap(alone, together))
    same = f"Alone or among texts of other lengths, scores are the same{_within(difference)}."
    other = f"Beside texts of other lengths a logit moves by {difference:.4g}."
    return _held("batch_mates", difference, subject.noise, same, other)


def empty_documents(subject: Subject) -> Check:
    """Empty texts and empty lists are scored, not refused."""
    scores = subject.ask(_QUERY, ["", "   ", "\n\n", _DOCUMENT])
    without_query = subject.ask("", [_DOCUMENT, ""])
    none = subject.ask(_QUERY, [])
    shapes = [len(scores.logits), len(without_query.logits), len(none.logits)]
    numbers = np.isfinite(scores.logits).all() and np.isfinite(without_query.logits).all()
    passed = bool(numbers) and shapes == [4, 2, 0]
    if passed:
        return Check("empty_documents", True, "Empty texts, queries and lists are scored.")
    return Check("empty_documents", False, "An empty text, query or list gets no proper score.")


def control_tokens(subject: Subject) -> Check:
    """ "[SEP]" and the like inside a document are text: more than one token each."""
    base = subject.ask(_QUERY, ["."]).tokens - 1
    if base < 0:
        return Check("control_tokens", None, "The model does not say how many tokens it reads.")
    read = {}
    for text in CONTROL_TEXTS:
        tokens = subject.ask(_QUERY, [" ".join([text] * _REPEATS)]).tokens
        read[text] = (tokens - base) / _REPEATS
    obeyed = [text for text, tokens in read.items() if tokens < 2]
    figures = {"least": min(read.values()), **read}
    if obeyed:
        sentence = f"A document can forge control tokens: {', '.join(obeyed)}."
    else:
        sentence = f"{len(read)} control tokens written in a document stay text."
    return Check("control_tokens", not obeyed, sentence, figures, 2)


def instruction_off(subject: Subject) -> Check:
    """No instruction, an empty one and a blank one are the same request."""
    probe = subject.probes[0]
    texts = probe.documents[:_FEW]
    none, empty, blank = (
        subject.ask(probe.query, texts, instruction) for instruction in (None, "", "  ")
    )
    difference = max(gap(none.logits, empty.logits), gap(none.logits, blank.logits))
    same = "Without instruction, empty and blank give the same scores."
    other = f"An empty or blank instruction moves a logit by {difference:.4g}."
    return _held("instruction_off", difference, subject.noise, same, other)


def instruction(subject: Subject) -> Check:
    """What instructions do, and whether the card says otherwise."""
    use, turned, pairs, change = subject.instruction_use
    figures = {"result": use, "turned": turned, "pairs": pairs, "change": change}
    meaning = instruction_sentence(subject)
    if use == "ignored" and subject.card.follows_instructions:
        sentence = "The model says it follows instructions, but they change nothing."
        return Check("instruction", False, sentence, figures)
    return Check("instruction", True, meaning, figures)


def instruction_sentence(subject: Subject) -> str:
    use, turned, pairs, _ = subject.instruction_use
    if use == "honoured":
        return f"Instructions are honoured: {turned} of {pairs} pairs turn round as told."
    if use == "ignored":
        return "Instructions are ignored: no score changes."
    return f"Instructions change scores, but only {turned} of {pairs} pairs turn round as told."


# What `self_check` runs, in order.
OWN_CHECKS: tuple[Callable[[Subject], Check], ...] = (
    golden,
    finite,
    resolution,
    determinism,
    permutation,
    batch_mates,
    empty_documents,
    control_tokens,
    truncation,
    instruction_off,
    instruction,
)


def _held(name: str, difference: float, limit: float, same: str, other: str) -> Check:
    passed = difference <= limit
    return Check(name, passed, same if passed else other, {"difference": difference}, limit)


def _within(difference: float) -> str:
    return f" within {difference:.1g}" if difference else ""
