"""What requests and answers have in common."""

from __future__ import annotations

from typing import Annotated

import pydantic
from pydantic import AfterValidator, BaseModel, ConfigDict

from searchapp.engine.sockets import RerankCode, RerankOutcome, RerankStatus

from ..collection_names import MAX_BYTES

# What a column of the database holds.
MOST_INT, MOST_ID = 2**31 - 1, 2**63 - 1


class Body(BaseModel):
    """A request's body: unknown fields and values of another type are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, protected_namespaces=())


class Query(BaseModel):
    """Parameters of an address, which are all texts."""

    model_config = ConfigDict(extra="forbid")


class Nothing(Query):
    """No parameters."""


class Shown(BaseModel):
    """An answer, or a part of one. Fields may be added; none that is there will change."""

    model_config = ConfigDict(protected_namespaces=())


class Field(Shown):
    """One field that was wrong; `name` as `body.name` or `query.limit`."""

    name: str
    message: str


class Failure(Shown):
    """`code` is for programs, `message` a sentence for people."""

    code: str
    message: str
    fields: list[Field]


class ErrorBody(Shown):
    error: Failure


def _storable(text: str) -> str:
    if "\0" in text:
        raise ValueError("no null characters are allowed here")
    return text


def _short(text: str) -> str:
    if len(text.encode()) > MAX_BYTES:
        raise ValueError(f"may have up to {MAX_BYTES:,} UTF-8 bytes")
    return text


# A text that the database can hold.
Text = Annotated[str, AfterValidator(_storable)]
# The path of a document.
Path = Annotated[Text, AfterValidator(_short), pydantic.Field(min_length=1, max_length=1024)]


class Rerank(Shown):
    """What became of the rerank. Where `status` is not `ok` the order is that of the first stage;
    `reason` says why in a sentence, `code` in a word. `pending`: it is on its way. `pairs`:
    passages scored, `cached` of them known from before; `truncated`: cut to what the model
    reads."""

    status: RerankStatus
    reason: str
    code: RerankCode
    model: str
    device: str
    scale: str
    pairs: int
    cached: int
    truncated: int
    tokens: int
    queue_ms: float
    tokenize_ms: float
    inference_ms: float
    notes: list[str]

    @classmethod
    def of(cls, outcome: RerankOutcome) -> Rerank:
        return cls.model_validate(outcome.as_json())
