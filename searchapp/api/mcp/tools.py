"""A tool: what it is called, who may call it, what it reads. Those of this package stand in TOOLS,
and what goes wrong in one is a Refusal with a sentence that an assistant can act on."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from searchapp.engine.sockets import RerankOutcome
from searchapp.models import Scope
from searchapp.search.filters import BadFilter
from searchapp.search.pipeline import BadQuery

from ..auth import Caller
from ..failures import failure_of
from ..refusals import Refusal

Record = dict[str, Any]
# How many wrong arguments are told of at once.
MAX_TOLD = 5


class Asked(BaseModel):
    """A tool's arguments. Unknown ones are refused, because an assistant that made one up believes
    that it was obeyed."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())


Arguments = TypeVar("Arguments", bound=Asked)
Run = Callable[[Caller, Arguments], Record | Refusal]


@dataclass(frozen=True)
class Tool:
    """`description` is for the assistant. A key with any one of `scopes` may call it."""

    name: str
    title: str
    description: str
    schema: type[Asked]
    scopes: tuple[Scope, ...]
    run: Callable[[Caller, Any], Record | Refusal]
    changes: bool = False

    def open_to(self, caller: Caller) -> Refusal | None:
        """403 for a key without the scope."""
        if caller.scopes.intersection(self.scopes):
            return None
        return caller.lacks(self.scopes[0])

    def input_schema(self) -> Record:
        made = self.schema.model_json_schema()
        made.pop("description", None)  # the class's, which is for readers of the code
        return made


TOOLS: dict[str, Tool] = {}


def tool(
    title: str, schema: type[Arguments], *scopes: Scope, changes: bool = False
) -> Callable[[Run[Arguments]], Run[Arguments]]:
    """Registers `run(caller, arguments)` by its name; its docstring is the tool's description."""

    def around(run: Run[Arguments]) -> Run[Arguments]:
        name = run.__name__
        description = inspect.cleandoc(run.__doc__ or "")
        TOOLS[name] = Tool(name, title, description, schema, scopes, run, changes)
        return run

    return around


def called(caller: Caller, wanted: Tool, arguments: Mapping[str, Any]) -> Record | Refusal:
    """The tool's answer. Never raises."""
    if refusal := wanted.open_to(caller):
        return refusal
    try:
        return wanted.run(caller, wanted.schema.model_validate(arguments))
    except ValidationError as error:
        return _bad_arguments(error)
    except (BadFilter, BadQuery) as error:
        return Refusal(400, "bad-request", str(error))
    except Exception as error:
        return failure_of(f"the tool {wanted.name}", error)


def rerank_status(outcome: RerankOutcome) -> Record:
    """What became of a rerank: `status` is ok, late, unavailable or off. `scale` says what kind of
    number `relevance` is."""
    told: Record = {"status": outcome.status}
    if outcome.status == "ok":
        told |= {"model": outcome.model, "scale": outcome.scale}
    elif outcome.reason:
        told["reason"] = outcome.reason
    if outcome.notes:
        told["notes"] = list(outcome.notes)
    return told


def _bad_arguments(error: ValidationError) -> Refusal:
    found = error.errors(include_url=False, include_context=False, include_input=False)
    told = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in found[:MAX_TOLD]]
    return Refusal(400, "bad-arguments", f"The arguments do not fit. {'; '.join(told)}.")
