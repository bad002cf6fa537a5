"""The search pages through their addresses: every state, rights, escaping, headers."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core.cache import cache
from django.core.files.base import ContentFile
from django.test import Client
from django.urls import reverse

from searchapp import metrics
from searchapp.engine import remote
from searchapp.models import Collection, SearchConfig, Trace, Upload, UploadBatch
from searchapp.search import erasing
from tests.fakes import FakeEmbedder, FakeReranker
from tests.shelves import add_document, make_collection

pytestmark = pytest.mark.django_db

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"
SENTENCES = [f"The heron number {n} wades {'slowly ' * n}through the marsh." for n in range(1, 15)]


@pytest.fixture(autouse=True)
def fresh_cache() -> None:
    cache.clear()


@pytest.fixture
def sockets(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    fakes = {"reranker": FakeReranker(), "embedder": FakeEmbedder()}
    monkeypatch.setattr(remote, "reranker", lambda: fakes["reranker"])
    monkeypatch.setattr(remote, "embedder", lambda: fakes["embedder"])
    return fakes


@pytest.fixture
def library(sockets: dict[str, Any]) -> Collection:
    collection = make_collection(suggested_queries=["wading birds"])
    for number, sentence in enumerate(SENTENCES, 1):
        add_document(collection, f"Heron {number}", [sentence], metadata={"bird": "heron"})
    return collection


def search(client: Client, **parameters: Any) -> str:
    response = client.get(reverse("search"), parameters)
    assert response.status_code == 200
    return str(response.content.decode())


def rows(html: str) -> list[str]:
    return re.findall(r'data-passage="(\d+)"', html)


def rerank_address(html: str) -> str:
    found = re.search(r'data-rerank-url="([^"]+)"', html)
    assert found
    return found.group(1).replace("&amp;", "&")


def owner(name: str = "ada") -> Any:
    return get_user_model().objects.create_user(name, password="pass")


# --- the start page ---


def test_the_start_page_shows_collections_and_their_suggestions(
    client: Client, library: Collection
) -> None:
    html = client.get("/").content.decode()
    assert "wading birds" in html and "14 documents" in html


def test_the_start_page_without_collections_offers_to_sign_in(client: Client) -> None:
    html = client.get("/").content.decode()
    assert "nothing here for you to search yet" in html and reverse("login") in html


def test_private_collections_are_on_the_start_page_of_their_members_only(
    client: Client, sockets: dict[str, Any]
) -> None:
    ada = owner()
    make_collection("secret", user=ada, is_public=False, name="Secret garden")
    assert "Secret garden" not in client.get("/").content.decode()
    client.force_login(ada)
    assert "Secret garden" in client.get("/").content.decode()


# --- a search ---


def test_the_page_comes_in_first_stage_order_before_the_rerank(
    client: Client, library: Collection
) -> None:
    html = search(client, q="heron marsh", collection="library")
    assert len(rows(html)) == 10
    assert "Reranking 14 passages" in html and 'aria-busy="true"' in html
    trace = Trace.objects.get()
    first = sorted(trace.result["hits"], key=lambda hit: hit["first_stage_rank"])[:10]
    assert rows(html) == [str(hit["passage_id"]) for hit in first]


def test_the_fragment_brings_the_reranked_order(client: Client, library: Collection) -> None:
    page = search(client, q="heron marsh", collection="library")
    fragment = client.get(rerank_address(page)).content.decode()
    hits = Trace.objects.get().result["hits"]
    by_first = sorted(hits, key=lambda hit: -hit["first_stage_rank"])[:10]
    assert rows(fragment) == [str(hit["passage_id"]) for hit in by_first]
    assert "▲ 13" in fragment and "up 13 from 14" in fragment
    assert "reranked by <strong>fake-reverser</strong> on cpu" in fragment
    assert "Reranked: 14 of 14 passages moved; first is now Heron" in fragment


def test_without_scripts_the_page_waits_and_does_not_search_twice(
    client: Client, library: Collection
) -> None:
    page = search(client, q="heron marsh", collection="library")
    found = re.search(r'http-equiv="refresh" content="0; url=([^"]+)"', page)
    assert found
    waited = client.get(found.group(1).replace("&amp;", "&")).content.decode()
    assert "reranked by <strong>fake-reverser" in waited and "http-equiv" not in waited
    assert Trace.objects.count() == 1


def test_later_pages_keep_ranks_and_do_not_search_again(
    client: Client, library: Collection
) -> None:
    filters = {"meta": "bird=heron", "type": "text/plain", "instruction": "Prefer herons."}
    page = search(client, q="heron marsh", collection="library", **filters)
    fragment = client.get(rerank_address(page)).content.decode()
    second = re.search(r'href="(/search\?[^"]*page=2[^"]*)"', fragment)
    assert second
    html = client.get(second.group(1).replace("&amp;", "&")).content.decode()
    assert len(rows(html)) == 4 and "down 13 from 1" in html
    assert Trace.objects.count() == 1


def test_several_values_of_a_filter_continue_the_search_in_any_order(
    client: Client, library: Collection
) -> None:
    for types in (["text/plain", "application/pdf"], ["application/pdf", "text/plain"]):
        Trace.objects.all().delete()
        page = search(client, q="heron marsh", collection="library", type=types)
        fragment = client.get(rerank_address(page)).content.decode()
        second = re.search(r'href="(/search\?[^"]*page=2[^"]*)"', fragment)
        assert second
        client.get(second.group(1).replace("&amp;", "&"))
        assert Trace.objects.count() == 1


def test_the_first_stage_order_can_be_shown_again(client: Client, library: Collection) -> None:
    page = search(client, q="heron marsh", collection="library")
    client.get(rerank_address(page))
    uid = Trace.objects.get().uid
    html = search(client, q="heron marsh", collection="library", order="first", trace=uid)
    assert rows(html) == rows(page)
    assert "14 after reranking" in html


def test_a_stored_search_is_not_continued_for_another_query(
    client: Client, library: Collection
) -> None:
    search(client, q="heron marsh", collection="library")
    uid = Trace.objects.get().uid
    search(client, q="heron", collection="library", trace=uid)
    assert Trace.objects.count() == 2


def test_matched_words_are_marked_and_legs_named(client: Client, library: Collection) -> None:
    html = search(client, q="herons", collection="library")
    assert "<mark>heron</mark>" in html and "words" in html


def test_the_picture_and_its_table_show_the_same_places(
    client: Client, library: Collection
) -> None:
    html = search(client, q="heron marsh", collection="library", view="compare", wait=1)
    assert html.count('class="compare-item') == 14
    assert "rank 14 (score" in html and "onto the first page" in html
    table = html.split("<tbody>")[1].split("</tbody>")[0]
    assert table.count("<tr>") == 14


def test_untrained_scores_are_called_what_they_are(
    client: Client, library: Collection, sockets: dict[str, Any]
) -> None:
    sockets["reranker"].scale = "untrained"
    html = search(client, q="heron", collection="library", wait=1)
    assert "untrained baseline" in html


# --- the instruction ---


def test_the_active_instruction_is_prefilled_and_not_an_override(
    client: Client, library: Collection, sockets: dict[str, Any]
) -> None:
    SearchConfig.objects.filter(pk=library.active_config_id).update(instruction="Prefer herons.")
    html = search(client, q="heron", collection="library", instruction="Prefer herons.")
    assert "Prefer herons.</textarea>" in html and "active v1" in html
    assert Trace.objects.get().instruction is None


def test_an_edited_instruction_reaches_the_reranker_and_can_be_reset(
    client: Client, library: Collection, sockets: dict[str, Any]
) -> None:
    html = search(client, q="heron", collection="library", instruction="Prefer storks.")
    assert "edited for this search" in html and "reset to v1" in html
    assert "Prefer storks." in sockets["reranker"].submitted[-1].instruction
    assert Trace.objects.get().instruction == "Prefer storks."


@pytest.mark.parametrize(("scale", "says_so"), [("untrained", True), ("sigmoid", False)])
def test_who_gives_the_untrained_baseline_an_instruction_is_told_what_it_does_with_it(
    client: Client, library: Collection, sockets: dict[str, Any], scale: str, says_so: bool
) -> None:
    sockets["reranker"].scale = scale
    plain = search(client, q="heron", collection="library", wait="1")
    html = search(client, q="heron", collection="library", instruction="No storks.", wait="1")
    assert ("it does not follow it" in html) is says_so
    assert "it does not follow it" not in plain


def test_an_emptied_instruction_is_an_override_too(
    client: Client, library: Collection, sockets: dict[str, Any]
) -> None:
    SearchConfig.objects.filter(pk=library.active_config_id).update(instruction="Prefer herons.")
    html = search(client, q="heron", collection="library", instruction="")
    assert "edited for this search" in html
    assert sockets["reranker"].submitted[-1].instruction == ""


# --- what may be missing ---


def test_an_empty_query_offers_suggestions_and_searches_nothing(
    client: Client, library: Collection
) -> None:
    html = search(client, q="  ", collection="library")
    assert "What are you looking for in Library?" in html and "wading birds" in html
    assert not Trace.objects.exists()


def test_no_hits_says_so(client: Client, library: Collection, sockets: dict[str, Any]) -> None:
    sockets["embedder"].reason = "No embed worker is running."
    html = search(client, q="zeppelin", collection="library")
    assert "<h2>No hits</h2>" in html and "zeppelin" in html


def test_filters_that_leave_nothing_offer_to_drop_them(client: Client, library: Collection) -> None:
    html = search(client, q="heron", collection="library", meta="bird=stork")
    assert "No hits with these filters" in html and "Search without filters" in html
    assert "Remove the filter bird: stork" in html


def test_filters_let_matching_documents_through(client: Client, library: Collection) -> None:
    add_document(library, "Stork", ["A stork, not a heron."], metadata={"bird": "stork"})
    html = search(client, q="heron", collection="library", meta="bird=stork")
    assert len(rows(html)) == 1 and "Stork" in html


def test_comparisons_filter_the_page_as_they_do_the_api(
    client: Client, library: Collection
) -> None:
    metadata = {"bird": "stork", "year": "2024"}
    add_document(library, "Stork", ["A stork, not a heron."], metadata=metadata)
    html = search(client, q="heron", collection="library", meta=["bird!=heron", "year>=2024"])
    assert len(rows(html)) == 1 and "Stork" in html
    assert "Remove the filter bird!=heron" in html
    assert 'name="meta" value="year&gt;=2024"' in html
    trace = Trace.objects.latest("pk")
    page = client.get(reverse("trace", args=[trace.uid])).content.decode()
    assert "$gte" in page
    html = search(client, q="heron", collection="library", meta='{"year": {"$lt": "2024"}}')
    assert "No hits with these filters" in html


def test_a_query_that_is_too_long_is_refused_in_words(client: Client, library: Collection) -> None:
    response = client.get(reverse("search"), {"q": "x" * 4001, "collection": "library"})
    assert response.status_code == 400
    assert "The query has 4001 characters" in response.content.decode()


def test_a_query_of_three_hundred_words_works(client: Client, library: Collection) -> None:
    html = search(client, q=" ".join(f"heron{n}" for n in range(299)) + " heron", wait=1)
    assert rows(html)


def test_unknown_and_forbidden_collections_look_alike(
    client: Client, sockets: dict[str, Any], library: Collection
) -> None:
    make_collection("secret", user=owner(), is_public=False, name="Secret garden")
    answers = [client.get(reverse("search"), {"q": "a", "collection": s}) for s in ("secret", "no")]
    assert [answer.status_code for answer in answers] == [404, 404]
    texts = [re.sub(r"collection%3D\w+|collection=\w+", "", a.content.decode()) for a in answers]
    texts = [re.sub(r'value="[A-Za-z0-9]{64}"', "", text) for text in texts]
    assert texts[0] == texts[1] and "Secret" not in texts[0]


@pytest.mark.parametrize("status", ["late", "unavailable"])
def test_a_failing_reranker_leaves_the_first_stage_order_and_a_sentence(
    client: Client, library: Collection, sockets: dict[str, Any], status: str
) -> None:
    sockets["reranker"].status = status
    sockets["reranker"].reason = "No rerank worker is running."
    html = search(client, q="heron marsh", collection="library", wait=1)
    assert "Shown in first-stage order: no rerank worker is running." in html
    assert len(rows(html)) == 10 and "▲" not in html
    assert Trace.objects.get().rerank_status == status


def test_a_skipped_leg_is_named(
    client: Client, library: Collection, sockets: dict[str, Any]
) -> None:
    sockets["embedder"].reason = "No embed worker is running."
    html = search(client, q="heron", collection="library")
    assert "Found by words only: no embed worker is running." in html
    assert "dense skipped" in html


def test_a_config_without_rerank_says_that_it_is_off(client: Client, library: Collection) -> None:
    SearchConfig.objects.filter(pk=library.active_config_id).update(rerank_depth=0)
    html = search(client, q="heron", collection="library")
    assert "reranking is off" in html and "data-rerank-url" not in html and rows(html)


def test_an_empty_collection_offers_uploads_to_those_who_may(
    client: Client, sockets: dict[str, Any]
) -> None:
    ada = owner()
    make_collection("empty", user=ada)
    assert "has no documents yet" in search(client, q="a", collection="empty")


def test_a_collection_being_indexed_says_so(client: Client, sockets: dict[str, Any]) -> None:
    collection = make_collection("empty")
    batch = UploadBatch.objects.create(collection=collection)
    Upload.objects.create(
        batch=batch, collection=collection, name="a.txt", size_bytes=1, checksum="0" * 64
    )
    assert "Empty is being indexed" in search(client, q="a", collection="empty")


def test_hits_below_the_threshold_are_counted_not_shown(
    client: Client, library: Collection
) -> None:
    SearchConfig.objects.filter(pk=library.active_config_id).update(threshold=0.5)
    html = search(client, q="heron marsh", collection="library", wait=1)
    assert "below the collection’s threshold are not shown" in html


def test_prefetching_browsers_start_no_search(client: Client, library: Collection) -> None:
    headers = {"Sec-Purpose": "prefetch;prerender"}
    response = client.get(reverse("search"), {"q": "heron"}, headers=headers)
    assert response.status_code == 503 and not Trace.objects.exists()


# --- traces ---


def trace_of(client: Client, **parameters: Any) -> Trace:
    search(client, **{"q": "heron marsh", "collection": "library", "wait": 1, **parameters})
    return Trace.objects.latest("pk")


def test_a_trace_shows_every_candidate_with_its_ranks_and_scores(
    client: Client, library: Collection
) -> None:
    trace = trace_of(client)
    html = client.get(reverse("trace", args=[trace.uid])).content.decode()
    assert html.count("<tr>") == 14 + 1 + 3
    assert "rerank: scoring" in html and "fake-reverser on cpu" in html


def test_a_permalink_shows_the_results_as_they_were_after_a_deletion(
    client: Client, library: Collection
) -> None:
    trace = trace_of(client)
    before = rows(client.get(reverse("trace", args=[trace.uid]), {"view": "list"}).content.decode())
    document = library.documents.get(title="Heron 14")
    erasing.delete_documents(library, [document.pk])
    html = client.get(reverse("trace", args=[trace.uid]), {"view": "list"}).content.decode()
    assert rows(html) == before
    assert "1 of the 14 passages has been deleted since" in html
    assert "This passage has been deleted since" in html


def test_traces_of_private_collections_stay_private(
    client: Client, sockets: dict[str, Any]
) -> None:
    ada, eve = owner("ada"), owner("eve")
    collection = make_collection("secret", user=ada, is_public=False)
    document = add_document(collection, "Plans", ["The heron plan."])
    client.force_login(ada)
    trace = trace_of(client, q="heron", collection="secret")
    addresses = [
        reverse("trace", args=[trace.uid]),
        reverse("rerank", args=[trace.uid]),
        reverse("document", args=[document.uid]),
        reverse("document_file", args=[document.uid]),
    ]
    assert [client.get(each).status_code for each in addresses[:3]] == [200, 200, 200]
    for visitor in (Client(), Client()):
        if visitor is not None and addresses:
            assert {visitor.get(each).status_code for each in addresses} == {404}
    client.force_login(eve)
    assert {client.get(each).status_code for each in addresses} == {404}


def test_a_trace_of_another_user_is_not_shown_even_in_a_public_collection(
    client: Client, library: Collection
) -> None:
    client.force_login(owner("ada"))
    trace = trace_of(client)
    client.force_login(owner("eve"))
    assert client.get(reverse("trace", args=[trace.uid])).status_code == 404


def test_a_missing_document_is_explained(client: Client, library: Collection) -> None:
    trace = trace_of(client, q="slowly")
    html = client.get(reverse("trace", args=[trace.uid]), {"missing": "Heron 3"}).content.decode()
    assert 'id="explained"' in html and "Heron 3" in html
    none = client.get(reverse("trace", args=[trace.uid]), {"missing": "Zebra"}).content.decode()
    assert "No document of Library has a title, path or address like" in none


# --- escaping and headers ---


def test_hostile_texts_are_shown_as_text_on_every_page(
    client: Client, sockets: dict[str, Any]
) -> None:
    collection = make_collection("hostile", name=HOSTILE, suggested_queries=[HOSTILE])
    document = add_document(
        collection,
        HOSTILE,
        [f"A heron {HOSTILE} wades."],
        path=HOSTILE,
        metadata={"k": HOSTILE},
        heading_path=[HOSTILE, "h"],
    )
    query = {"q": f"heron {HOSTILE}", "collection": "hostile", "instruction": HOSTILE, "wait": 1}
    pages = [client.get(reverse("search"), {**query, "view": v}) for v in ("list", "compare")]
    trace = Trace.objects.first()
    assert trace is not None
    uid = document.uid
    pages += [
        client.get("/"),
        client.get(reverse("search"), {"q": "", "collection": "hostile", "meta": HOSTILE}),
        client.get(reverse("trace", args=[trace.uid]), {"missing": HOSTILE[:20]}),
        client.get(reverse("document", args=[uid]), {"passage": 0, "q": HOSTILE}),
        client.get(reverse("document", args=[uid]), {"show": "passages", "q": HOSTILE}),
        client.get("/nope"),
        client.get(reverse("login"), {"next": HOSTILE}),
    ]
    for page in pages:
        html = page.content.decode()
        assert "<script>alert" not in html and "<img" not in html
        assert_nothing_inline(html)
        assert "script-src 'self'" in page.headers["Content-Security-Policy"]


def assert_nothing_inline(html: str) -> None:
    """No style or script that the content security policy would have to allow."""
    tags = re.findall(r"<[a-zA-Z][^<>]*>", html)
    assert tags
    for tag in tags:
        bare = re.sub(r'"[^"]*"', '""', tag)
        assert not re.search(r"\sstyle\s*=", bare), tag
        assert not re.search(r"\son[a-z]+\s*=", bare), tag
        assert not bare.startswith("<style"), tag
        assert not bare.startswith("<script") or "src=" in bare, tag
        assert "javascript:" not in tag, tag


def test_pages_with_private_content_are_not_cached(client: Client, library: Collection) -> None:
    response = client.get(reverse("search"), {"q": "heron"})
    assert "no-store" in response.headers["Cache-Control"]


# --- documents ---


def test_the_document_page_highlights_the_passage(client: Client, sockets: dict[str, Any]) -> None:
    collection = make_collection()
    document = add_document(
        collection, "Birds", ["First words.", "A heron <b>wades</b>.", "Last."], page_starts=[0, 14]
    )
    address = reverse("document", args=[document.uid])
    html = client.get(address, {"passage": 1, "q": "herons"}).content.decode()
    span = html.split('id="passage"')[1].split("</span>")[0]
    assert "<mark>heron</mark> &lt;b&gt;wades&lt;/b&gt;." in span
    assert 'id="page-2"' in html and "Passage 2 of 3, p. 2" in html


def test_a_large_document_is_read_in_parts(client: Client, sockets: dict[str, Any]) -> None:
    collection = make_collection()
    paragraphs = [f"Paragraph {n}. " + "word " * 160 for n in range(200)]
    document = add_document(collection, "Long", paragraphs)
    address = reverse("document", args=[document.uid])
    first = client.get(address).content.decode()
    assert "Part 1 of 5" in first and "Paragraph 199" not in first
    last = client.get(address, {"passage": 199}).content.decode()
    assert "Part 5 of 5" in last and 'id="passage"' in last
    assert client.get(address, {"part": "99999", "passage": "-1"}).status_code == 200


def test_the_passages_of_a_document_are_listed(client: Client, sockets: dict[str, Any]) -> None:
    collection = make_collection()
    document = add_document(collection, "Long", [f"Paragraph {n}." for n in range(120)])
    address = reverse("document", args=[document.uid])
    html = client.get(address, {"show": "passages", "page": 2}).content.decode()
    assert "Paragraph 50." in html and "Paragraph 49." not in html


def test_the_original_file_is_a_download_with_a_safe_name_and_type(
    client: Client, sockets: dict[str, Any], settings: Any, tmp_path: Any
) -> None:
    settings.MEDIA_ROOT = tmp_path
    collection = make_collection()
    batch = UploadBatch.objects.create(collection=collection)
    upload = Upload.objects.create(
        batch=batch,
        collection=collection,
        name='../evil/pa"ge\r\n<x>.html',
        media_type="text/html",
        size_bytes=20,
        checksum="0" * 64,
        file=ContentFile(b"<script>1</script>", name="x"),
    )
    document = add_document(collection, "Page", ["heron"], upload=upload)
    response = client.get(reverse("document_file", args=[document.uid]))
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "application/octet-stream"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    disposition = response.headers["Content-Disposition"]
    assert disposition.startswith("attachment") and "evil" not in disposition
    assert b"".join(response.streaming_content) == b"<script>1</script>"  # type: ignore[attr-defined]


def test_a_document_without_a_file_has_no_download(client: Client, sockets: dict[str, Any]) -> None:
    document = add_document(make_collection(), "Page", ["heron"])
    assert client.get(reverse("document_file", args=[document.uid])).status_code == 404


# --- the frame ---


@pytest.mark.parametrize(
    ("choice", "cookie"), [("dark", "dark"), ("light", "light"), ("system", "")]
)
def test_light_or_dark_is_remembered_without_scripts(
    client: Client, choice: str, cookie: str
) -> None:
    response = client.post(reverse("theme"), {"theme": choice, "next": "/search?q=a"})
    assert response.headers["Location"] == "/search?q=a"
    assert response.cookies["theme"].value == cookie
    assert (f'data-theme="{cookie}"' in client.get("/").content.decode()) == bool(cookie)


def test_the_switch_never_leads_to_another_site(client: Client) -> None:
    response = client.post(reverse("theme"), {"theme": "dark", "next": "https://evil.example/"})
    assert response.headers["Location"] == "/"


def test_signing_in_and_out(client: Client) -> None:
    owner()
    bad = client.post(reverse("login"), {"username": "ada", "password": "x"}).content.decode()
    assert "do not match an account" in bad
    client.post(reverse("login"), {"username": "ada", "password": "pass"})
    assert "Signed in as ada" in client.get("/").content.decode()
    client.post(reverse("logout"))
    assert "Signed in as" not in client.get("/").content.decode()


def test_everybody_changes_their_own_password(client: Client) -> None:
    url = reverse("own_password")
    assert client.get(url).url == f"{reverse('login')}?next={url}"  # type: ignore[attr-defined]
    client.force_login(owner())
    assert url in client.get("/").content.decode()
    new = {"new_password1": "wading-birds-42", "new_password2": "wading-birds-42"}
    refused = client.post(url, {"old_password": "guessed", **new}).content.decode()
    assert "errorlist" in refused
    done = client.post(url, {"old_password": "pass", **new}, follow=True)
    assert "Your password is changed" in done.content.decode()
    assert "Signed in as ada" in done.content.decode()
    assert Client().login(username="ada", password="wading-birds-42")
    assert not Client().login(username="ada", password="pass")


def test_errors_have_pages_of_their_own(client: Client) -> None:
    assert "Nothing here" in client.get("/nope").content.decode()
    strict = Client(enforce_csrf_checks=True)
    assert "This form has expired" in strict.post(reverse("logout")).content.decode()
    response = client.get("/", headers={"host": "evil.example"})
    assert response.status_code == 400
    assert "cannot be read" in response.content.decode()


def test_leaving_the_page_cancels_its_rerank(
    client: Client, library: Collection, sockets: dict[str, Any]
) -> None:
    html = search(client, q="heron")
    trace = Trace.objects.latest("id")
    found = re.search(r'data-cancel-url="([^"]+)"', html)
    assert found and found.group(1) == reverse("rerank_cancel", args=[trace.uid])
    assert client.get(found.group(1)).status_code == 405
    counter = metrics.FAILURES.labels("cancelled")
    before = counter._value.get()
    assert client.post(found.group(1)).status_code == 204
    assert client.post(found.group(1)).status_code == 204
    assert counter._value.get() == before + 1
    assert sockets["reranker"].cancelled == list(sockets["reranker"].jobs)
    trace.refresh_from_db()
    assert (trace.rerank_status, trace.result["rerank"]["code"]) == ("unavailable", "cancelled")
    fragment = client.get(rerank_address(html)).content.decode()
    assert rows(fragment) == rows(html) and "the page was left" in fragment


def test_coming_back_to_a_cancelled_search_searches_anew(
    client: Client, library: Collection
) -> None:
    search(client, q="heron")
    trace = Trace.objects.latest("id")
    client.post(reverse("rerank_cancel", args=[trace.uid]))
    html = search(client, q="heron", trace=str(trace.uid))
    assert Trace.objects.latest("id") != trace and "data-rerank-url" in html


def test_a_rerank_that_has_come_is_not_cancelled(
    client: Client, library: Collection, sockets: dict[str, Any]
) -> None:
    html = search(client, q="heron")
    client.get(rerank_address(html))
    trace = Trace.objects.latest("id")
    assert client.post(reverse("rerank_cancel", args=[trace.uid])).status_code == 204
    trace.refresh_from_db()
    assert trace.rerank_status == "ok" and sockets["reranker"].cancelled == []


def test_nobody_cancels_the_search_of_another(client: Client, library: Collection) -> None:
    client.force_login(owner("ada"))
    search(client, q="heron")
    trace = Trace.objects.latest("id")
    address = reverse("rerank_cancel", args=[trace.uid])
    assert Client().post(address).status_code == 404
    client.force_login(owner("eve"))
    assert client.post(address).status_code == 404
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(get_user_model().objects.get(username="ada"))
    assert strict.post(address).status_code == 403
    trace.refresh_from_db()
    assert trace.rerank_status == "pending"


def test_every_finished_search_is_counted_once(client: Client, library: Collection) -> None:
    counter = metrics.SEARCHES.labels("ok")
    before = counter._value.get()
    html = search(client, q="heron")
    assert counter._value.get() == before
    client.get(rerank_address(html))
    client.get(rerank_address(html))
    assert counter._value.get() == before + 1
