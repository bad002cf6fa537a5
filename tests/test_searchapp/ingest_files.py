"""Files of every format, made on the spot."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from collections.abc import Mapping, Sequence


def pdf_bytes(pages: Sequence[str], *, title: str = "", password: str = "") -> bytes:
    from reportlab.lib import pdfencrypt
    from reportlab.pdfgen import canvas

    buffer = io.BytesIO()
    encrypt = pdfencrypt.StandardEncryption(password, ownerPassword="x") if password else None
    pdf = canvas.Canvas(buffer, encrypt=encrypt)
    if title:
        pdf.setTitle(title)
    for number, page in enumerate(pages):
        text = pdf.beginText(72, 750)
        for line in page.split("\n"):
            text.textLine(line)
        pdf.drawText(text)
        if page:
            pdf.bookmarkPage(f"p{number}")
            pdf.addOutlineEntry(page.split("\n")[0], f"p{number}", level=0)
        pdf.showPage()
    pdf.save()
    return buffer.getvalue()


def scanned_pdf_bytes() -> bytes:
    from PIL import Image
    from reportlab.lib.utils import ImageReader
    from reportlab.pdfgen import canvas

    buffer = io.BytesIO()
    pdf = canvas.Canvas(buffer)
    pdf.drawImage(ImageReader(Image.new("RGB", (20, 20), "red")), 100, 100)
    pdf.showPage()
    pdf.save()
    return buffer.getvalue()


def docx_bytes() -> bytes:
    import docx

    document = docx.Document()
    document.core_properties.author = "Ada Byron"
    document.add_heading("Engine notes", level=1)
    document.add_paragraph("The engine weaves algebraic patterns.")
    document.add_heading("Cards", level=2)
    document.add_paragraph("Operation cards", style="List Bullet")
    document.add_paragraph("Variable cards", style="List Bullet")
    table = document.add_table(rows=2, cols=2)
    for at, value in enumerate(["Card", "Count", "Operation", "12"]):
        table.cell(at // 2, at % 2).text = value
    return _saved(document)


def pptx_bytes() -> bytes:
    import pptx

    deck = pptx.Presentation()
    for title, body in [("First slide", "Alpha body"), ("Second slide", "Beta body")]:
        slide = deck.slides.add_slide(deck.slide_layouts[1])
        slide.shapes.title.text = title
        slide.placeholders[1].text = body
        slide.notes_slide.notes_text_frame.text = f"Say {body}"
    return _saved(deck)


def xlsx_bytes() -> bytes:
    import openpyxl

    book = openpyxl.Workbook()
    sheet = book.active
    sheet.title = "Staff"
    for row in [["Name", "Age"], ["Anna", 30], ["Bert", 41.5]]:
        sheet.append(row)
    book.create_sheet("Sites").append(["Oslo", "Bergen"])
    return _saved(book)


def zip_bytes(members: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def tar_bytes(members: Mapping[str, bytes], links: Mapping[str, str] | None = None) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type = tarfile.SYMTYPE
            info.linkname = target
            archive.addfile(info)
    return buffer.getvalue()


def gzip_bytes(data: bytes) -> bytes:
    return gzip.compress(data)


def _saved(document: object) -> bytes:
    buffer = io.BytesIO()
    document.save(buffer)  # type: ignore[attr-defined]
    return buffer.getvalue()
