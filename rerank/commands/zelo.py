"""`python -m rerank zelo`: train a reranker from preferences, all of it or stage by stage."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter

from rerank.commands import (
    zelo_documentation,
    zelo_following,
    zelo_instructions,
    zelo_plan,
    zelo_run,
    zelo_small,
    zelo_stages,
)

_WHOLE = {
    "run": (zelo_run, "all stages by a recipe; started again, it goes on where it was"),
    "small": (zelo_small, "the same on an invented world, in about two minutes on a CPU"),
    "plan": (zelo_plan, "how much GPU memory training a model takes"),
    "instructions": (zelo_instructions, "training data with instructions, labelled by exact rules"),
    "documentation": (zelo_documentation, "training rows from installed documentation"),
    "following": (zelo_following, "whether a model does what instructions say"),
}


def add_arguments(parser: ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="stage", required=True, metavar="COMMAND")
    for name, (module, summary) in _WHOLE.items():
        added = commands.add_parser(
            name,
            help=summary,
            description=module.__doc__,
            formatter_class=RawDescriptionHelpFormatter,
        )
        module.add_arguments(added)
        added.set_defaults(run_stage=module.run)
    for stage in zelo_stages.STAGES:
        added = commands.add_parser(stage.name, help=stage.summary, description=stage.description)
        stage.add_arguments(added)
        added.set_defaults(run_stage=stage.run)


def run(options: Namespace) -> int:
    if hasattr(options, "written"):
        zelo_stages.refuse_own_inputs(options)
    code: int = options.run_stage(options)
    return code
