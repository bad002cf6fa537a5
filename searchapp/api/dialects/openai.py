"""OpenAI's embeddings, at /v1/embeddings beside our own models/embed."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from searchapp.models import Family

from .. import models_embed
from ..auth import Caller
from ..refusals import Refusal
from .endpoint import Dialect, view_of

# status -> (type, code)
_NAMES: dict[int, tuple[str, str | None]] = {
    401: ("invalid_request_error", "invalid_api_key"),
    403: ("invalid_request_error", "insufficient_permissions"),
    404: ("invalid_request_error", "model_not_found"),
    429: ("requests", "rate_limit_exceeded"),
}


def _error(refusal: Refusal) -> dict[str, Any]:
    other = "server_error" if refusal.status >= 500 else "invalid_request_error"
    kind, code = _NAMES.get(refusal.status, (other, None))
    return {"error": {"message": refusal.sentence, "type": kind, "param": None, "code": code}}


OPENAI = Dialect(body=_error, models=("text-embedding-",))


def _no_tokens(given: Any) -> Any:
    several = given if isinstance(given, list) else []
    if any(isinstance(each, int | list) for each in several):
        raise PydanticCustomError(
            "tokens",
            "Send texts: token numbers are of another tokenizer than this server's. LangChain's "
            "OpenAIEmbeddings sends texts with check_embedding_ctx_length=False.",
        )
    return given


class Embeddings(BaseModel):
    """Texts, not token numbers: those are of another tokenizer than ours. `input_type` is no field
    of OpenAI's; embedders that tell queries from documents need it."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())

    model: str
    input: Annotated[str | list[str], BeforeValidator(_no_tokens)] = Field(
        union_mode="left_to_right"
    )
    dimensions: int | None = None
    encoding_format: Literal["float", "base64"] = "float"
    input_type: Literal["query", "document"] = "document"


def embed(caller: Caller, asked: Embeddings) -> dict[str, Any] | Refusal:
    texts = [asked.input] if isinstance(asked.input, str) else asked.input
    if not texts:
        return Refusal(400, "empty", "There is no text to embed. Send at least one.")
    made = models_embed.embed(
        caller,
        model=OPENAI.model_of(asked.model),
        texts=texts,
        as_queries=asked.input_type == "query",
        dimensions=asked.dimensions,
    )
    if isinstance(made, Refusal):
        return made
    packed = asked.encoding_format == "base64"
    return {
        "object": "list",
        "data": [
            {
                "object": "embedding",
                "index": index,
                "embedding": models_embed.as_base64(row) if packed else row.tolist(),
            }
            for index, row in enumerate(made.vectors)
        ],
        "model": made.model,
        "usage": {"prompt_tokens": made.tokens, "total_tokens": made.tokens},
    }


embeddings = view_of(OPENAI, Embeddings, Family.EMBED, embed)
