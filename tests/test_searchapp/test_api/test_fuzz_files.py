"""Names of files and the signed addresses they are read by: neither leads anywhere else, to nobody
else's, or into a header."""

from __future__ import annotations

import base64
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import httpx
import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.core import signing
from django.test import Client, override_settings

from searchapp.api import links
from searchapp.models import Document, Upload
from tests.callers import make_key
from tests.shelves import add_document, make_collection
from tests.test_searchapp.ingest_files import pdf_bytes

pytestmark = pytest.mark.django_db(transaction=True, available_apps=settings.INSTALLED_APPS)

SECRET = "kingfisher"
CONTENT = b"A heron stands in the reeds."
ODD_PATHS = [
    "../../../etc/passwd",
    "/etc/passwd",
    "..\\..\\windows\\system.ini",
    "C:\\boot.ini",
    "%2e%2e/%2e%2e/etc/passwd",
    "....//....//etc/passwd",
    "a/./b/../../../../c.txt",
    "~/.ssh/id_rsa",
    "birds\r\nSet-Cookie: stolen=1\r\n\r\n<script>.txt",
    "birds\nContent-Type: text/html",
    'a"; filename="evil.html',
    "a; filename*=UTF-8''evil.html",
    "тест 日本 😀.txt",
    "\u202etxt.exe",
    "\u2028\u2029\x85.txt",
    " .. ",
    ".",
    "x" * 1024,
    "\x7f\x1b[31mred",
    "file:///etc/passwd",
    "http://127.0.0.1/",
    "nul:",
    "=?utf-8?q?evil?=",
]


@pytest.fixture
def api(live_server: Any, olive: User, clean_broker: None, media: Path) -> Any:
    make_collection("own", user=olive, is_public=False)
    headers = {"Authorization": f"Bearer {make_key(olive)[1]}"}
    with httpx.Client(base_url=live_server.url, headers=headers, timeout=60) as client:
        yield client


def v1(api: httpx.Client, call: str, **body: Any) -> httpx.Response:
    return api.post(f"/v1/{call}", json={"collection_name": "own", **body})


def assert_harmless(answer: httpx.Response) -> None:
    """One answer of ours with our headers, whatever the name of the file."""
    assert answer.status_code < 500, answer.text
    assert "set-cookie" not in answer.headers
    told = answer.headers.get("content-disposition", "")
    assert "\n" not in told and "\r" not in told and "/" not in told.replace("utf-8''", "")
    assert "root:" not in answer.text and SECRET not in answer.text


def test_no_name_of_a_file_leads_out_of_its_place_or_into_a_header(
    api: httpx.Client, media: Path, tmp_path: Path
) -> None:
    outside = set(tmp_path.rglob("*")) - set(media.rglob("*"))
    for number, path in enumerate(ODD_PATHS):
        data = base64.b64encode(CONTENT).decode()
        odd = {"path": path, "metadata": {"title": path, "note": path}}
        kinds = [{"type": "text", "text": CONTENT.decode()}, {"type": "auto", "base64_data": data}]
        # A text under every name, a file under every second one.
        for content in kinds[: 1 + number % 2]:
            added = v1(api, "documents/add-document", content=content, overwrite=True, **odd)
            assert added.status_code in {200, 201}, (path, added.text)
            assert_harmless(added)
            info = v1(api, "documents/get-document-info", path=path, include_content=True).json()
            assert info["document"]["path"] == path
            fetched = httpx.get(info["document"]["file_url"])
            assert_harmless(fetched)
            assert fetched.status_code == 200 and fetched.content == CONTENT, path
            assert fetched.headers["content-type"].partition(";")[0] in {
                "text/plain", "application/octet-stream",
            }  # fmt: skip
            assert "sandbox" in fetched.headers["content-security-policy"]
        if number % 2:
            address = f"/api/v1/collections/own/files?path={quote(path)}&overwrite=true"
            assert_harmless(api.post(address, content=CONTENT))
            assert v1(api, "documents/delete-document", path=path).status_code == 200
    # Every file lies in the folder for files, under a name of ours.
    assert set(tmp_path.rglob("*")) - set(media.rglob("*")) - {media} == outside - {media}
    for upload in Upload.objects.exclude(file=""):
        stored = Path(upload.file.path)
        assert stored.resolve().is_relative_to(media.resolve()) and ".." not in upload.file.name
        assert stored.name.isascii() and len(stored.name) < 256


def test_odd_names_in_every_other_call_find_nothing(api: httpx.Client, olive: User) -> None:
    other = User.objects.create_user("other")
    theirs = make_collection("theirs", user=other, is_public=False)
    hidden = add_document(theirs, "hidden", [f"The {SECRET} of another."])
    names = [*ODD_PATHS, "hidden.txt", "x", "../theirs/hidden.txt", "x", str(hidden.uid), "x", "%"]
    for path in names[::2]:
        for call in ("get-document-info", "delete-document", "update-document", "get-page-info"):
            answer = v1(api, f"documents/{call}", path=path, metadata={}, page_index=0)
            assert answer.status_code == 404, (call, path)
            assert_harmless(answer)
        for listed in ({"path_prefix": path}, {"path_gt": path}):
            answer = v1(api, "documents/get-document-info-list", **listed)
            assert answer.json() == {"documents": []}, listed
        for name in (path, f"own/../{path}", "theirs"):
            answer = api.post("/v1/status/get-status", json={"collection_name": name})
            assert answer.status_code == 404, name
            assert_harmless(answer)


# --- signed addresses --------------------------------------------------------------------------


def fetch(api: httpx.Client, name: str, token: str) -> httpx.Response:
    answer = httpx.get(f"{api.base_url}{name}?token={quote(token)}")
    assert_harmless(answer)
    return answer


def token_of(address: str) -> str:
    return parse_qs(urlsplit(address).query)["token"][0]


@pytest.fixture
def signed(api: httpx.Client, olive: User) -> tuple[Document, str, str]:
    """A document of one page with its file, and the tokens of both."""
    data = base64.b64encode(pdf_bytes(["A heron on a page."])).decode()
    content = {"type": "auto", "base64_data": data}
    v1(api, "documents/add-document", path="heron.pdf", content=content)
    document = Document.objects.get(path="heron.pdf")
    Document.objects.update(status="ready", page_count=1, media_type="application/pdf")
    document.refresh_from_db()
    made = links.Links("")
    return document, token_of(made.document(document.uid)), token_of(
        made.page_image(document.uid, 0)
    )  # fmt: skip


def test_a_token_that_was_touched_opens_nothing(
    api: httpx.Client, signed: tuple[Document, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    document, of_file, of_page = signed
    other = User.objects.create_user("other")
    theirs = make_collection("theirs", user=other, is_public=False)
    hidden = add_document(theirs, "hidden", [f"The {SECRET} of another."])
    addresses = {links.DOCUMENT: of_file, links.PAGE_IMAGE: of_page}
    for name, token in addresses.items():
        assert fetch(api, f"/{name_of(name)}", token).status_code == 200
    payload, stamp, signature = of_file.split(":")
    swapped = signing.b64_encode(f'["{hidden.uid.hex}"]'.encode()).decode()
    wrong = ["", "x", ":", "::", "a:b:c", of_file[:-1], of_file + "x", of_file.upper(), of_file * 9]
    wrong += ["../../etc/passwd", "\0", "\r\nSet-Cookie: stolen=1", "é", "😀", str(document.uid)]
    wrong += [
        f"{swapped}:{stamp}:{signature}",
        f"{payload}:zzzzzz:{signature}",
        f"{payload}:{stamp}:",
        f"{payload}:{stamp}",
        f".{payload}:{stamp}:{signature}",
        f"{payload}:{stamp}:{signature}:{signature}",
    ]
    # One character changed at a time. The last of a base64 text may be only partly used.
    for place in range(0, len(of_file) - 1, 7):
        new = "A" if of_file[place] != "A" else "B"
        wrong.append(of_file[:place] + new + of_file[place + 1 :])
    with override_settings(SECRET_KEY="another key than this server's"):
        wrong.append(token_of(links.Links("").document(document.uid)))
        wrong.append(token_of(links.Links("").document(hidden.uid)))
    with monkeypatch.context() as then:
        long_ago = time.time() - (settings.API_FILE_URL_DAYS * 24 * 3600 + 60)
        then.setattr(signing.time, "time", lambda: long_ago)
        wrong.append(token_of(links.Links("").document(document.uid)))
    for token in wrong:
        for name in addresses:
            answer = fetch(api, f"/{name_of(name)}", token)
            assert answer.status_code == 404 and set(answer.json()) == {"detail"}, token
    # A token is for one kind of address.
    assert fetch(api, f"/{name_of(links.PAGE_IMAGE)}", of_file).status_code == 404
    assert fetch(api, f"/{name_of(links.DOCUMENT)}", of_page).status_code == 404


def test_a_token_ends_with_its_document_and_names_no_page_that_is_not(
    api: httpx.Client, signed: tuple[Document, str, str]
) -> None:
    document, of_file, _ = signed
    for index in (-1, 1, 2**31, 2**63, 10**30):
        token = token_of(links.Links("").page_image(document.uid, index))
        assert fetch(api, f"/{name_of(links.PAGE_IMAGE)}", token).status_code == 404, index
    # Neither methods nor keys open more than the token.
    for method in ("POST", "PUT", "DELETE"):
        answer = api.request(method, f"/{name_of(links.DOCUMENT)}", params={"token": of_file})
        assert answer.status_code == 404
    assert api.get(f"/{name_of(links.DOCUMENT)}").status_code == 404
    assert v1(api, "documents/delete-document", path="heron.pdf").status_code == 200
    assert fetch(api, f"/{name_of(links.DOCUMENT)}", of_file).status_code == 404
    # The same path again is another document: its old address stays closed.
    text = {"type": "text", "text": "New."}
    v1(api, "documents/add-document", path="heron.pdf", content=text)
    assert fetch(api, f"/{name_of(links.DOCUMENT)}", of_file).status_code == 404


def name_of(name: str) -> str:
    return {
        links.DOCUMENT: "v1/documents/get-document",
        links.PAGE_IMAGE: "v1/documents/get-page-image",
    }[name]


def test_no_address_leads_to_a_file_of_the_server(api: httpx.Client, media: Path) -> None:
    media.mkdir(parents=True, exist_ok=True)
    (media / "secret.txt").write_text(SECRET)
    (media.parent / "secret.txt").write_text(SECRET)
    ups = ["../", "..%2f", "%2e%2e/", "%2e%2e%2f", "..%5c", "..%252f", "....//", "%c0%ae%c0%ae/"]
    starts = ["/", "/v1/", "/v1/documents/get-document/", "/api/v1/", "/cohere/",
              "/media/", "/documents/", "/mcp/"]  # fmt: skip
    host, port = str(api.base_url).removeprefix("http://").split(":")
    for start in starts:
        for up in ups:
            for target in (up * 8 + "etc/passwd", up + "secret.txt"):
                path = start + target
                answer = raw_get(host, int(port), path)
                assert answer.split()[1] in {b"400", b"404", b"301", b"302", b"401"}, path
                assert b"root:" not in answer and SECRET.encode() not in answer
    # The test's server serves these two in a way of its own; this is what does otherwise.
    client = Client(raise_request_exception=False)
    for start in ("/static/", settings.MEDIA_URL):
        for path in ("secret.txt", *(up * 8 + "secret.txt" for up in ups)):
            assert client.get(start + path).status_code in {400, 404}, path


def raw_get(host: str, port: int, path: str) -> bytes:
    """As it stands: clients tidy addresses up."""
    import socket

    with socket.create_connection((host, port), 30) as to_server:
        to_server.sendall(f"GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
        received = b""
        while part := to_server.recv(65536):
            received += part
    return received
