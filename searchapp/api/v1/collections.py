"""/v1/collections: add, delete, list."""

from __future__ import annotations

from searchapp.models import Family, Scope
from searchapp.search.erasing import erase_collection

from .. import collection_names
from ..refusals import Refusal
from .endpoint import Answer, Call, endpoint, json_response
from .schemas import SUCCESS, Asked, Name, Text

SHARDS = {1, 8, 16, 32, 64}


class Add(Asked):
    collection_name: Name
    num_shards: int = 1


class Delete(Asked):
    collection_name: Text


class GetList(Asked):
    pass


@endpoint("collections/add-collection", Add, Scope.ADMIN, Family.COLLECTIONS)
def add_collection(call: Call, asked: Add) -> Answer:
    """An empty collection. `num_shards` is read and means nothing here."""
    if asked.num_shards not in SHARDS:
        allowed = ", ".join(map(str, sorted(SHARDS)))
        return Refusal(400, "bad-shards", f"num_shards must be one of {allowed}.")
    made = collection_names.create(call.caller, asked.collection_name)
    return made if isinstance(made, Refusal) else json_response(SUCCESS, 201)


@endpoint("collections/delete-collection", Delete, Scope.ADMIN, Family.COLLECTIONS)
def delete_collection(call: Call, asked: Delete) -> Answer:
    """Deletes a collection with all that is in it."""
    found = collection_names.named(call.caller, asked.collection_name, Scope.ADMIN)
    if isinstance(found, Refusal):
        return found
    erase_collection(found)
    return SUCCESS


@endpoint(
    "collections/get-collection-list",
    GetList,
    Scope.SEARCH,
    Family.COLLECTIONS,
    or_scope=Scope.INGEST,
)
def get_collection_list(call: Call, asked: GetList) -> Answer:
    """The names of all collections that the key may know of."""
    rows = call.caller.collections.only("slug", "api_name")
    names = {collection_names.name_of(each) for each in rows}
    return {"collection_names": sorted(names, key=str.encode)}
