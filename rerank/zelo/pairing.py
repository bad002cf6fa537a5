"""Which documents of a query are compared: sparse graphs in which everything is connected."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components, shortest_path

# (m, 2): places of two documents, the smaller first, rows ascending.
Pairs = NDArray[np.int64]

REPAIRS_PER_PAIR = 40
SHALLOWEST = 10


@dataclass(frozen=True)
class GraphFacts:
    """`diameter`: the longest shortest path, in comparisons; None when not all is connected."""

    documents: int
    pairs: int
    smallest_degree: int
    largest_degree: int
    components: int
    diameter: int | None

    @property
    def is_connected(self) -> bool:
        return self.components <= 1


def random_cycles(documents: int, degree: int, seed: int) -> Pairs:
    """Each document compared with about `degree` others: degree // 2 random cycles through all
    documents, and for an odd degree a random matching (arXiv 2509.12541, there 4 cycles of 100).

    No pair twice, none with itself. Connected, since one cycle alone is. Pairs that two cycles
    would share are moved, not dropped, so that degrees stay equal while room allows. From
    degree >= documents - 1 it is all pairs. Raises ValueError for degree < 2.
    """
    if degree < 2:
        raise ValueError(f"degree is {degree}: at least 2, or the documents are not connected")
    if degree >= documents - 1:
        return all_pairs(documents)
    random = np.random.default_rng(seed)
    chosen: set[tuple[int, int]] = set()
    for _ in range(degree // 2):
        order = random.permutation(documents)
        chosen |= _edges_apart(order, chosen, random, closed=True)
    if degree % 2:
        order = random.permutation(documents)
        chosen |= _edges_apart(order, chosen, random, closed=False)
    return _as_pairs(_topped_up(chosen, documents, degree, random))


def random_pairs(documents: int, count: int, seed: int) -> Pairs:
    """`count` different pairs, each equally likely; all pairs when there are no more. They may
    leave documents uncompared or unconnected."""
    first, second = np.triu_indices(max(documents, 0), 1)
    random = np.random.default_rng(seed)
    kept = np.sort(random.permutation(len(first))[:count])
    return np.stack([first[kept], second[kept]], axis=1).astype(np.int64)


def gold_pairs(documents: int, count: int, seed: int) -> Pairs:
    """Up to `count` different pairs for judges whose answers train a pairwise model: each of two
    random documents of the best k, k drawn from 10 to all with P(k) in proportion to 1 / k, so that
    documents at the top, which are hard to tell apart, meet more often (arXiv 2509.12541, which
    asks one pair a query and gives the distribution in words only)."""
    if documents < 2:
        return all_pairs(documents)
    random = np.random.default_rng(seed)
    depths = np.arange(min(SHALLOWEST, documents), documents + 1)
    chances = (1.0 / depths) / (1.0 / depths).sum()
    wanted = min(count, documents * (documents - 1) // 2)
    chosen: set[tuple[int, int]] = set()
    while len(chosen) < wanted:
        depth = int(random.choice(depths, p=chances))
        a, b = sorted(random.choice(depth, 2, replace=False).tolist())
        chosen.add((a, b))
    return _as_pairs(chosen)


def star(documents: int, hubs: int, seed: int) -> Pairs:
    """Every document against each of `hubs` random ones: short paths, very unequal degrees."""
    chosen = np.random.default_rng(seed).permutation(documents)[:hubs]
    every = all_pairs(documents)
    return every[np.isin(every, chosen).any(axis=1)]


def all_pairs(documents: int) -> Pairs:
    return random_pairs(documents, documents * max(documents - 1, 0) // 2, 0)


def graph_facts(documents: int, pairs: Pairs) -> GraphFacts:
    """Raises ValueError for places outside 0..documents-1."""
    if documents == 0:
        return GraphFacts(0, 0, 0, 0, 0, 0)
    degrees = np.bincount(np.asarray(pairs).ravel(), minlength=documents)
    if len(degrees) > documents or (len(pairs) and np.min(pairs) < 0):
        raise ValueError(f"a pair names a document outside 0..{documents - 1}")
    graph = _graph(documents, pairs)
    components = component_labels(documents, pairs).max() + 1
    diameter = None
    if components == 1:
        diameter = int(shortest_path(graph, directed=False, unweighted=True).max())
    return GraphFacts(
        documents, len(pairs), int(degrees.min()), int(degrees.max()), int(components), diameter
    )


def component_labels(documents: int, pairs: Pairs) -> NDArray[np.int64]:
    """For each document the number of the part that its comparisons connect it with, from 0."""
    _, labels = connected_components(_graph(documents, pairs), directed=False)
    return np.asarray(labels, dtype=np.int64)


def is_strongly_connected(documents: int, wins: Pairs) -> bool:
    """Whether every document is reached from every other along (winner, loser) rows."""
    parts, _ = connected_components(_graph(documents, wins), connection="strong")
    return bool(parts <= 1)


def _graph(documents: int, pairs: Pairs) -> csr_array:
    pairs = np.asarray(pairs, dtype=np.int64).reshape(-1, 2)
    return csr_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), (documents, documents))


def _edges_apart(
    order: NDArray[np.int64],
    taken: set[tuple[int, int]],
    random: np.random.Generator,
    *,
    closed: bool,
) -> set[tuple[int, int]]:
    """The edges of a cycle in this order (`closed`), or of its matching, as few of them in `taken`
    as some exchanges of places can reach."""
    tries = REPAIRS_PER_PAIR * len(order)
    clashes = _clashes(order, taken, closed)
    while clashes and tries:
        tries -= 1
        moved = order.copy()
        here, there = clashes[0], int(random.integers(len(order)))
        moved[[here, there]] = moved[[there, here]]
        left = _clashes(moved, taken, closed)
        if len(left) <= len(clashes):
            order, clashes = moved, left
    return set(_edge_list(order, closed))


def _clashes(order: NDArray[np.int64], taken: set[tuple[int, int]], closed: bool) -> list[int]:
    """Places in the order whose edge is taken already."""
    step = 1 if closed else 2
    edges = enumerate(_edge_list(order, closed))
    return [step * place for place, edge in edges if edge in taken]


def _edge_list(order: NDArray[np.int64], closed: bool) -> list[tuple[int, int]]:
    nodes = order.tolist()
    if closed:
        ends = zip(nodes, nodes[1:] + nodes[:1], strict=True)
    else:
        # An odd one is left out of a matching.
        half = len(nodes) // 2
        ends = zip(nodes[: 2 * half : 2], nodes[1 : 2 * half : 2], strict=True)
    return [(min(a, b), max(a, b)) for a, b in ends]


def _topped_up(
    chosen: set[tuple[int, int]], documents: int, degree: int, random: np.random.Generator
) -> set[tuple[int, int]]:
    """Joins documents that are short of comparisons, where two such were not compared yet."""
    degrees = Counter(place for pair in chosen for place in pair)
    short = [place for place in range(documents) if degrees[place] < degree]
    random.shuffle(short)
    for at, a in enumerate(short):
        for b in short[at + 1 :]:
            pair = (min(a, b), max(a, b))
            if degrees[a] < degree and degrees[b] < degree and pair not in chosen:
                chosen.add(pair)
                degrees.update(pair)
    return chosen


def _as_pairs(chosen: set[tuple[int, int]]) -> Pairs:
    return np.array(sorted(chosen), dtype=np.int64).reshape(-1, 2)
