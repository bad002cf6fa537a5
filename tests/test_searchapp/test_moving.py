"""`manage.py import_zeroentropy` from one running Podium to another collection of it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command

from searchapp.engine import broker, presence
from searchapp.ingest import adding, moving
from searchapp.ingest.adding import PagedText
from searchapp.ingest.embedding import embed_pending
from searchapp.ingest.zeroentropy import MAX_TRIES, Source, SourceFailed
from searchapp.management.commands import import_zeroentropy
from searchapp.models import Collection, Document, DocumentStatus, DocumentText
from tests.callers import make_key
from tests.shelves import make_collection
from tests.test_rerank.http_servers import send, serving

from .test_api.vectors import hashed

pytestmark = pytest.mark.django_db(transaction=True, available_apps=settings.INSTALLED_APPS)

BIRDS: dict[str, tuple[PagedText, dict[str, Any]]] = {
    "heron": (PagedText("The heron fishes.\r\n\nIt stands."), {"place": "pond", "list:a": ["b"]}),
    "ä/owl é.txt": (PagedText("An owl hunts. 🦉"), {"title": "Owls"}),
    "book": (PagedText("", ["Of gulls.", "", "Of herons.\n\n"]), {}),
    "empty": (PagedText(""), {}),
}


@pytest.fixture
def here(live_server: Any) -> Iterator[Any]:
    """Where the copies come from: a collection with a key that may read it."""
    broker.connection().flushdb()
    olive = User.objects.create_user("olive")
    birds = make_collection("birds", user=olive, is_public=False)
    for path, (text, metadata) in BIRDS.items():
        adding.add_text(birds, path, text, metadata)
    embed_pending(hashed)
    key = make_key(olive, "search")[1]
    yield {"base_url": f"{live_server.url}/v1", "key": key}
    broker.connection().flushdb()


def copied(here: Any, **options: Any) -> str:
    out = io.StringIO()
    call_command("import_zeroentropy", **here, stdout=out, no_wait=True, **options)
    return out.getvalue()


def held(slug: str) -> dict[str, Any]:
    rows = Document.objects.filter(collection__slug=slug).select_related("content")
    return {
        row.path: (row.content.text, row.content.page_starts, row.metadata, row.title)
        for row in rows
    }


def test_texts_pages_and_metadata_arrive_as_they_were(
    here: Any, caplog: pytest.LogCaptureFixture
) -> None:
    said = copied(here, collection=["birds"], into="My birds!", user="olive")
    assert "birds → my-birds: 4 copied" in said
    assert "get-document-info" not in caplog.text, "a line for every document"
    assert held("my-birds") == held("birds") and len(held("birds")) == 4
    made = Collection.objects.get(slug="my-birds")
    assert (made.api_name, made.memberships.get().user.username) == ("My birds!", "olive")
    embed_pending(hashed)
    assert set(made.documents.values_list("status", flat=True)) == {DocumentStatus.READY}


def test_it_waits_until_the_documents_are_indexed(here: Any) -> None:
    out = io.StringIO()
    call_command("import_zeroentropy", **here, collection=["birds"], into="copy", stdout=out)
    assert "documents indexed." in out.getvalue()
    states = Document.objects.filter(collection__slug="copy").values_list("status", flat=True)
    assert set(states) == {DocumentStatus.READY}


def test_it_waits_for_a_long_document_as_long_as_its_passages_get_vectors(
    here: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    birds = Collection.objects.get(slug="birds")
    adding.add_text(birds, "long", PagedText("The heron stands in the reeds. " * 6000), {})

    class Clock:
        """Each time the command sleeps, a worker elsewhere that is busy embeds one batch, and most
        of the command's patience goes by."""

        now = 0.0
        naps = 0

        def monotonic(self) -> float:
            return self.now

        def sleep(self, seconds: float) -> None:
            self.naps += 1
            self.now += 0.9 * import_zeroentropy._PATIENCE_SECONDS
            embed_pending(hashed, Collection.objects.get(slug="copy").pk, enough=lambda: True)

    clock = Clock()
    monkeypatch.setattr(import_zeroentropy, "time", clock)
    monkeypatch.setattr(presence, "is_served", lambda queue: queue == "embed")
    call_command("import_zeroentropy", **here, collection=["birds"], into="copy")
    states = Document.objects.filter(collection__slug="copy").values_list("status", flat=True)
    assert set(states) == {DocumentStatus.READY} and len(states) == 5
    assert clock.naps > 3


def test_a_second_run_goes_on_and_never_overwrites_unasked(here: Any) -> None:
    copied(here, collection=["birds"], into="copy")
    Document.objects.get(collection__slug="copy", path="book").delete()
    text = DocumentText.objects.get(document__collection__slug="copy", document__path="heron")
    text.text = "Mine."
    text.save()
    assert "1 copied, 3 kept" in copied(here, collection=["birds"], into="copy")
    assert held("copy")["heron"][0] == "Mine."
    said = copied(here, collection=["birds"], into="copy", overwrite=True)
    assert "0 copied, 4 replaced" in said
    assert held("copy") == held("birds")


def test_without_a_name_every_collection_is_copied(here: Any) -> None:
    """Into those of the same names: nothing is new here."""
    make_collection("public")
    said = copied(here)
    assert "birds → birds: 0 copied, 4 kept" in said and "public → public: 0 copied" in said


def test_long_lists_come_page_by_page(here: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("searchapp.ingest.zeroentropy.LISTED_AT_ONCE", 2)
    copied(here, collection=["birds"], into="copy")
    assert held("copy") == held("birds")


def test_mistakes_are_told_in_a_sentence(here: Any) -> None:
    for options, word in [
        ({"collection": ["fish"]}, "no collection 'fish'"),
        ({"into": "copy"}, "exactly one"),
        ({"collection": ["birds"], "user": "nobody"}, "no active account"),
        ({"collection": ["birds"], "key": "podium_" + "x" * 43}, "401"),
        ({"collection": ["birds"], "key": ""}, "--key"),
        ({"collection": ["birds"], "base_url": "birds"}, "no address"),
    ]:
        with pytest.raises(CommandError, match=word) as told:
            copied({**here, **options})
        assert "podium_" not in str(told.value)


def test_a_document_that_cannot_be_copied_does_not_stop_the_others() -> None:
    target = make_collection("copy")

    def row(path: str, status: str = "indexed", **more: Any) -> dict[str, Any]:
        return {"path": path, "index_status": status, "num_pages": None, "metadata": {}, **more}

    listed = [
        row("a"), row("b", "parsing"), row("c", "parsing_failed"), row("d"),
        row("e", metadata={"n": 7}), row("x" * 1025), row("f"),
    ]  # fmt: skip

    def answer(asked: Any, handler: Any) -> tuple[int, Any]:
        if asked.path.endswith("get-document-info-list"):
            return 200, {"documents": [] if "path_gt" in asked.body else listed}
        if asked.body["path"] == "d":
            return 404, {"detail": "It is gone."}
        return 200, {"document": {"content": f"Text of {asked.body['path']}."}}

    with serving(answer) as server:
        made = moving.copy(Source(server.url, "k"), "any", target)
    assert dict(made.counts) == {"copied": 2, "unread": 2, "failed": 3}
    assert {path for path, _ in made.told} == {"b", "c", "d", "e", "x" * 1025}
    assert sorted(held("copy")) == ["a", "f"]


def test_what_may_pass_is_tried_again_as_the_server_asks() -> None:
    waits: list[float] = []
    answers: list[tuple[int, dict[str, str]]] = [
        (429, {"retry-after-ms": "1500"}),
        (429, {"retry-after": "3"}),
        (500, {}),
        (400, {"x-should-retry": "true"}),
        (200, {}),
    ]

    def answer(asked: Any, handler: Any) -> None:
        status, headers = answers.pop(0)
        send(handler, status, {"collection_names": ["a"], "detail": "busy"}, headers)

    with serving(answer) as server:
        assert Source(server.url, "k", pause=waits.append).collections() == ["a"]
    assert waits[:2] == [1.5, 3.0] and 1.5 <= waits[2] <= 2.0 and 3.0 <= waits[3] <= 4.0


def test_what_does_not_pass_ends_in_a_sentence_without_the_key() -> None:
    waits: list[float] = []

    def asked_of(said: Any, headers: dict[str, str], word: str) -> int:
        def answer(asked: Any, handler: Any) -> None:
            send(handler, *said, headers)

        with serving(answer) as server:
            with pytest.raises(SourceFailed, match=word) as told:
                Source(server.url, "k-secret", pause=waits.append).collections()
            assert "k-secret" not in str(told.value)
            return len(server.asked)

    assert asked_of((503, {"detail": "k-secret is out"}), {}, "503") == MAX_TRIES
    assert asked_of((409, {"detail": "taken"}), {"x-should-retry": "false"}, "taken") == 1
    assert asked_of((302, {}), {"location": "/elsewhere"}, "redirects, .* /v1 too") == 1
    assert asked_of((200, b"<html>"), {}, "not JSON") == 1
    assert asked_of((200, [1]), {}, "contract") == 1
    with pytest.raises(SourceFailed, match="cannot be reached"):
        Source("http://127.0.0.1:9", "k", pause=waits.append).collections()
