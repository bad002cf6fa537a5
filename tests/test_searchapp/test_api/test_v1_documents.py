"""/v1/collections, /v1/documents and /v1/status by the official client."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
import pytest
import zeroentropy
from django.conf import settings
from django.contrib.auth.models import User
from django.test import Client
from zeroentropy import AsyncZeroEntropy, ZeroEntropy

from searchapp.ingest import control, pipeline
from searchapp.ingest.embedding import embed_pending
from searchapp.models import Collection, Document, Membership, Passage, Role, Upload, UploadBatch
from tests.shelves import add_document, make_collection
from tests.test_searchapp.ingest_files import pdf_bytes

from .event_loop import run_async
from .vectors import hashed

pytestmark = pytest.mark.django_db(transaction=True, available_apps=settings.INSTALLED_APPS)

CSV = b"bird,place\nheron,pond\nowl,barn\n"


@pytest.fixture
def client(olive: User, media: Path, client_of: Callable[..., ZeroEntropy]) -> ZeroEntropy:
    client = client_of(olive)
    client.collections.add(collection_name="birds")
    return client


def add_text(client: ZeroEntropy, path: str, text: str = "A heron.", **more: Any) -> Any:
    content = {"type": "text", "text": text}
    return client.documents.add(collection_name="birds", path=path, content=content, **more)


def info(client: ZeroEntropy, path: str, **more: Any) -> Any:
    return client.documents.get_info(collection_name="birds", path=path, **more).document


def read_uploads() -> list[str]:
    waiting = Upload.objects.filter(state="received").order_by("pk")
    return [pipeline.ingest(pk) for pk in waiting.values_list("pk", flat=True)]


def test_collections_come_and_go(client: ZeroEntropy, client_of: Any) -> None:
    odd = "Vögel & Co. / ../new\n" + "x" * 900
    assert client.collections.add(collection_name=odd, num_shards=8).message == "Success!"
    assert client.collections.get_list().collection_names == sorted([odd, "birds"])
    for name in ("birds", odd):
        with pytest.raises(zeroentropy.ConflictError) as conflict:
            client.collections.add(collection_name=name)
        assert conflict.value.response.headers["x-should-retry"] == "false"
    for bad in ("", "x" * 1025, "ä" * 513, "a\0b"):
        with pytest.raises(zeroentropy.UnprocessableEntityError):
            client.collections.add(collection_name=bad)
    with pytest.raises(zeroentropy.BadRequestError):
        client.collections.add(collection_name="other", num_shards=3)
    assert client.collections.delete(collection_name=odd).message == "Success!"
    with pytest.raises(zeroentropy.NotFoundError):
        client.collections.delete(collection_name=odd)
    assert list(Collection.objects.values_list("slug", "name")) == [("birds", "birds")]


def test_an_empty_name_means_no_collection(client: ZeroEntropy) -> None:
    add_text(client, "a")
    for call in (
        lambda: client.collections.delete(collection_name=""),
        lambda: client.documents.delete(collection_name="", path="a"),
        lambda: client.documents.get_info(collection_name="", path="a"),
        lambda: client.status.get_status(collection_name=""),
        lambda: client.queries.top_snippets(collection_name="", query="heron", k=1),
        lambda: client.models.rerank(model="podium/", query="heron", documents=["a"]),
    ):
        with pytest.raises(zeroentropy.NotFoundError):
            call()
    assert client.status.get_status(collection_name="birds").num_documents == 1


def test_two_people_may_use_one_name_and_see_only_their_own(
    client: ZeroEntropy, client_of: Callable[..., ZeroEntropy]
) -> None:
    add_text(client, "mine")
    other = client_of(User.objects.create_user("other"))
    with pytest.raises(zeroentropy.NotFoundError):
        other.status.get_status(collection_name="birds")
    other.collections.add(collection_name="birds")
    assert other.status.get_status().num_documents == 0
    assert client.status.get_status(collection_name="birds").num_documents == 1
    assert Collection.objects.count() == 2


def test_a_text_is_there_at_once_and_indexed_with_its_vectors(client: ZeroEntropy) -> None:
    text = "A heron fishes.\r\n\n" * 200
    metadata = {"place": "pond", "list:tags": ["bird", "grey"]}
    assert add_text(client, "a/heron.txt", text, metadata=metadata).message == "Success!"
    found = info(client, "a/heron.txt", include_content=True)
    assert (found.index_status, found.content, found.num_pages) == ("not_indexed", text, None)
    assert found.metadata == metadata and found.size == len(text)
    assert info(client, "a/heron.txt").content is None
    with pytest.raises(zeroentropy.BadRequestError, match="not_indexed"):
        client.documents.update(collection_name="birds", path="a/heron.txt", metadata={})
    embed_pending(hashed)
    assert info(client, "a/heron.txt").index_status == "indexed"
    status = client.status.get_status(collection_name="birds")
    assert (status.num_documents, status.num_indexed_documents) == (1, 1)
    assert status.num_indexed_bytes == len(text)

    with pytest.raises(zeroentropy.ConflictError):
        add_text(client, "a/heron.txt", "Another.")
    client.documents.update(collection_name="birds", path="a/heron.txt", metadata={"place": "sea"})
    assert info(client, "a/heron.txt").metadata == {"place": "sea"}
    with pytest.raises(zeroentropy.BadRequestError):
        client.documents.update(
            collection_name="birds", path="a/heron.txt", index_status="not_indexed"
        )
    before = found.id
    raw = client.documents.with_raw_response.add(
        collection_name="birds",
        path="a/heron.txt",
        content={"type": "text", "text": "An owl hunts."},
        overwrite=True,
    )
    assert raw.status_code == 200
    replaced = info(client, "a/heron.txt", include_content=True)
    assert replaced.content == "An owl hunts." and replaced.id != before
    assert httpx.get(found.file_url).status_code == 404
    answer = httpx.get(replaced.file_url)
    assert answer.text == "An owl hunts." and answer.headers["x-content-type-options"] == "nosniff"
    assert Passage.objects.count() == 1


def test_an_empty_text_is_a_document_too(client: ZeroEntropy) -> None:
    add_text(client, "empty", "")
    assert info(client, "empty", include_content=True).index_status == "indexed"
    add_text(client, "spaces", " \n ")
    assert info(client, "spaces", include_content=True).content == " \n "


@pytest.mark.parametrize("kind", ["text-pages", "text-pages-unordered"])
def test_pages_come_back_as_they_were_given(client: ZeroEntropy, kind: Any) -> None:
    pages = ["A heron fishes.\n\n", "", " An owl hunts at night. " * 50, "Boats.\n"]
    content: Any = {"type": kind, "pages": pages}
    client.documents.add(collection_name="birds", path="p", content=content)
    assert info(client, "p").num_pages == 4
    for index, page in enumerate(pages):
        found = client.documents.get_page_info(
            collection_name="birds", path="p", page_index=index, include_content=True
        ).page
        assert (found.content, found.page_index, found.image_url) == (page, index, None)
    for index in (-1, 4, 2**40):
        with pytest.raises(zeroentropy.NotFoundError):
            client.documents.get_page_info(collection_name="birds", path="p", page_index=index)
    spans = set(Passage.objects.values_list("page_first", "page_last"))
    if kind == "text-pages-unordered":
        assert all(first == last for first, last in spans)
    text = info(client, "p", include_content=True).content
    for passage in Passage.objects.all():
        assert text[passage.start : passage.end] == passage.text


def test_a_pdf_is_read_by_a_worker_and_its_pages_are_drawn(client: ZeroEntropy) -> None:
    pages = Client()
    data = base64.b64encode(pdf_bytes(["A heron fishes.", "An owl hunts."])).decode()
    content: Any = {"type": "auto", "base64_data": data}
    client.documents.add(
        collection_name="birds", path="../x/birds.pdf", content=content, metadata={"a": "b"}
    )
    waiting = info(client, "../x/birds.pdf", include_content=True)
    assert (waiting.index_status, waiting.num_pages, waiting.content) == ("not_parsed", None, None)
    assert client.status.get_status(collection_name="birds").num_parsing_documents == 1
    assert read_uploads() == ["indexing"]
    embed_pending(hashed)
    found = info(client, "../x/birds.pdf", include_content=True)
    assert (found.id, found.index_status, found.num_pages) == (waiting.id, "indexed", 2)
    assert "owl" in found.content and found.metadata == {"a": "b"}
    file = httpx.get(found.file_url)
    assert file.content == base64.b64decode(data)
    assert file.headers["content-disposition"] == 'attachment; filename="birds.pdf"'
    page = client.documents.get_page_info(
        collection_name="birds", path="../x/birds.pdf", page_index=1, include_content=True
    ).page
    assert "owl" in page.content and page.image_url
    image = httpx.get(page.image_url)
    assert image.headers["content-type"] == "image/jpeg" and image.content[:2] == b"\xff\xd8"
    forged = page.image_url[:-4] + "AAAA"
    assert httpx.get(forged).json() == {"detail": "This address is not valid or no longer valid."}

    # Overwritten by a broken file: what was there stays searchable, the failure can be retried.
    content = {"type": "auto", "base64_data": base64.b64encode(b"%PDF-1.4 broken").decode()}
    client.documents.add(
        collection_name="birds", path="../x/birds.pdf", content=content, overwrite=True
    )
    assert info(client, "../x/birds.pdf").index_status == "not_parsed"
    assert read_uploads() == ["failed"]
    assert info(client, "../x/birds.pdf").index_status == "parsing_failed"
    assert client.status.get_status(collection_name="birds").num_failed_documents == 1
    assert Passage.objects.filter(text__contains="owl").exists()
    assert UploadBatch.objects.count() == 1
    pages.force_login(User.objects.get())
    assert "not read" in pages.get("/collections/birds/documents/").content.decode()
    shown = pages.get(f"/documents/{found.id}").content.decode()
    assert "could not be read" in shown and "owl" in shown
    client.documents.update(
        collection_name="birds", path="../x/birds.pdf", index_status="not_parsed"
    )
    assert info(client, "../x/birds.pdf").index_status == "not_parsed"
    add_text(client, "../x/birds.pdf", "Only text now.", overwrite=True)
    assert read_uploads() == [] and info(client, "../x/birds.pdf").index_status == "not_indexed"
    assert Upload.objects.exclude(file="").count() == 0


def test_a_table_is_one_document_with_a_page_per_row(client: ZeroEntropy) -> None:
    content: Any = {"type": "auto", "base64_data": base64.b64encode(CSV).decode()}
    client.documents.add(collection_name="birds", path="birds.csv", content=content)
    assert read_uploads() == ["indexing"]
    found = info(client, "birds.csv", include_content=True)
    assert found.num_pages == 2 and "heron" in found.content and "owl" in found.content
    assert Document.objects.count() == 1
    assert found.size == len(CSV) == len(httpx.get(found.file_url).content)
    # The same bytes again under another path are another document.
    client.documents.add(collection_name="birds", path="more.csv", content=content)
    read_uploads()
    assert Document.objects.count() == 2
    # Deleted before it is read: nothing comes of it.
    client.documents.add(collection_name="birds", path="gone.csv", content=content)
    client.documents.delete(collection_name="birds", path="gone.csv")
    read_uploads()
    control.sweep()
    assert Document.objects.count() == 2
    with pytest.raises(zeroentropy.BadRequestError, match="base64"):
        client.documents.add(
            collection_name="birds",
            path="x.csv",
            content={"type": "auto", "base64_data": "no base64!"},
        )


def test_a_row_keeps_all_of_its_columns_as_a_page(client: ZeroEntropy) -> None:
    table = b"id,name,text,place\n7,Heron,It stands still.,pond\n8,Owl,It hunts.,barn\n"
    content: Any = {"type": "auto", "base64_data": base64.b64encode(table).decode()}
    client.documents.add(collection_name="birds", path="birds.csv", content=content)
    assert read_uploads() == ["indexing"]
    page = client.documents.get_page_info(
        collection_name="birds", path="birds.csv", page_index=0, include_content=True
    ).page
    assert page.content.splitlines() == ["Heron", "place: pond", "id: 7", "It stands still."]
    found = client.queries.top_pages(collection_name="birds", query="owl", k=1)
    assert [each.page_index for each in found.results] == [1]
    content["base64_data"] = base64.b64encode(b"\n".join(table.split(b"\n")[:2])).decode()
    client.documents.add(collection_name="birds", path="one.csv", content=content)
    assert read_uploads() == ["indexing"]
    one = info(client, "one.csv", include_content=True)
    assert one.num_pages == 1 and one.content.strip() == page.content


def test_lists_are_in_the_order_of_bytes_and_come_page_by_page(client: ZeroEntropy) -> None:
    paths = ["a", "B", "ä", "a/b", "a b", "Z", "_", "zz", "😀", "￿", "a%b", "a_c"]
    for path in paths:
        add_text(client, path)
    expected = sorted(paths, key=str.encode)
    listed = client.documents.get_info_list(collection_name="birds", limit=5)
    assert [each.path for each in listed] == expected
    page = client.documents.get_info_list(collection_name="birds", limit=5)
    assert len(page.documents) == 5 and page.documents[0].created_at.tzinfo
    prefixed = client.documents.get_info_list(collection_name="birds", path_prefix="a")
    assert [each.path for each in prefixed] == [p for p in expected if p.startswith("a")]
    odd = client.documents.get_info_list(collection_name="birds", path_prefix="a_")
    assert [each.path for each in odd] == ["a_c"]
    for limit in (0, 1025):
        with pytest.raises(zeroentropy.BadRequestError):
            client.documents.get_info_list(collection_name="birds", limit=limit)


def test_several_documents_are_deleted_at_once(client: ZeroEntropy) -> None:
    for path in "abc":
        add_text(client, path)
    deleted = client.documents.delete(collection_name="birds", path=["c", "nothing", "a", "c"])
    assert deleted.deleted_paths == ["c", "a"]
    with pytest.raises(zeroentropy.NotFoundError):
        client.documents.delete(collection_name="birds", path=["c", "a"])
    for bad in ([], ["x"] * 65):
        with pytest.raises(zeroentropy.UnprocessableEntityError) as unfit:
            client.documents.delete(collection_name="birds", path=bad)
        assert isinstance(unfit.value.body, dict)
        places = [each["loc"] for each in unfit.value.body["detail"]]
        assert places == [["body", "path", "str"], ["body", "path", "list[str]"]]
    assert client.documents.delete(collection_name="birds", path="b").deleted_paths == ["b"]
    assert Passage.objects.count() == 0


BAD_METADATA: list[dict[str, Any]] = [
    {"a b": "x"},
    {"": "x"},
    {"tags": ["x"]},
    {"list:tags": "x"},
    {"list:": ["x"]},
    {"a": "x\0"},
    {"a": "x" * 65_536},
]


@pytest.mark.parametrize("metadata", BAD_METADATA, ids=lambda value: str(value)[:30])
def test_bad_metadata_is_a_bad_request(client: ZeroEntropy, metadata: Any) -> None:
    with pytest.raises(zeroentropy.BadRequestError):
        add_text(client, "x", metadata=metadata)
    assert Document.objects.count() == 0


def test_pages_and_programs_see_the_same_documents(client: ZeroEntropy, olive: User) -> None:
    shelf = make_collection("shelf", user=olive, is_public=False)
    add_document(shelf, "Heron", ["A heron."], path="heron.txt")
    listed = client.documents.get_info_list(collection_name="shelf")
    assert [(each.path, each.index_status) for each in listed] == [("heron.txt", "indexed")]
    add_text(client, "owl.txt")
    assert Document.objects.visible_to(olive).count() == 2


def test_who_may_not_write_is_told_so(
    client: ZeroEntropy, olive: User, client_of: Callable[..., ZeroEntropy]
) -> None:
    other = User.objects.create_user("other")
    theirs = make_collection("theirs", user=other, is_public=True)
    content: Any = {"type": "text", "text": "x"}
    for act in (
        lambda c: c.documents.add(collection_name="theirs", path="x", content=content),
        lambda c: c.documents.delete(collection_name="theirs", path="x"),
        lambda c: c.documents.update(collection_name="theirs", path="x", metadata={}),
        lambda c: c.collections.delete(collection_name="theirs"),
    ):
        with pytest.raises(zeroentropy.PermissionDeniedError):
            act(client)
    theirs.is_public = False
    theirs.save()
    with pytest.raises(zeroentropy.NotFoundError):
        client.documents.delete(collection_name="theirs", path="x")
    Membership.objects.create(collection=theirs, user=olive, role=Role.EDITOR)
    client.documents.add(collection_name="theirs", path="x", content=content)
    limited = client_of(olive, collections=[theirs])
    assert limited.collections.get_list().collection_names == ["theirs"]
    with pytest.raises(zeroentropy.NotFoundError):
        limited.status.get_status(collection_name="birds")
    with pytest.raises(zeroentropy.PermissionDeniedError):
        limited.collections.add(collection_name="new one")
    reader = client_of(olive, "search")
    assert reader.documents.get_info(collection_name="theirs", path="x").document.path == "x"
    writer = client_of(olive, "ingest")
    assert writer.documents.get_info(collection_name="theirs", path="x").document.path == "x"
    with pytest.raises(zeroentropy.PermissionDeniedError):
        reader.documents.delete(collection_name="theirs", path="x")


def test_every_method_by_the_async_client(
    olive: User, media: Path, async_client_of: Callable[..., AsyncZeroEntropy]
) -> None:
    made = async_client_of(olive)

    async def all_of_it() -> list[str]:
        async with made as client:
            await client.collections.add(collection_name="birds")
            for path in ("a", "b", "c"):
                await client.documents.add(
                    collection_name="birds", path=path, content={"type": "text", "text": path}
                )
            await client.documents.add(
                collection_name="birds",
                path="c",
                content={"type": "text-pages", "pages": ["x"]},
                overwrite=True,
            )
            page = await client.documents.get_page_info(
                collection_name="birds", path="c", page_index=0, include_content=True
            )
            assert page.page.content == "x"
            with pytest.raises(zeroentropy.BadRequestError):
                await client.documents.update(collection_name="birds", path="a", metadata={})
            assert (await client.status.get_status()).num_documents == 3
            found = await client.documents.get_info(collection_name="birds", path="a")
            assert found.document.path == "a"
            await client.documents.delete(collection_name="birds", path="b")
            rows = client.documents.get_info_list(collection_name="birds", limit=1)
            paths = [each.path async for each in rows]
            assert (await client.collections.get_list()).collection_names == ["birds"]
            await client.collections.delete(collection_name="birds")
            return paths

    assert run_async(all_of_it()) == ["a", "c"]
    assert Document.objects.count() == 0


def test_signed_addresses_end_with_their_time_and_stay_within_their_kind(
    client: ZeroEntropy, settings: Any
) -> None:
    add_text(client, "heron")
    address = info(client, "heron").file_url
    assert httpx.get(address).text == "A heron."
    settings.API_FILE_URL_DAYS = 0
    assert httpx.get(address).status_code == 200
    as_image = address.replace("get-document?", "get-page-image?")
    for wrong in (as_image, address + "x", address.split("?")[0], f"{address}&token=x"):
        assert httpx.get(wrong).status_code == 404
    assert httpx.post(address).status_code == 404
    settings.API_FILE_URL_DAYS = 1
    day_after = time.time() + 2 * 24 * 3600
    with mock.patch("django.core.signing.time.time", return_value=day_after):
        assert httpx.get(address).status_code == 404
