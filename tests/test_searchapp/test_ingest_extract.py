"""Every format becomes readable text, and every bad file its own sentence."""

from __future__ import annotations

import os
import random
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from searchapp.ingest.extract.reading import read_items
from searchapp.ingest.extract.records import (
    ExtractedDocument,
    ExtractedMember,
    ExtractionFailure,
    ExtractionNote,
    Item,
    Limits,
    RefusedMember,
    Source,
)
from searchapp.ingest.extract.running import extract

from . import ingest_files as files


@pytest.fixture
def read(tmp_path: Path):
    """(name, bytes, limits) -> items, in this process."""

    def _read(name: str, data: bytes, depth: int = 0, **limits: float) -> list[Item]:
        return list(read_items(_source(tmp_path, name, data, depth, **limits)))

    return _read


@pytest.fixture
def read_in_child(tmp_path: Path):
    def _read(name: str, data: bytes, **limits: float) -> list[Item]:
        source = _source(tmp_path, name, data, 0, **limits)
        return [item for item in extract(source) if item is not None]

    return _read


def _source(folder: Path, name: str, data: bytes, depth: int, **limits: float) -> Source:
    path = folder / "stored"
    path.write_bytes(data)
    scratch = folder / "scratch"
    scratch.mkdir(exist_ok=True)
    return Source(path, name, replace(Limits(), **limits), scratch, depth)  # type: ignore[arg-type]


def documents(items: list[Item]) -> list[ExtractedDocument]:
    return [item for item in items if isinstance(item, ExtractedDocument)]


def only(items: list[Item]) -> ExtractedDocument:
    (document,) = documents(items)
    assert not [item for item in items if isinstance(item, ExtractionFailure)]
    return document


def failure(items: list[Item]) -> str:
    last = items[-1]
    assert isinstance(last, ExtractionFailure), items
    return last.message


def notes(items: list[Item]) -> str:
    return " ".join(item.message for item in items if isinstance(item, ExtractionNote))


# --- what is read ------------------------------------------------------------------------------


def test_pdf_gives_text_pages_title_and_outline(read) -> None:
    data = files.pdf_bytes(["Opening words\nof page one", "Second chapter\nmore"], title="My book")
    document = only(read("book.pdf", data))
    assert document.title == "My book"
    assert len(document.page_starts) == 2
    assert document.text[document.page_starts[1] :].startswith("Second chapter")
    assert [h.title for h in document.headings] == ["Opening words", "Second chapter"]
    assert document.text[document.headings[1].offset :].startswith("Second chapter")


def test_docx_keeps_headings_lists_and_tables_in_order(read) -> None:
    document = only(read("notes.docx", files.docx_bytes()))
    assert document.title == "Engine notes"
    assert document.metadata == {"author": "Ada Byron"}
    assert [(h.level, h.title) for h in document.headings] == [(1, "Engine notes"), (2, "Cards")]
    assert "- Operation cards\n- Variable cards\n" in document.text
    assert "Card | Count\nOperation | 12" in document.text
    for heading in document.headings:
        assert document.text[heading.offset :].startswith(heading.title)


def test_slides_are_pages_and_notes_are_kept(read) -> None:
    document = only(read("deck.pptx", files.pptx_bytes()))
    assert len(document.page_starts) == 2
    second = document.text[document.page_starts[1] :]
    assert second.startswith("Second slide") and "Beta body" in second
    assert "Notes: Say Beta body" in second


def test_sheets_are_pages_and_rows_name_their_columns(read) -> None:
    document = only(read("staff.xlsx", files.xlsx_bytes()))
    assert "Name: Anna | Age: 30" in document.text
    assert "Age: 41.5" in document.text
    assert document.text[document.page_starts[1] :].startswith("Sites")


def test_html_drops_scripts_and_navigation_and_keeps_the_rest(read) -> None:
    page = """<!doctype html><html lang="en"><head><title>Cats</title>
    <style>p {color: red}</style></head><body><nav><a>Home</a></nav>
    <header><h1>About cats</h1></header><p>Cats <b>sleep</b> a lot.<br>Really.</p>
    <script>alert('x')</script><ul><li>Tabby</li><li>Siamese</li></ul>
    <pre>def purr():\n    return 1</pre>
    <table><tr><th>Cat</th><th>Kg</th></tr><tr><td>Tom</td><td>4</td></tr></table>
    <footer>Imprint</footer></body></html>"""
    document = only(read("cats.html", page.encode()))
    assert document.title == "Cats"
    assert document.metadata["language"] == "en"
    for gone in ("alert", "Home", "Imprint", "color"):
        assert gone not in document.text
    assert "Cats sleep a lot.\nReally." in document.text
    assert "- Tabby\n- Siamese" in document.text
    assert "```\ndef purr():\n    return 1\n```" in document.text
    assert "Cat | Kg\nTom | 4" in document.text


def test_a_page_that_is_all_navigation_is_still_read(read) -> None:
    page = b"<html><body><nav><p>Only these words</p></nav></body></html>"
    assert "Only these words" in only(read("nav.html", page)).text


def test_html_believes_its_own_charset(read) -> None:
    page = '<html><head><meta charset="iso-8859-2"></head><body>Dvořák</body></html>'
    assert "Dvořák" in only(read("d.html", page.encode("iso-8859-2"))).text


def test_markdown_gives_headings_code_and_front_matter(read) -> None:
    text = """---
title: Guide
tags: [one, two]
---
# Start

See the [manual](http://example.org) and `run`.

* first
* second

```python
x = 1
```

| a | b |
|---|---|
| 1 | 2 |
"""
    document = only(read("guide.md", text.encode()))
    assert document.title == "Guide"
    assert document.metadata == {"tags": ["one", "two"]}
    assert "See the manual and `run`." in document.text
    assert "- first\n- second" in document.text
    assert "```python\nx = 1\n```" in document.text
    assert "a | b\n1 | 2" in document.text


def test_rows_of_a_table_become_documents(read) -> None:
    data = b"id,title,body,topic\n7,First,Hello there,greetings\n8,Second,Good bye,farewells\n"
    first, second = documents(read("rows.csv", data))
    assert (first.path, first.title, first.text) == ("rows.csv#7", "First", "Hello there")
    assert second.metadata == {"topic": "farewells", "id": "8"}


def test_rows_without_a_text_column_name_every_value(read) -> None:
    data = b"city;people\nOslo;700000\nBergen;290000\n"
    first, _ = documents(read("cities.csv", data))
    assert first.text == "city: Oslo\npeople: 700000"


def test_tab_separated_rows_keep_lone_quotation_marks(read) -> None:
    data = b'id\ttext\n1\tan 8" pipe\n2\ta 9" pipe\n'
    assert [d.text for d in documents(read("pipes.tsv", data))] == ['an 8" pipe', 'a 9" pipe']


def test_beir_corpus_lines_become_documents_and_bad_lines_are_said(read) -> None:
    data = (
        b'{"_id": "MED-1", "title": "T", "text": "Alpha", "metadata": {"year": 1999}}\n'
        b"not json\n"
        b'{"_id": "MED-2", "text": "Beta", "tags": ["a", "b"]}\n'
        b'{"_id": "MED-2", "text": "again"}\n'
        b'{"_id": "MED-3", "text": ""}\n'
    )
    items = read("corpus.jsonl", data)
    first, second = documents(items)
    assert first.path == "corpus.jsonl#MED-1"
    assert first.metadata == {"year": "1999", "id": "MED-1"}
    assert second.metadata == {"tags": ["a", "b"], "id": "MED-2"}
    assert "Line 2 is not a JSON object; it was left out." in notes(items)
    assert "Line 4 repeats an id that came before" in notes(items)
    assert "Line 5 holds no text" in notes(items)


def test_json_lists_and_misnamed_json_lines_are_read(read) -> None:
    assert len(documents(read("a.json", b'[{"text": "one"}, {"text": "two"}]'))) == 2
    assert len(documents(read("a.json", b'{"docs": [{"text": "one"}, {"text": "two"}]}'))) == 2
    items = read("a.json", b'{"text": "one"}\n{"text": "two"}\n')
    assert len(documents(items)) == 2
    assert "JSON lines" in notes(items)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le"])
def test_text_is_read_in_its_encoding(read, encoding: str) -> None:
    text = "Grüße aus Århus, naïve café. " * 5
    assert only(read("a.txt", text.encode(encoding))).text.strip() == text.strip()


def test_a_doubtful_encoding_is_said(read) -> None:
    text = "Les élèves français étudient à l'école après le déjeuner où ils mangèrent. " * 8
    items = read("a.txt", text.encode("cp1252"))
    assert "élèves français" in only(items).text
    assert "which is a guess" in notes(items)


def test_nul_bytes_and_lone_surrogates_never_reach_the_text(read) -> None:
    data = b'{"text": "a\\u0000b \\ud800 c", "title": "t\\u0000"}\n'
    document = only(read("a.jsonl", data))
    assert document.text == "ab  c" and document.title == "t"


# --- archives ----------------------------------------------------------------------------------


def test_archive_members_are_handed_on_as_files(read) -> None:
    for name, data in [
        ("a.zip", files.zip_bytes({"one.txt": b"1", "in/two.md": b"2", "__MACOSX/x": b"-"})),
        ("a.tar.gz", files.tar_bytes({"one.txt": b"1", "in/two.md": b"2"})),
    ]:
        members = [item for item in read(name, data) if isinstance(item, ExtractedMember)]
        assert [member.name for member in members] == ["one.txt", "in/two.md"]
        assert Path(members[1].scratch).read_bytes() == b"2"


def test_a_gzip_file_is_its_one_member(read) -> None:
    (member,) = read("corpus.jsonl.gz", files.gzip_bytes(b'{"text": "x"}'))
    assert isinstance(member, ExtractedMember) and member.name == "corpus.jsonl"


def test_dangerous_members_are_refused_and_the_rest_goes_on(read) -> None:
    members = {"../out.txt": b"x", "/abs.txt": b"x", "C:\\win.txt": b"x", "fine.txt": b"ok"}
    items = read("a.zip", files.zip_bytes(members))
    refused = [item for item in items if isinstance(item, RefusedMember)]
    assert len(refused) == 3
    assert all("points outside the archive" in item.message for item in refused)
    assert isinstance(items[-1], ExtractedMember) and items[-1].name == "fine.txt"


def test_links_in_archives_are_refused(read, tmp_path: Path) -> None:
    items = read("a.tar.gz", files.tar_bytes({"fine.txt": b"ok"}, {"link.txt": "/etc/passwd"}))
    assert isinstance(items[-1], RefusedMember) and "link" in items[-1].message
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        info = zipfile.ZipInfo("link")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    (refused,) = read("z.zip", (tmp_path / "z.zip").read_bytes())
    assert isinstance(refused, RefusedMember) and "link" in refused.message


def test_archive_limits_have_their_own_sentences(read) -> None:
    bomb = files.zip_bytes({f"{n}.txt": b"\0" * 1_000_000 for n in range(5)})
    assert "unpacks to more than 2 MB" in failure(read("b.zip", bomb, expanded_bytes=2 * 1024**2))
    many = files.zip_bytes({f"{n}.txt": b"x" for n in range(20)})
    assert "more than 10 files" in failure(read("m.zip", many, members=10))
    tar = files.tar_bytes({f"{n}.txt": b"\0" * 1_000_000 for n in range(5)})
    assert "unpacks to more than 2 MB" in failure(read("b.tar.gz", tar, expanded_bytes=2 * 1024**2))
    blown = files.gzip_bytes(b"\0" * 5_000_000)
    assert "unpacks to more than 2 MB" in failure(
        read("b.txt.gz", blown, expanded_bytes=2 * 1024**2)
    )
    (refused,) = read("big.zip", files.zip_bytes({"big.txt": b"y" * 5000}), upload_bytes=1024)
    assert isinstance(refused, RefusedMember) and "larger than 1 kB" in refused.message


def test_the_third_level_of_archives_is_refused(read) -> None:
    data = files.zip_bytes({"a.txt": b"x"})
    assert isinstance(read("in.zip", data, depth=1)[-1], ExtractedMember)
    assert "archive in an archive in an archive" in failure(read("in.zip", data, depth=2))


def test_an_empty_archive_is_said(read) -> None:
    assert failure(read("e.zip", files.zip_bytes({}))) == "This archive is empty."


def test_a_damaged_member_is_refused_alone(read) -> None:
    data = bytearray(files.zip_bytes({"bad.txt": b"q" * 300}))
    data[60:64] = b"\xff\xff\xff\xff"
    items = read("d.zip", bytes(data))
    assert isinstance(items[-1], RefusedMember) and "damaged" in items[-1].message


# --- bad files ---------------------------------------------------------------------------------

PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x06\x00\x00\x00"


@pytest.mark.parametrize(
    ("name", "data", "sentence"),
    [
        ("a.txt", b"", "The file is empty."),
        ("a.txt", b" \n\t ", "The file holds no text."),
        ("a.pdf", b"%PDF-1.7\nnothing more", "This PDF is damaged and cannot be opened."),
        ("a.docx", b"PK\x03\x04 broken", "This Word file is damaged and cannot be opened."),
        ("a.zip", b"PK\x03\x04 broken", "This zip archive is damaged and cannot be opened."),
        ("a.gz", b"\x1f\x8b\x08 broken", "This gzip file is damaged and cannot be opened."),
        ("a.png", PNG, "This is a PNG image, which Podium does not read."),
        ("a.pdf", PNG, "The name ends in .pdf, but the content is a PNG image."),
        ("a.txt", PNG, "The name ends in .txt, but the content is a PNG image."),
        ("a.exe", bytes(range(256)) * 8, "This is a .exe file, which Podium does not read."),
        ("a.doc", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "Office before 2007"),
        ("a.json", b'[{"a":\n', "This is not valid JSON: it breaks off at line 2, column 1. Part"),
        ("a.json", b'[{"a": "some', "its last text begins at line 1, column 8 and has no end."),
        ("a.json", b'[{"a": 1},\n {"a" 2}]', "cannot be read from line 2, column 7 on. Correct it"),
        ("a.json", b"[" + b"7" * 5000 + b"]", "it holds a number too long to be read."),
        ("a.json", b"3", "holds no objects"),
        ("a.jsonl", b"x\ny\n", "2 lines are not JSON objects (the first: 1)"),
        ("a.html", b"<html><body></body></html>", "This page holds no text."),
    ],
)
def test_each_bad_file_has_its_sentence(read, name: str, data: bytes, sentence: str) -> None:
    assert sentence in failure(read(name, data))


def test_an_encrypted_office_file_is_said(read) -> None:
    data = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600) + "EncryptedPackage".encode("utf-16-le")
    assert "protected by a password" in failure(read("a.docx", data))


def test_an_encrypted_pdf_is_said(read) -> None:
    data = files.pdf_bytes(["Secret"], password="hush")
    assert failure(read("s.pdf", data)).startswith("This PDF is protected by a password.")


def test_a_scanned_pdf_is_said_to_hold_images_only(read) -> None:
    assert "holds only images of pages" in failure(read("scan.pdf", files.scanned_pdf_bytes()))


def test_pages_without_text_are_counted(read) -> None:
    items = read("half.pdf", files.pdf_bytes(["Words", ""]))
    assert only(items).text.startswith("Words")
    assert "1 of 2 pages hold no text" in notes(items)


def test_a_wrong_extension_is_said_and_the_file_read_as_what_it_is(read) -> None:
    items = read("report.txt", files.pdf_bytes(["Inside"]))
    assert only(items).media_type == "application/pdf"
    assert "The name ends in .txt, but this is a PDF" in notes(items)
    items = read("page.docx", b"just some words")
    assert only(items).text == "just some words"
    assert "but this is a plain text" in notes(items)


def test_office_bombs_are_refused_before_they_are_opened(read) -> None:
    assert "unpacks to" in failure(read("a.docx", files.docx_bytes(), expanded_bytes=1000))


# --- the child ---------------------------------------------------------------------------------


def test_the_child_reads_what_the_process_would(read, read_in_child) -> None:
    for name, data in [
        ("notes.docx", files.docx_bytes()),
        ("a.pdf", files.pdf_bytes(["One", "Two"])),
        ("a.jsonl", b'{"text": "x"}\nbad\n'),
        ("a.txt", b""),
    ]:
        assert read_in_child(name, data) == read(name, data)


def test_out_of_memory_is_a_sentence_and_the_next_file_goes_on(read_in_child) -> None:
    data = b'[{"text": "' + b"x" * 60_000_000 + b'"}]'
    items = read_in_child("big.json", data, memory_bytes=150 * 1024**2)
    assert "of memory allowed" in failure(items)
    assert only(read_in_child("a.txt", b"next")).text == "next"


def test_a_reader_that_takes_too_long_is_stopped(read_in_child, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "endless")  # opening it waits for a writer who never comes
    started = time.monotonic()
    source = Source(tmp_path / "endless", "endless.txt", replace(Limits(), seconds=3))
    items = list(extract(source))
    assert items[0] is None  # the tick in which a worker renews its lease
    last = items[-1]
    assert isinstance(last, ExtractionFailure) and last.retryable
    assert "longer than the 3 seconds allowed" in last.message
    assert time.monotonic() - started < 10
    assert only(read_in_child("a.txt", b"next")).text == "next"


def test_random_bytes_never_crash_a_reader(read) -> None:
    rng = random.Random(20)
    heads = [b"", b"%PDF-1.4\n", b"PK\x03\x04", b"\x1f\x8b\x08", b"<html>", b"{", b"\xff\xfe"]
    extensions = "pdf docx pptx xlsx html md txt csv tsv json jsonl zip tar.gz gz exe".split()  # noqa: SIM905
    for extension in extensions:
        for head in heads:
            data = head + rng.randbytes(rng.choice([1, 50, 3000]))
            items = read(f"f.{extension}", data)
            assert items, (extension, head)
            for item in items:
                if isinstance(item, ExtractedDocument):
                    assert "\x00" not in item.text
                    item.text.encode("utf-8")


def test_good_files_with_damage_never_crash_a_reader(read) -> None:
    rng = random.Random(21)
    good = {
        "a.pdf": files.pdf_bytes(["Words here"]),
        "a.docx": files.docx_bytes(),
        "a.pptx": files.pptx_bytes(),
        "a.xlsx": files.xlsx_bytes(),
        "a.tar.gz": files.tar_bytes({"a.txt": b"x" * 500}),
    }
    for name, data in good.items():
        for _ in range(6):
            damaged = bytearray(data)
            for _ in range(rng.choice([1, 20])):
                damaged[rng.randrange(len(damaged))] = rng.randrange(256)
            cut = len(damaged) if rng.random() < 0.5 else rng.randrange(1, len(damaged))
            assert read(name, bytes(damaged[:cut]))


def test_the_child_knows_no_django_and_no_secret(tmp_path: Path) -> None:
    import subprocess
    import sys

    from searchapp.ingest.extract import running

    code = (
        "import searchapp.ingest.extract.__main__, sys;"
        "print([m for m in ('django', 'torch', 'numpy') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.stdout.strip() == "[]", found.stderr
    os.environ["SECRET_KEY_FOR_THIS_TEST"] = "x"
    try:
        assert "SECRET_KEY_FOR_THIS_TEST" not in running.child_environment()
    finally:
        del os.environ["SECRET_KEY_FOR_THIS_TEST"]
