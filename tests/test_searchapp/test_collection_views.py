"""The pages of collections: who may open them, and what they do."""

from __future__ import annotations

import threading

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.test import Client
from django.urls import reverse

from searchapp.models import (
    Collection,
    Document,
    DocumentStatus,
    Membership,
    Passage,
    Posting,
    Role,
    Upload,
    UploadBatch,
    UploadState,
)
from searchapp.views.members import remove, set_role
from tests.people import KINDS, People, make_people
from tests.shelves import add_document, make_collection

# What a user of each kind gets, in the order of KINDS, for a private collection.
MATRIX = {
    "collection": [404, 404, 200, 200, 200, 200],
    "collection_documents": [404, 404, 200, 200, 200, 200],
    "collection_uploads": [404, 404, 403, 200, 200, 200],
    "collection_tuning": [404, 404, 403, 403, 200, 200],
    "collection_members": [404, 404, 403, 403, 200, 200],
    "collection_settings": [404, 404, 403, 403, 200, 200],
    "upload_batch": [404, 404, 403, 200, 200, 200],
    "upload_batch_status": [404, 404, 403, 200, 200, 200],
}
POSTS = {
    "collection_documents": ({"action": "retry", "document": "1"}, [404, 404, 403, 302, 302, 302]),
    "collection_uploads": ({"action": "open"}, [404, 404, 403, 302, 302, 302]),
    "collection_tuning": ({"action": "discard"}, [404, 404, 403, 403, 302, 302]),
    "collection_members": (
        {"username": "stranger", "role": "viewer"},
        [404, 404, 403, 403, 302, 302],
    ),
    "collection_settings": (
        {"name": "Papers", "language": "en"},
        [404, 404, 403, 403, 302, 302],
    ),
    "collection_delete": ({"slug": "papers"}, [404, 404, 403, 403, 302, 302]),
    "upload_batch": ({"action": "pause"}, [404, 404, 403, 302, 302, 302]),
}


@pytest.fixture
def papers(db: None) -> Collection:
    return make_collection("papers", is_public=False)


@pytest.fixture
def people(papers: Collection) -> People:
    return make_people(papers)


@pytest.fixture
def batch(papers: Collection) -> UploadBatch:
    return UploadBatch.objects.create(collection=papers)


def address(name: str, batch: UploadBatch) -> str:
    if name.startswith("upload_batch"):
        return reverse(name, args=[batch.uid])
    return reverse(name, args=[batch.collection.slug])


@pytest.mark.parametrize("name", MATRIX)
def test_each_page_opens_for_those_whose_role_allows_it(
    people: People, batch: UploadBatch, name: str
) -> None:
    codes = [people.client(kind).get(address(name, batch)).status_code for kind in KINDS]
    assert dict(zip(KINDS, codes, strict=True)) == dict(zip(KINDS, MATRIX[name], strict=True))


@pytest.mark.parametrize("name", POSTS)
def test_each_form_acts_for_those_whose_role_allows_it(
    people: People, batch: UploadBatch, name: str
) -> None:
    data, expected = POSTS[name]
    for kind, code in zip(KINDS, expected, strict=True):
        if name == "collection_delete" and kind == "superuser":
            continue  # the owner before has deleted it
        assert people.client(kind).post(address(name, batch), data).status_code == code, kind


@pytest.mark.parametrize("name", [*MATRIX, "collection_delete"])
def test_a_public_collection_hides_nothing_but_refuses(
    papers: Collection, people: People, batch: UploadBatch, name: str
) -> None:
    Collection.objects.filter(pk=papers.pk).update(is_public=True)
    readable = name in {"collection", "collection_documents"}
    for kind in ["anonymous", "stranger", "viewer"]:
        client = people.client(kind)
        if name != "collection_delete":
            got = client.get(address(name, batch)).status_code
            assert got == (200 if readable else 403), kind
        if name in POSTS:
            assert client.post(address(name, batch), POSTS[name][0]).status_code == 403, kind
    assert Collection.objects.filter(pk=papers.pk).exists()


@pytest.mark.parametrize("name", POSTS)
def test_no_form_acts_without_its_token(people: People, batch: UploadBatch, name: str) -> None:
    client = people.client("owner", enforce_csrf_checks=True)
    assert client.post(address(name, batch), POSTS[name][0]).status_code == 403
    assert Collection.objects.filter(slug="papers").exists()


def test_the_list_shows_what_one_can_see_with_ones_role(papers: Collection, people: People) -> None:
    shared = make_collection("shared", is_public=True)
    add_document(shared, "Herons", ["one", "two"])
    page = people.client("editor").get(reverse("collections")).content.decode()
    assert "Papers" in page
    assert "Shared" in page
    assert "editor" in page
    outside = people.client("anonymous").get(reverse("collections")).content.decode()
    assert "Papers" not in outside
    assert "Shared" in outside
    rows = people.client("stranger").get(reverse("collections")).context["collections"]
    assert [(row.slug, row.document_count, row.passage_count) for row in rows] == [("shared", 1, 2)]


def test_an_account_creates_a_collection_and_owns_it(people: People) -> None:
    data = {"name": "Häufige Fragen", "language": "de", "description": "Alles."}
    response = people.client("stranger").post(reverse("collection_create"), data)
    made = Collection.objects.get(slug="haufige-fragen")
    assert response.url == reverse("collection_uploads", args=[made.slug])
    assert (made.language, made.is_public) == ("de", False)
    assert made.memberships.get().user == people.users["stranger"]
    assert made.memberships.get().role == Role.OWNER
    assert made.active_config is not None


@pytest.mark.parametrize(
    ("name", "slug"),
    [("Papers", "papers-2"), ("new", "new-2"), ("日本", "collection"), ("x" * 200, "x" * 56)],
)
def test_the_slug_comes_from_the_name_and_is_free(people: People, name: str, slug: str) -> None:
    people.client("stranger").post(reverse("collection_create"), {"name": name, "language": "en"})
    assert Collection.objects.get(name=name, created_by__isnull=False).slug == slug


def test_creating_needs_an_account_and_a_name(people: People) -> None:
    url = reverse("collection_create")
    assert people.client("anonymous").get(url).url.startswith(reverse("login"))
    response = people.client("viewer").post(url, {"name": "  ", "language": "en"})
    assert response.status_code == 422


def test_the_overview_counts_and_an_empty_collection_invites_files(
    papers: Collection, people: People
) -> None:
    url = reverse("collection", args=["papers"])
    editor = people.client("editor").get(url).content.decode()
    assert "Drop files or folders here" in editor
    assert "Drop files" not in people.client("viewer").get(url).content.decode()
    add_document(papers, "Herons", ["one", "two", "three"])
    response = people.client("viewer").get(url)
    assert response.context["figures"]["documents"] == 1
    assert response.context["figures"]["passages"] == 3
    assert 'name="q"' in response.content.decode()


def test_settings_are_saved_and_touch_nothing_else(papers: Collection, people: People) -> None:
    config = papers.active_config_id
    data = {
        "name": " Old  papers ",
        "language": "fr",
        "is_public": "on",
        "suggested_queries": "who was first\n\n who was first \nand second",
    }
    people.client("owner").post(reverse("collection_settings", args=["papers"]), data)
    papers.refresh_from_db()
    assert (papers.name, papers.language, papers.is_public) == ("Old papers", "fr", True)
    assert papers.suggested_queries == ["who was first", "and second"]
    assert (papers.slug, papers.active_config_id) == ("papers", config)


def test_the_language_is_fixed_once_there_are_documents(papers: Collection, people: People) -> None:
    add_document(papers, "Herons", ["one"])
    url = reverse("collection_settings", args=["papers"])
    client = people.client("owner")
    assert "Fixed: the documents are indexed" in client.get(url).content.decode()
    client.post(url, {"name": "Papers", "language": "fr"})
    papers.refresh_from_db()
    assert papers.language == "en"


def test_a_collection_is_deleted_only_when_its_slug_is_typed(
    papers: Collection, people: People
) -> None:
    add_document(papers, "Herons", ["one"])
    url = reverse("collection_delete", args=["papers"])
    client = people.client("owner")
    wrong = client.post(url, {"slug": "Papers"})
    assert wrong.status_code == 422
    assert "Type papers to confirm" in wrong.content.decode()
    assert client.post(url, {"slug": "papers"}).url == reverse("collections")
    assert not Collection.objects.filter(slug="papers").exists()
    assert not Passage.objects.exists()
    assert not Posting.objects.exists()


# --- members -----------------------------------------------------------------------------------


def test_an_owner_adds_changes_and_removes_members(papers: Collection, people: People) -> None:
    client, url = people.client("owner"), reverse("collection_members", args=["papers"])
    client.post(url, {"username": "stranger", "role": "viewer"})
    membership = papers.memberships.get(user=people.users["stranger"])
    assert membership.role == Role.VIEWER
    client.post(url, {"member": membership.pk, "role": "editor"})
    membership.refresh_from_db()
    assert membership.role == Role.EDITOR
    client.post(url, {"member": membership.pk, "remove": "1"})
    assert not papers.memberships.filter(user=people.users["stranger"]).exists()


def test_unknown_names_and_odd_roles_change_nothing(papers: Collection, people: People) -> None:
    client, url = people.client("owner"), reverse("collection_members", args=["papers"])
    unknown = client.post(url, {"username": "nobody", "role": "viewer"})
    assert "There is no account named “nobody”" in unknown.content.decode()
    viewer = papers.memberships.get(user=people.users["viewer"])
    client.post(url, {"member": viewer.pk, "role": "king"})
    viewer.refresh_from_db()
    assert viewer.role == Role.VIEWER
    other = make_collection("other", user=people.users["stranger"])
    assert (
        client.post(url, {"member": other.memberships.get().pk, "remove": "1"}).status_code == 404
    )
    assert other.memberships.count() == 1
    assert client.post(url, {"member": "²", "remove": "1"}).status_code == 404


@pytest.mark.parametrize("data", [{"remove": "1"}, {"role": "editor"}, {"role": "viewer"}])
def test_the_last_owner_stays(papers: Collection, people: People, data: dict[str, str]) -> None:
    owner = papers.memberships.get(role=Role.OWNER)
    client = people.client("owner")
    url = reverse("collection_members", args=["papers"])
    page = client.post(url, {"member": owner.pk, **data}, follow=True).content.decode()
    assert "owner is the last owner" in page
    owner.refresh_from_db()
    assert owner.role == Role.OWNER


def test_an_owner_may_leave_when_another_stays(papers: Collection, people: People) -> None:
    own = papers.memberships.get(role=Role.OWNER)
    papers.memberships.filter(user=people.users["viewer"]).update(role=Role.OWNER)
    url = reverse("collection_members", args=["papers"])
    response = people.client("owner").post(url, {"member": own.pk, "remove": "1"})
    assert response.url == reverse("collections")


@pytest.mark.django_db(transaction=True, available_apps=settings.INSTALLED_APPS)
def test_two_owners_who_step_down_at_the_same_moment_leave_one() -> None:
    first, second = User.objects.create_user("first"), User.objects.create_user("second")
    collection = Collection.objects.create_with_owner(slug="race", name="Race", user=first)
    Membership.objects.create(collection=collection, user=second, role=Role.OWNER)
    memberships = list(collection.memberships.select_related("user"))
    start = threading.Barrier(2)
    answers: list[str] = []

    def leave(membership: Membership, by_role: bool) -> None:
        try:
            start.wait(10)
            answers.append(set_role(membership, Role.VIEWER) if by_role else remove(membership))
        finally:
            connection.close()

    threads = [
        threading.Thread(target=leave, args=(each, index == 0))
        for index, each in enumerate(memberships)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert collection.memberships.filter(role=Role.OWNER).count() == 1
    assert sorted(bool(answer) for answer in answers) == [False, True]


# --- documents ---------------------------------------------------------------------------------


@pytest.fixture
def stocked(papers: Collection) -> Collection:
    add_document(papers, "Herons", ["grey"], media_type="application/pdf")
    add_document(papers, "Gulls", ["white"], path="coast/gulls.md", media_type="text/markdown")
    add_document(papers, "Broken", ["torn"], status=DocumentStatus.FAILED)
    return papers


@pytest.mark.parametrize(
    ("query", "titles"),
    [
        ("", ["Broken", "Gulls", "Herons"]),
        ("q=coast", ["Gulls"]),
        ("q=HERON", ["Herons"]),
        ("q=%00", ["Broken", "Gulls", "Herons"]),
        ("status=failed", ["Broken"]),
        ("status=odd", ["Broken", "Gulls", "Herons"]),
        ("type=application/pdf", ["Herons"]),
        ("q=coast&type=application/pdf", []),
        ("page=99", ["Broken", "Gulls", "Herons"]),
    ],
)
def test_documents_are_found_by_name_status_and_type(
    stocked: Collection, people: People, query: str, titles: list[str]
) -> None:
    response = people.client("viewer").get(
        f"{reverse('collection_documents', args=['papers'])}?{query}"
    )
    assert sorted(row.title for row in response.context["page"]) == titles


def test_the_table_takes_few_queries_however_long_it_is(
    papers: Collection, people: People, django_assert_max_num_queries: object
) -> None:
    Document.objects.bulk_create(
        Document(collection=papers, path=f"{number}.txt", title=f"D{number}")
        for number in range(120)
    )
    client = people.client("editor")
    with django_assert_max_num_queries(12):  # type: ignore[operator]
        response = client.get(reverse("collection_documents", args=["papers"]))
    assert len(response.context["page"].object_list) == 50


def test_deleting_asks_first_and_then_leaves_no_trace_in_the_index(
    stocked: Collection, people: People
) -> None:
    client, url = people.client("editor"), reverse("collection_documents", args=["papers"])
    chosen = list(
        stocked.documents.filter(title__in=["Herons", "Gulls"]).values_list("pk", flat=True)
    )
    data = {"action": "delete", "document": chosen, "return": "q=r\r\nX: y"}
    asked = client.post(url, data)
    assert "Delete 2 documents?" in asked.content.decode()
    assert stocked.documents.count() == 3
    done = client.post(url, {**data, "confirmed": "1"})
    assert done.status_code == 302
    assert list(stocked.documents.values_list("title", flat=True)) == ["Broken"]
    assert [each.text for each in Passage.objects.filter(collection=stocked)] == ["torn"]


def test_documents_of_another_collection_cannot_be_deleted_from_here(
    stocked: Collection, people: People
) -> None:
    other = make_collection("other")
    kept = add_document(other, "Kept", ["text"])
    url = reverse("collection_documents", args=["papers"])
    data = {"action": "delete", "document": kept.pk, "confirmed": "1"}
    people.client("editor").post(url, data)
    assert Document.objects.filter(pk=kept.pk).exists()


def test_a_failed_document_is_read_again(papers: Collection, people: People) -> None:
    batch = UploadBatch.objects.create(collection=papers)
    upload = Upload.objects.create(
        batch=batch,
        collection=papers,
        name="broken.pdf",
        file=SimpleUploadedFile("broken.pdf", b"%PDF-"),
        size_bytes=5,
        checksum="0" * 64,
        state=UploadState.FAILED,
        retryable=True,
    )
    document = add_document(papers, "Broken", ["torn"], status=DocumentStatus.FAILED, upload=upload)
    url = reverse("collection_documents", args=["papers"])
    client = people.client("editor")
    page = client.post(url, {"action": "retry", "document": document.pk}, follow=True)
    assert "1 document will be read again" in page.content.decode()
    upload.refresh_from_db()
    assert upload.state == UploadState.RECEIVED


def test_names_from_files_are_escaped(papers: Collection, people: People) -> None:
    add_document(papers, "<script>alert(1)</script>", ["x"], path="<img src=x>.txt")
    client = people.client("viewer")
    page = client.get(reverse("collection_documents", args=["papers"])).content.decode()
    assert "<script>alert" not in page
    assert "<img src" not in page


def test_types_are_named_for_people(stocked: Collection, people: People) -> None:
    page = people.client("viewer").get("/collections/papers/documents/")
    html = page.content.decode()
    assert ">PDF (1)</option>" in html and ">Markdown</td>" in html
    assert ">text/markdown" not in html and ">application/pdf" not in html


def test_only_who_is_signed_out_is_told_to_sign_in(people: People) -> None:
    for kind, told in (("anonymous", True), ("viewer", False)):
        page = people.client(kind).get("/collections/nowhere/")
        assert page.status_code == 404
        assert ("Signing in may help" in page.content.decode()) is told


def test_an_unknown_collection_is_not_found(client: Client, db: None) -> None:
    for name in ["collection", "collection_documents", "collection_tuning", "collection_uploads"]:
        assert client.get(reverse(name, args=["nothing"])).status_code == 404
