"""Archives: every member is unpacked to the scratch folder and handed on as a file of its own."""

from __future__ import annotations

import gzip
import stat
import tarfile
import uuid
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO

from .encodings import clean
from .records import ExtractedMember, Item, RefusedMember, Source, Unreadable, megabytes

_BLOCK = 1024 * 1024
_LINK = "This is a link to another file; links in archives are not followed."
_SECRET = "This member of the archive is protected by a password."
_BROKEN = "This member of the archive is damaged."


def read_zip(source: Source) -> Iterator[Item]:
    try:
        archive = zipfile.ZipFile(source.path)
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise Unreadable("This zip archive is damaged and cannot be opened.") from error
    unpacker = _Unpacker(source)
    with archive:
        members = [member for member in archive.infolist() if not member.is_dir()]
        unpacker.check_count(len(members))
        unpacker.check_size(sum(member.file_size for member in members))
        for member in members:
            name = member.filename
            if unpacker.is_ignored(name):
                continue
            reason = unpacker.refusal(name, member.file_size)
            if stat.S_ISLNK(member.external_attr >> 16):
                reason = _LINK
            elif member.flag_bits & 1:
                reason = _SECRET
            if reason:
                yield RefusedMember(shown(name), reason)
                continue
            try:
                with archive.open(member) as stream:
                    yield unpacker.unpack(name, stream)
            except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError):
                yield RefusedMember(shown(name), _BROKEN)
    unpacker.check_any()


def read_tar(source: Source) -> Iterator[Item]:
    unpacker = _Unpacker(source)
    count = 0
    try:
        with tarfile.open(source.path, mode="r|*") as archive:
            for member in archive:
                if member.isdir() or unpacker.is_ignored(member.name):
                    continue
                count += 1
                unpacker.check_count(count)
                reason = unpacker.refusal(member.name, member.size)
                if member.issym() or member.islnk():
                    reason = _LINK
                elif not member.isfile():
                    reason = "This is a device or pipe, not a file."
                stream = None if reason else archive.extractfile(member)
                if reason or stream is None:
                    yield RefusedMember(shown(member.name), reason or _BROKEN)
                else:
                    yield unpacker.unpack(member.name, stream)
    except (tarfile.TarError, zlib.error, EOFError, gzip.BadGzipFile, ValueError) as error:
        if not unpacker.any:
            raise Unreadable("This tar archive is damaged and cannot be opened.") from error
        raise Unreadable(
            "This tar archive is damaged: it breaks off before its end. "
            "The files before the damage were taken."
        ) from error
    unpacker.check_any()


def read_gzip(source: Source) -> Iterator[Item]:
    """A single compressed file, `corpus.jsonl.gz`: one member without the .gz."""
    name = source.name.rsplit("/", 1)[-1]
    inner = name[:-3] if name.lower().endswith(".gz") and len(name) > 3 else f"{name}.txt"
    unpacker = _Unpacker(source)
    try:
        with gzip.open(source.path) as stream:
            yield unpacker.unpack(inner, stream)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise Unreadable("This gzip file is damaged and cannot be opened.") from error


class _Unpacker:
    """Keeps count of what has been unpacked and stops at the limits."""

    def __init__(self, source: Source) -> None:
        if source.scratch is None:
            raise ValueError("an archive needs a scratch folder")
        self._scratch = source.scratch
        self._limits = source.limits
        self._bytes = 0
        self.any = False

    def check_count(self, count: int) -> None:
        if count > self._limits.members:
            raise Unreadable(
                f"This archive holds more than {self._limits.members:,} files. "
                "Split it into smaller ones."
            )

    def check_size(self, size: int) -> None:
        if size > self._limits.expanded_bytes:
            raise Unreadable(
                f"This archive unpacks to more than {megabytes(self._limits.expanded_bytes)}, "
                "which is not allowed here. Split it into smaller ones."
            )

    def check_any(self) -> None:
        if not self.any:
            raise Unreadable("This archive is empty.")

    def is_ignored(self, name: str) -> bool:
        """The droppings of desktop systems."""
        last = name.rsplit("/", 1)[-1]
        return name.startswith("__MACOSX/") or last in {".DS_Store", "Thumbs.db", "desktop.ini"}

    def refusal(self, name: str, size: int) -> str:
        """Why a member is not unpacked, or ""."""
        self.any = True
        parts = name.replace("\\", "/").split("/")
        if name.startswith(("/", "\\")) or ".." in parts or ":" in parts[0]:
            return "The name of this member points outside the archive."
        if size > self._limits.upload_bytes:
            return f"This member is larger than {megabytes(self._limits.upload_bytes)}."
        return ""

    def unpack(self, name: str, stream: IO[bytes] | gzip.GzipFile) -> Item:
        self.any = True
        target = self._scratch / uuid.uuid4().hex
        size = 0
        try:
            with target.open("wb") as file:
                while block := stream.read(_BLOCK):
                    size += len(block)
                    self._bytes += len(block)
                    self.check_size(self._bytes)
                    if size > self._limits.upload_bytes:
                        break
                    file.write(block)
        except BaseException:
            target.unlink(missing_ok=True)
            raise
        if size > self._limits.upload_bytes:
            target.unlink(missing_ok=True)
            limit = megabytes(self._limits.upload_bytes)
            return RefusedMember(shown(name), f"This member is larger than {limit}.")
        return ExtractedMember(shown(name), str(target), size)


def shown(name: str) -> str:
    """A member's name as it can be stored and read."""
    return clean(name).replace("\n", " ") or "(without a name)"
