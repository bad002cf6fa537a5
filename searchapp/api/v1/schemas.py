"""What the contract's requests have in common."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict

from ..collection_names import MAX_BYTES


class Asked(BaseModel):
    """A request's body. Fields of later versions of the contract are let pass."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())


def _storable(text: str) -> str:
    if "\0" in text:
        raise ValueError("no null characters are allowed here")
    return text


def _short(text: str) -> str:
    if not text:
        raise ValueError("must not be empty")
    if len(text.encode()) > MAX_BYTES:
        raise ValueError(f"may have up to {MAX_BYTES:,} UTF-8 bytes")
    return _storable(text)


# A text that the database can hold.
Text = Annotated[str, AfterValidator(_storable)]
# The name of a collection or the path of a document.
Name = Annotated[str, AfterValidator(_short)]

SUCCESS = {"message": "Success!"}
