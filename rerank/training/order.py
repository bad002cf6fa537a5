"""Which examples go together, the same for the same seed. No torch."""

from __future__ import annotations

import random
from collections.abc import Sequence

from rerank.inference.batching import plan_batches

# Examples are sorted by length within so many steps' worth, so that those of one step are about
# equally long, and which steps stand together still changes every epoch.
_SORTED_STEPS = 32


def steps_of_epoch(lengths: Sequence[int], batch: int, seed: int, epoch: int) -> list[list[int]]:
    """Places 0..n-1, each once, `batch` a step, the last step with what is left; `lengths` in any
    unit."""
    chance = random.Random(f"order {seed} {epoch}")
    places = list(range(len(lengths)))
    chance.shuffle(places)
    window = batch * _SORTED_STEPS
    steps: list[list[int]] = []
    for start in range(0, len(places), window):
        near = sorted(places[start : start + window], key=lambda place: lengths[place])
        steps += [near[first : first + batch] for first in range(0, len(near), batch)]
    chance.shuffle(steps)
    return steps


def steps_per_epoch(count: int, batch: int) -> int:
    """Steps that `count` examples make."""
    window = batch * _SORTED_STEPS
    whole, rest = divmod(count, window)
    return whole * _SORTED_STEPS + -(-rest // batch)


def dealt(lengths: Sequence[int], rank: int, processes: int) -> list[int]:
    """The places that fall to process `rank`: dealt longest first, back and forth, so that each has
    about the same to read."""
    order = sorted(range(len(lengths)), key=lambda place: (-lengths[place], place))
    round_trip = [*range(processes), *reversed(range(processes))]
    return [place for turn, place in enumerate(order) if round_trip[turn % (2 * processes)] == rank]


def chosen_documents(count: int, most: int, seed: int, epoch: int, place: int) -> list[int]:
    """Which of a list's `count` documents are read this epoch, in their order; 0 `most`: all."""
    if not most or count <= most:
        return list(range(count))
    return sorted(random.Random(f"documents {seed} {epoch} {place}").sample(range(count), most))


def is_turned(seed: int, epoch: int, place: int) -> bool:
    """Whether a pair is read as (b, a) this epoch."""
    return random.Random(f"turned {seed} {epoch} {place}").random() < 0.5


def micro_batches(groups: Sequence[Sequence[int]], tokens: int, together: bool) -> list[list[int]]:
    """Row numbers (counted through all groups) that are read at once.

    `groups`: lengths of each group's rows. At most `tokens` with padding, unless one row, or
    `together` one group, is more by itself. `together`: a group's rows stay in one batch, in their
    order.
    """
    lengths = [length for group in groups for length in group]
    if not together:
        return list(plan_batches(lengths, tokens))
    found: list[list[int]] = []
    longest = first = 0
    for group in groups:
        rows = list(range(first, first + len(group)))
        first += len(group)
        widest = max([longest, *group])
        if found and (len(found[-1]) + len(rows)) * widest <= tokens:
            found[-1] += rows
            longest = widest
        else:
            found.append(rows)
            longest = max(group)
    return found
