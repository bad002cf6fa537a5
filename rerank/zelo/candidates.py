"""The first stage over a BEIR folder: queries and the documents to compare for each."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rerank.errors import BadStage
from rerank.evaluation.beir import corpus_file, read_corpus, read_folder, read_queries
from rerank.evaluation.evaluate import Settings, open_first_stage
from rerank.inference.texts import sendable
from rerank.ranking.fusion import fuse_weighted
from rerank.types import Embedder

from .mined_stage import mine_candidates
from .progress import Bar, with_bar
from .recipe import Recipe
from .records import (
    CANDIDATES,
    Candidates,
    Document,
    Header,
    Outcome,
    input_digest,
    is_current,
    read_candidates,
    read_header,
    write_candidates,
)


@dataclass(frozen=True)
class Choice:
    """Which queries of a folder: those judged in `split`, or all for ""; at most `most`, drawn by
    `seed` (0: all of them), none whose text is in `without`."""

    split: str = ""
    most: int = 0
    seed: int = 0
    without: frozenset[str] = field(default_factory=frozenset)


def make_candidates(
    folder: Path,
    output: Path,
    settings: Settings,
    *,
    choice: Choice | None = None,
    embedder: str = "",
    load_embedder: Callable[[str], Embedder],
) -> Outcome:
    """The best `settings.depth` documents of each query, with the first stage's scores as priors.

    `embedder` is a name for `load_embedder`, called only where there is work. Raises BadStage,
    BadInput and what loading raises.
    """
    choice = choice or Choice()
    corpus_path = corpus_file(folder)
    made_from = {"corpus": input_digest(corpus_path), "queries": _digest_of_queries(folder, choice)}
    without = hashlib.sha256("\x00".join(sorted(choice.without)).encode(errors="replace"))
    header = Header(
        CANDIDATES,
        made_from,
        {
            **asdict(settings),
            "embedder": embedder,
            "split": choice.split,
            "queries": choice.most,
            "seed": choice.seed if choice.most else 0,
            "without": without.hexdigest() if choice.without else "",
        },
    )
    if is_current(output, header):
        count = sum(1 for _ in read_candidates(output))
        return Outcome(output, count, True, tuple(read_header(output).notes.get("sentences", ())))
    queries, sentences = _chosen(folder, choice)
    corpus = read_corpus(corpus_path)
    ids, texts = list(corpus), [sendable(text) for text in corpus.values()]
    is_dense = settings.first_stage != "bm25"
    bars: dict[str, Bar] = {}

    def show(stage: str, done: int, total: int) -> None:
        bar = bars.setdefault(stage, Bar(stage, "documents", total))
        bar.move_to(done)

    try:
        search = open_first_stage(
            texts, load_embedder(embedder) if is_dense else None, settings, show
        )
    finally:
        for bar in bars.values():
            bar.close()

    def found() -> Iterator[Candidates]:
        for query_id, text in with_bar(list(queries.items()), CANDIDATES, "queries", len(queries)):
            fused = search(text)[settings.first_stage]
            # Scaled over the whole first stage, as the product's own priors are.
            priors = fuse_weighted(fused, {}, 0.0)
            documents = tuple(
                Document(ids[place], texts[place], round(priors[place], 6))
                for place in list(fused)[: settings.depth]
            )
            yield Candidates(query_id, text, documents, settings.instruction or "")

    whole = Header(header.stage, header.made_from, header.settings, {"sentences": list(sentences)})
    return Outcome(output, write_candidates(output, found(), whole), sentences=tuple(sentences))


def find_candidates(recipe: Recipe, folder: Path, output: Path, choice: Choice) -> Outcome:
    """`make_candidates` as the recipe's [data] says, of any folder."""
    data = recipe.data
    settings = Settings(
        data.first_stage, data.depth, data.dense_weight, data.language, data.instruction or None
    )
    return make_candidates(
        folder,
        output,
        settings,
        choice=choice,
        embedder=data.embedder,
        load_embedder=_loader(recipe),
    )


def find_mined(recipe: Recipe, output: Path) -> Outcome:
    """`mine_candidates` as the recipe's [data] and [mining] say."""
    data = recipe.data
    return mine_candidates(
        data.rows,
        output,
        recipe.mining,
        embedder=data.embedder,
        instruction=data.instruction,
        load_embedder=_loader(recipe),
    )


def _loader(recipe: Recipe) -> Callable[[str], Embedder]:
    def load(name: str) -> Embedder:
        from rerank.ranked import load_embedder

        return load_embedder(name, recipe.device)

    return load


def query_texts(candidates: Path) -> frozenset[str]:
    """As `Choice.without` compares them: case and white space aside."""
    return frozenset(_plain(each.query) for each in read_candidates(candidates))


def _chosen(folder: Path, choice: Choice) -> tuple[Mapping[str, str], list[str]]:
    if choice.split:
        queries = dict(read_folder(folder, choice.split).queries)
    else:
        queries = {name: text for name, text in read_queries(folder).items() if text.strip()}
    sentences = []
    kept = {name: text for name, text in queries.items() if _plain(text) not in choice.without}
    if len(kept) < len(queries):
        sentences.append(
            f"{len(queries) - len(kept)} of {len(queries)} queries of {folder.name} are left out, "
            "because the training has seen them."
        )
    if not kept:
        raise BadStage(
            f"{folder} has no query left to use: all are empty, or the training has seen them."
        )
    if choice.most and choice.most < len(kept):
        drawn = sorted(kept, key=lambda name: _lot(choice.seed, name))[: choice.most]
        chosen = set(drawn)
        kept = {name: text for name, text in kept.items() if name in chosen}
    return {name: sendable(text) for name, text in kept.items()}, sentences


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _lot(seed: int, name: str) -> str:
    """Each query's own, so that a larger draw holds every smaller one."""
    return hashlib.sha256(f"{seed}\x00{name}".encode(errors="surrogatepass")).hexdigest()


def _digest_of_queries(folder: Path, choice: Choice) -> str:
    paths = [folder / "queries.jsonl", folder / "queries.jsonl.gz"]
    total = hashlib.sha256()
    for path in [each for each in paths if each.is_file()][:1]:
        total.update(input_digest(path).encode())
    if choice.split:
        total.update(input_digest(folder / "qrels" / f"{choice.split}.tsv").encode())
    return total.hexdigest()
