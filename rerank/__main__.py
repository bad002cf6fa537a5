"""`python -m rerank rank | parity | bench | evaluate | zelo`."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser
from collections.abc import Sequence

from rerank.commands import bench, evaluate, parity, rank, zelo
from rerank.errors import RerankError

_COMMANDS = {
    "rank": (rank, "order documents by relevance to a query"),
    "parity": (parity, "check whether a backend may serve, alone or beside a reference"),
    "bench": (bench, "time a model on this machine"),
    "evaluate": (evaluate, "measure a judged folder before and after reranking"),
    "zelo": (zelo, "train a reranker from preferences, all of it or stage by stage"),
}
# As shells report a process ended by Ctrl-C.
_INTERRUPTED = 130
# And one that wrote to a closed pipe.
_NOBODY_READS = 141


def main(arguments: Sequence[str] | None = None) -> int:
    """0 done or passed, 1 not passed, 2 what was asked cannot be done (a sentence on stderr)."""
    parser = ArgumentParser(prog="python -m rerank", description="The rerank engine by itself.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (module, summary) in _COMMANDS.items():
        added = commands.add_parser(name, help=summary, description=f"{module.__doc__}")
        module.add_arguments(added)
        added.set_defaults(run=module.run)
    options = parser.parse_args(arguments)
    # What matters raises; the models' own remarks on long texts are counted as truncation.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    try:
        code: int = options.run(options)
        sys.stdout.flush()
    except RerankError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("Stopped.\n")
        return _INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has gone; nothing is left to be written to it at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _NOBODY_READS
    return code


if __name__ == "__main__":
    sys.exit(main())
