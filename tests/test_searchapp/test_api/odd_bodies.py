"""Request bodies that no program should send, made from one that is right."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

DEEP = 100_000
EACH = 9
# What JSON can spell but a schema, a database or a header may not like.
ODD_TEXTS = [
    "", " ", "\0", "\ud800", "../../etc/passwd", "/etc/passwd", "..\\..\\x", "%2e%2e%2f",
    "a\r\nSet-Cookie: stolen=1", "x" * 5000, "😀" * 600, "\u202etxt.exe", "%s %(a)s {0} {{x}}",
    "'; DROP TABLE searchapp_document; --", "theirs", "list:a", "$eq", "-1",
]  # fmt: skip
ODD_VALUES: list[Any] = [
    None, True, -1, 0, 2**31, 2**63, 2**64, -(2**63) - 1, 10**400, 1.5, 1e308, [], {}, [[]],
    [None], [{}], {"$and": []}, {"a": {"$gt": None}}, {"\0": "\0"}, {"list:a": "x"}, *ODD_TEXTS,
]  # fmt: skip


def raw_bodies(right: dict[str, Any]) -> list[bytes]:
    """Wrong as bytes: encodings, nesting, numbers, keys given twice, what stands behind."""
    text = json.dumps(right)
    accented = json.dumps({**right, "note": "é"}, ensure_ascii=False)
    name = next(iter(right), "query")
    bodies = [
        b"",
        b" ",
        b"\0",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b"7",
        accented.encode("latin-1"),
        *(text.encode(code) for code in ("utf-16", "utf-16-be", "utf-32", "utf-7", "utf-8-sig")),
        text.encode() + b"\0",
        text.encode() + b"}",
        text.encode() + b"\n" + text.encode(),
        text.encode()[:-1],
        text.replace('"', "'").encode(),
        b"<?xml version='1.0'?><query>heron</query>",
        b"query=heron&documents=heron",
        b"[" * DEEP,
        b"[" * DEEP + b"]" * DEEP,
        b'{"a":' * DEEP,
        b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    ]
    for value in (
        b"NaN",
        b"Infinity",
        b"-Infinity",
        b"1e999",
        b"-1e999",
        b"1" + b"0" * 5000,
        b"0" * 50,
        b"0x10",
        b'"\\ud800"',
        b'"\\udc00\\ud800"',
        b'"\xed\xa0\x80"',
        b'"\xff"',
        b'"\0"',
        b'"\\u0000"',
        b'"\\x"',
        b"[" * DEEP + b"]" * DEEP,
        b'{"$and":[' * 5000 + b"]}" * 5000,
        b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    ):
        for key in {name, "k", "filter", "metadata", "nobody_knows_this"}:
            others = {each: given for each, given in right.items() if each != key}
            head = json.dumps(others)[:-1] + (", " if others else "")
            bodies.append(head.encode() + b'"' + key.encode() + b'": ' + value + b"}")
    # A key that is given twice, first right and then wrong, and the other way round.
    rest = text[1:]
    bodies.append(f'{{"{name}": 7, {rest}'.encode() if rest != "}" else b'{"a": 1, "a": 2}')
    bodies.append((text[:-1] + f', "{name}": 7}}').encode() if rest != "}" else b"{}")
    return bodies


def odd_fields(
    right: dict[str, Any], more: tuple[str, ...] = (), turn: int = 0
) -> Iterator[dict[str, Any]]:
    """Right but for one field, each in turn, `more` of them besides those of the right body. Every
    EACH-th value for each field, from another on for the next field and the next `turn`."""
    for number, name in enumerate((*right, *more)):
        for value in ODD_VALUES[(number + turn) % EACH :: EACH]:
            yield {**right, name: value}
