"""`python -m rerank rank`: documents in the order of their relevance to a query."""

from __future__ import annotations

import json
import shutil
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rerank.errors import BadInput
from rerank.ranked import Document, Model, Ranked, load, ranked
from rerank.reading import json_rows, numbered_lines
from rerank.types import RerankScores

_STDIN = "-"
_NARROWEST_TEXT = 20


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("query")
    parser.add_argument("documents", nargs="*", help="texts; none: read --file, else stdin")
    parser.add_argument(
        "--file",
        help='a document a line, or with .jsonl[.gz] an object with "text" a line; "-" for stdin',
    )
    parser.add_argument("--jsonl", action="store_true", help="the lines of stdin are JSON objects")
    parser.add_argument("--model", default="", help="hub name or directory (default: built in)")
    parser.add_argument("--instruction")
    parser.add_argument("--top-k", type=int, metavar="N", help="only the best N")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", help="float32, bfloat16, ... (default: what suits the device)")
    parser.add_argument("--json", action="store_true")


def run(options: Namespace) -> int:
    documents = _documents(options)
    if options.top_k is not None and options.top_k < 1:
        raise BadInput(f"--top-k is {options.top_k}; it must be at least 1.")
    model = load(options.model, options.device, options.dtype)
    scores = model.scores(options.query, documents, instruction=options.instruction)
    results = ranked(documents, scores, options.top_k, model.calibration)
    if options.json:
        report = _report(model, options.query, results, scores)
        sys.stdout.write(json.dumps(report, ensure_ascii=False, indent=2) + "\n")
    else:
        sys.stdout.write(_table(results))
    return 0


def _documents(options: Namespace) -> Sequence[Document]:
    if options.documents:
        if options.file:
            raise BadInput("Give the documents as arguments or as a file, not both.")
        return list(options.documents)
    if options.file and options.file != _STDIN:
        found = _read(Path(options.file))
    elif options.file == _STDIN or not sys.stdin.isatty():
        found = _read_stdin(options.jsonl)
    else:
        raise BadInput("There are no documents: give them as arguments, by --file, or on stdin.")
    if not found:
        raise BadInput(f"{_source(options)} holds no documents.")
    return found


def _source(options: Namespace) -> str:
    return options.file if options.file and options.file != _STDIN else "Standard input"


def _read(path: Path) -> list[Document]:
    if path.name.endswith((".jsonl", ".jsonl.gz")):
        return list(json_rows(path, ("text",)))
    return [line for _, line in numbered_lines(path)]


def _read_stdin(is_jsonl: bool) -> list[Document]:
    try:
        text = sys.stdin.buffer.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput("Standard input is not UTF-8 text. Decode it first.") from error
    lines = [line for line in text.split("\n") if line.strip()]
    if not is_jsonl:
        return [line.rstrip("\r") for line in lines]
    found: list[Document] = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise BadInput(f"Line {number} of standard input is not JSON: {error}.") from error
        if not isinstance(row, dict) or "text" not in row:
            raise BadInput(f"Line {number} of standard input has no text.")
        found.append(row)
    return found


def _report(
    model: Model, query: str, results: Sequence[Ranked], scores: RerankScores
) -> dict[str, Any]:
    card = model.card
    return {
        "query": query,
        "model": {"name": card.name, "device": card.device, "dtype": card.dtype},
        "results": [vars(result) for result in results],
        "scale": scores.scale,
        "calibration": model.calibration.note if model.calibration else None,
        "truncated": scores.truncated,
        "tokens": scores.tokens,
        "notes": list(scores.notes),
    }


def _table(results: Sequence[Ranked]) -> str:
    """A line per document; the text is cut to the width of the terminal."""
    is_calibrated = any(result.calibrated is not None for result in results)
    extra = f"{'calibrated':>10}  " if is_calibrated else ""
    heading = f"{'rank':>4}  {extra}{'relevance':>9}  {'logit':>8}  {'index':>5}  "
    room = max(shutil.get_terminal_size((100, 24)).columns - len(heading), _NARROWEST_TEXT)
    lines = [f"{heading}document"]
    for result in results:
        text = " ".join(_text(result.document).split())
        shown = text if len(text) <= room else f"{text[: room - 1]}…"
        share = "" if result.calibrated is None else f"{result.calibrated:>10.4f}  "
        lines.append(
            f"{result.rank:>4}  {share}{result.relevance:>9.4f}  {result.logit:>8.3f}  "
            f"{result.index:>5}  {shown}"
        )
    return "\n".join(lines) + "\n"


def _text(document: Document) -> str:
    return str(document["text"]) if isinstance(document, Mapping) else document
