"""Two rankings into one. Scores come as id -> score mappings, results as well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def fuse_weighted(
    lexical: Mapping[int, float], dense: Mapping[int, float], dense_weight: float
) -> dict[int, float]:
    """dense_weight x dense + (1 - dense_weight) x lexical, each leg scaled to [0, 1] over its own
    candidates (min-max); values in [0, 1], ids in fused order (`ordered`).

    A candidate absent from a leg has 0 there. A leg of one candidate, or of equal scores, gives
    each of them 1. When one leg is empty the other decides alone, at its full [0, 1].
    """
    if not 0.0 <= dense_weight <= 1.0:
        raise ValueError(f"dense_weight is {dense_weight}, not within 0 and 1")
    if not lexical or not dense:
        return ordered(scaled(lexical or dense))
    lexical_scaled, dense_scaled = scaled(lexical), scaled(dense)
    fused = {
        candidate: dense_weight * dense_scaled.get(candidate, 0.0)
        + (1.0 - dense_weight) * lexical_scaled.get(candidate, 0.0)
        for candidate in {**lexical_scaled, **dense_scaled}
    }
    return ordered(fused)


def fuse_reciprocal_ranks(rankings: Sequence[Sequence[int]], k: int = 60) -> dict[int, float]:
    """Sum of 1 / (k + rank), rank from 1 (Cormack et al. 2009), divided by its largest possible
    value so that it lies in [0, 1]; ids in fused order (`ordered`).

    Absent means no share. Empty rankings do not count towards the largest possible value.
    """
    if k < 0:
        raise ValueError(f"k is {k}, not 0 or more")
    filled = [ranking for ranking in rankings if ranking]
    fused: dict[int, float] = {}
    for ranking in filled:
        for rank, candidate in enumerate(ranking, start=1):
            fused[candidate] = fused.get(candidate, 0.0) + 1.0 / (k + rank)
    ceiling = len(filled) / (k + 1.0)
    return ordered({candidate: score / ceiling for candidate, score in fused.items()})


def scaled(scores: Mapping[int, float]) -> dict[int, float]:
    """Scores moved and stretched to [0, 1]; all 1 when they are equal (one candidate included)."""
    if not scores:
        return {}
    low, high = min(scores.values()), max(scores.values())
    span = high - low
    if span <= 0.0:
        return dict.fromkeys(scores, 1.0)
    return {candidate: (score - low) / span for candidate, score in scores.items()}


def ordered(scores: Mapping[int, float]) -> dict[int, float]:
    """The same mapping, best first. Ties fall to the smaller id, whatever order they came in."""
    return dict(sorted(scores.items(), key=lambda item: (-item[1], item[0])))
