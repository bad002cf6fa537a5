"""/v1/status."""

from __future__ import annotations

from django.db.models import IntegerField, Sum
from django.db.models.expressions import Func

from searchapp.models import Document, DocumentStatus, DocumentText, Family, Scope

from ..collection_names import named
from ..refusals import Refusal
from .endpoint import Answer, Call, endpoint
from .records import counts
from .schemas import Asked, Text


class GetStatus(Asked):
    collection_name: Text | None = None


@endpoint("status/get-status", GetStatus, Scope.SEARCH, Family.DOCUMENTS, or_scope=Scope.INGEST)
def get_status(call: Call, asked: GetStatus) -> Answer:
    """How many documents are how far, in one collection or in all that the key may know of."""
    documents = Document.objects.filter(collection__in=call.caller.collections)
    if asked.collection_name is not None:
        collection = named(call.caller, asked.collection_name)
        if isinstance(collection, Refusal):
            return collection
        documents = Document.objects.filter(collection=collection)
    ready = documents.filter(status=DocumentStatus.READY)
    # The length of a stored text is known without reading it.
    size = Sum(Func("text", function="octet_length", output_field=IntegerField()), default=0)
    texts = DocumentText.objects.filter(document__in=ready)
    return {**counts(documents), "num_indexed_bytes": int(texts.aggregate(n=size)["n"])}
