"""Rerankers over HTTP, against real servers that speak each dialect and misbehave."""

from __future__ import annotations

import gzip
import logging
import math
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from rerank.errors import BadInput, BadRecipe, EndpointError
from rerank.remote.client import JsonClient, error_detail, key_from_environment
from rerank.remote.dialects import (
    DIALECTS,
    logits_and_relevance,
    plan_parts,
    read_answer,
    request_body,
)
from rerank.remote.endpoint import EndpointReranker
from rerank.types import RerankRequest

from .http_servers import Answerer, Asked, Server, overlap, ranked, send, serving

QUERY = "boil the apples"
DOCUMENTS = ["apples", "boil the apples", "pears", "the pears boil"]
RELEVANCE = [1 / 3, 1.0, 0.0, 2 / 3]


def speaking(dialect: str) -> Answerer:
    """A server's answer in the dialect's own shape, with all the fields the real ones send."""

    def answer(asked: Asked, handler: BaseHTTPRequestHandler) -> Any:
        body = asked.body
        if dialect == "tei":
            return 200, ranked(body["query"], body["texts"], "score")
        results = ranked(body["query"], body["documents"])
        if dialect == "voyage":
            said = {"object": "list", "data": results, "model": "m", "usage": {"total_tokens": 21}}
        elif dialect == "zeroentropy":
            said = {"results": results, "total_bytes": 900, "total_tokens": 21, "e2e_latency": 0.1}
        elif dialect == "cohere":
            meta = {"api_version": {"version": "2"}, "tokens": {"input_tokens": 21.0}}
            said = {"id": "a", "results": results, "meta": meta}
        else:
            texts = body["documents"]
            results = [{**each, "document": {"text": texts[each["index"]]}} for each in results]
            said = {"id": "a", "model": "m", "usage": {"total_tokens": 21}, "results": results}
        return 200, said

    return answer


@contextmanager
def reranker(
    answer: Answerer, dialect: str = "cohere", key: str = "", **options: Any
) -> Iterator[tuple[EndpointReranker, Server]]:
    names = ("timeout_seconds", "connect_seconds", "read_seconds", "max_retries")
    client_options = {
        name: options.pop(name) for name in (*names, "max_answer_bytes") if name in options
    }
    with serving(answer) as server:
        client = JsonClient(
            server.url + DIALECTS[dialect].path, key, "RERANK_KEY" if key else "", **client_options
        )
        model = EndpointReranker(DIALECTS[dialect], client, "m", **options)
        try:
            yield model, server
        finally:
            model.close()


@pytest.mark.parametrize("name", DIALECTS)
def test_each_dialect_is_asked_in_its_words_and_understood(name: str) -> None:
    with reranker(speaking(name), name, key="secret") as (model, server):
        scores = model.score(RerankRequest(QUERY, DOCUMENTS))
    assert scores.relevance.tolist() == pytest.approx(RELEVANCE)
    assert scores.scale == "published"
    assert np.argsort(-scores.logits).tolist() == [1, 3, 0, 2]
    assert scores.tokens == (0 if name == "tei" else 21)
    (asked,) = server.asked
    assert asked.path == DIALECTS[name].path
    assert asked.headers["authorization"] == "Bearer secret"
    assert asked.body["query"] == QUERY
    assert asked.body["texts" if name == "tei" else "documents"] == DOCUMENTS
    assert asked.body["model"] == "m"


def test_the_optional_fields_of_each_dialect() -> None:
    def fields(name: str, **options: Any) -> dict[str, Any]:
        body = request_body(DIALECTS[name], "", "q", ["d"], **options)
        return {key: value for key, value in body.items() if key not in {"query", "documents"}}

    assert fields("zeroentropy") == fields("cohere") == {}
    assert fields("jina") == {"return_documents": False}
    assert fields("voyage") == {"return_documents": False, "truncation": True}
    assert fields("tei") == {"texts": ["d"], "truncate": True}
    assert fields("tei", raw_scores=True)["raw_scores"] is True
    assert fields("vllm", raw_scores=True) == {
        "truncate_prompt_tokens": -1,
        "use_activation": False,
    }
    assert fields("voyage", extra={"truncation": False})["truncation"] is False
    assert request_body(DIALECTS["cohere"], "m", "q", ["d"], extra={"query": "x"})["query"] == "q"


def test_the_instruction_travels_in_the_query_and_none_changes_nothing() -> None:
    with reranker(speaking("zeroentropy"), "zeroentropy") as (model, server):
        for instruction in (None, "", "  ", "Prefer tables."):
            model.score(RerankRequest("  a query\n", ["d"], instruction))
    queries = [body["query"] for body in server.bodies]
    assert queries[:3] == ["  a query\n"] * 3
    assert queries[3] == "  a query\n\n\nInstructions:\nPrefer tables."


def test_raw_scores_are_logits_and_their_sigmoid_the_relevance() -> None:
    def answer(asked: Asked, handler: BaseHTTPRequestHandler) -> Any:
        assert asked.body["raw_scores"] is True
        return 200, [{"index": 1, "score": 2.5}, {"index": 0, "score": -7.0}]

    with reranker(answer, "tei", raw_scores=True) as (model, _):
        scores = model.score(RerankRequest("q", ["a", "b", ""]))
    assert scores.scale == "sigmoid"
    assert scores.logits.tolist() == [-7.0, 2.5, -100.0]
    assert scores.relevance[:2].tolist() == pytest.approx(
        [1 / (1 + math.e**7), 1 / (1 + 1e-9)], 0.1
    )
    assert scores.relevance[2] < 1e-30


@given(st.lists(st.floats(-3, 4), max_size=40))
def test_logits_sort_as_the_scores_do_and_are_finite(scores: list[float]) -> None:
    logits, relevance = logits_and_relevance(np.asarray(scores, dtype=np.float64), False)
    assert np.isfinite(logits).all() and ((relevance >= 0) & (relevance <= 1)).all()
    order = np.argsort(scores, kind="stable")
    assert (np.diff(logits[order]) >= 0).all() and (np.diff(relevance[order]) >= 0).all()


def test_scores_outside_the_unit_interval_keep_their_order() -> None:
    logits, relevance = logits_and_relevance(np.array([-0.2, -0.1, 0.0, 1.0, 1.3]), False)
    assert relevance.tolist() == [0, 0, 0, 1, 1]
    assert (np.diff(logits) > 0).all()


def test_no_documents_give_empty_arrays_and_no_request() -> None:
    with reranker(speaking("cohere")) as (model, server):
        scores = model.score(RerankRequest("q", []))
        assert scores.logits.shape == scores.relevance.shape == (0,)
    assert server.asked == []


def test_blank_documents_are_not_sent_and_are_not_relevant() -> None:
    with reranker(speaking("cohere")) as (model, server):
        scores = model.score(RerankRequest("apples", ["", "apples", " \n\t"]))
    assert server.bodies[0]["documents"] == ["apples"]
    assert scores.relevance.tolist() == [0.0, 1.0, 0.0]
    assert np.isfinite(scores.logits).all()


def test_requests_over_the_limits_are_divided_and_put_together_again() -> None:
    documents = [f"{'apples ' * (place % 2)}number {place}" for place in range(70)]
    with reranker(speaking("tei"), "tei") as (model, server):
        scores = model.score(RerankRequest("apples", documents))
    assert sorted(len(body["texts"]) for body in server.bodies) == [6, 32, 32]
    assert scores.relevance.tolist() == [float(place % 2) for place in range(70)]


@given(
    st.lists(st.integers(0, 5000), max_size=60),
    st.integers(0, 3000),
    st.integers(1, 20),
    st.integers(2000, 30000),
    st.booleans(),
)
def test_parts_cover_every_document_once_within_the_limits(
    sizes: list[int], query: int, documents: int, limit: int, pairs: bool
) -> None:
    parts = list(plan_parts(sizes, query, documents, limit, pairs))
    assert [place for part in parts for place in part] == list(range(len(sizes)))
    for part in parts:
        assert 1 <= len(part) <= documents
        content = sum(sizes[place] for place in part)
        total = content + (len(part) * (150 + query) if pairs else query)
        assert total <= limit or len(part) == 1


def test_the_rate_limited_bytes_of_a_pair_count_for_zeroentropy() -> None:
    document, query = "d" * 1000, "q" * 20_000
    with reranker(speaking("zeroentropy"), "zeroentropy") as (model, server):
        model.score(RerankRequest(query, [document] * 300))
    for body in server.bodies:
        assert sum(150 + len(query) + len(each) for each in body["documents"]) <= 5_000_000
    assert len(server.asked) == 2


def test_a_part_called_too_large_is_halved_until_it_fits() -> None:
    def answer(asked: Asked, handler: BaseHTTPRequestHandler) -> Any:
        if len(asked.body["texts"]) > 3:
            return 413, {"error": "batch size 10 > 3", "error_type": "Validation"}
        return speaking("tei")(asked, handler)

    documents = ["apples", "pears"] * 5
    with reranker(answer, "tei") as (model, server):
        scores = model.score(RerankRequest("apples", documents))
    assert scores.relevance.tolist() == [1.0, 0.0] * 5
    assert [len(body["texts"]) for body in server.bodies] == [10, 5, 2, 3, 5, 2, 3]


def test_one_document_called_too_large_is_an_error() -> None:
    with (
        reranker(lambda *_: (413, {"error": "Payload too large"}), "tei") as (model, _),
        pytest.raises(EndpointError, match="413: Payload too large"),
    ):
        model.score(RerankRequest("q", ["a", "b"]))


def test_ten_thousand_documents_and_ten_megabytes() -> None:
    with reranker(speaking("cohere"), timeout_seconds=60) as (model, server):
        scores = model.score(RerankRequest("apples", ["apples and pears"] * 10_000))
        assert (scores.relevance == 1.0).all() and len(server.asked) == 10
        huge = "apples " * 1_500_000
        scores = model.score(RerankRequest("apples", [huge, "pears"]))
    assert scores.truncated == 1 and scores.relevance.tolist() == [1.0, 0.0]
    assert max(map(len, server.bodies[-1]["documents"])) == 200_000


def test_a_query_of_megabytes_is_bad_input() -> None:
    with (
        reranker(speaking("cohere")) as (model, server),
        pytest.raises(BadInput, match="1,000,000 characters"),
    ):
        model.score(RerankRequest("q" * 1_000_000, ["d"]))
    assert server.asked == []


def test_halves_of_surrogate_pairs_are_sent_as_question_marks() -> None:
    with reranker(speaking("cohere")) as (model, server):
        model.score(RerankRequest("a \ud800", ["b \udfff", "日本 😀\x00"]))
    assert server.bodies[0]["query"] == "a ?"
    assert server.bodies[0]["documents"] == ["b ?", "日本 😀\x00"]


def failing_first(times: int, status: int, headers: dict[str, str] | None = None) -> Answerer:
    left = [times]
    lock = threading.Lock()

    def answer(asked: Asked, handler: BaseHTTPRequestHandler) -> Any:
        with lock:
            left[0] -= 1
            fails = left[0] >= 0
        if fails:
            send(handler, status, {"detail": "Slow down"}, headers)
            return None
        return speaking("cohere")(asked, handler)

    return answer


@pytest.mark.parametrize("status", [408, 409, 429, 500, 503])
def test_a_failure_that_may_pass_is_tried_again(status: int) -> None:
    with reranker(failing_first(2, status, {"retry-after-ms": "5"})) as (model, server):
        assert model.score(RerankRequest(QUERY, DOCUMENTS)).relevance[1] == 1.0
    assert len(server.asked) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_a_failure_that_will_not_pass_is_not_tried_again(status: int) -> None:
    with (
        reranker(failing_first(9, status)) as (model, server),
        pytest.raises(EndpointError, match=f"{status}: Slow down"),
    ):
        model.score(RerankRequest(QUERY, DOCUMENTS))
    assert len(server.asked) == 1


def test_the_endpoint_may_say_whether_to_try_again() -> None:
    with (
        reranker(failing_first(9, 409, {"x-should-retry": "false"})) as (model, server),
        pytest.raises(EndpointError),
    ):
        model.score(RerankRequest("q", ["d"]))
    assert len(server.asked) == 1
    headers = {"x-should-retry": "true", "retry-after-ms": "1"}
    with reranker(failing_first(1, 400, headers)) as (model, server):
        model.score(RerankRequest("q", ["d"]))
    assert len(server.asked) == 2


def test_the_wait_asked_for_is_kept() -> None:
    for headers in (
        {"retry-after": "0.3"},
        {"retry-after": formatdate(time.time() + 2, False, True)},
    ):
        with reranker(failing_first(1, 429, headers)) as (model, _):
            started = time.perf_counter()
            model.score(RerankRequest("q", ["d"]))
            assert 0.25 < time.perf_counter() - started < 3


def test_a_wait_beyond_the_deadline_is_not_begun() -> None:
    started = time.perf_counter()
    with (
        reranker(failing_first(1, 429, {"retry-after": "60"}), timeout_seconds=5) as (model, _),
        pytest.raises(
            EndpointError, match=r"429: Slow down\. Trying again in 60\.0 s would exceed"
        ),
    ):
        model.score(RerankRequest("q", ["d"]))
    assert time.perf_counter() - started < 2


def test_waits_double_when_none_is_asked_for() -> None:
    with (
        reranker(lambda *_: (500, {}), max_retries=1) as (model, server),
        pytest.raises(EndpointError, match="It was tried 2 times"),
    ):
        started = time.perf_counter()
        model.score(RerankRequest("q", ["d"]))
    assert 0.37 < time.perf_counter() - started < 3
    assert len(server.asked) == 2


def test_a_slow_endpoint_is_given_up_at_the_deadline() -> None:
    with reranker(lambda *_: time.sleep(3), timeout_seconds=0.4) as (model, _):
        started = time.perf_counter()
        with pytest.raises(EndpointError, match=r"did not answer within 0\.4 s\. 0 of 1 documents"):
            model.score(RerankRequest("q", ["d"]))
        assert time.perf_counter() - started < 2


def test_an_endpoint_that_drips_is_given_up_at_the_deadline() -> None:
    def drip(asked: Asked, handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("content-length", "1000")
        handler.end_headers()
        for _ in range(60):
            handler.wfile.write(b" ")
            time.sleep(0.05)

    with reranker(drip, timeout_seconds=0.5) as (model, _):
        started = time.perf_counter()
        with pytest.raises(EndpointError, match=r"did not answer within 0\.5 s"):
            model.score(RerankRequest("q", ["d"]))
        assert time.perf_counter() - started < 2.5


def test_silence_ends_one_attempt_and_the_next_may_succeed() -> None:
    calls: list[int] = []

    def answer(asked: Asked, handler: BaseHTTPRequestHandler) -> Any:
        calls.append(1)
        if len(calls) == 1:
            time.sleep(1)
        return speaking("cohere")(asked, handler)

    with reranker(answer, read_seconds=0.2, timeout_seconds=10) as (model, _):
        assert model.score(RerankRequest(QUERY, DOCUMENTS)).relevance[1] == 1.0


def test_a_dropped_connection_is_tried_again() -> None:
    calls: list[int] = []

    def answer(asked: Asked, handler: BaseHTTPRequestHandler) -> Any:
        calls.append(1)
        if len(calls) == 1:
            handler.close_connection = True
            return None
        return speaking("cohere")(asked, handler)

    with reranker(answer) as (model, server):
        assert model.score(RerankRequest(QUERY, DOCUMENTS)).relevance[1] == 1.0
    assert len(server.asked) == 2


def test_an_answer_cut_off_is_tried_again_and_then_named() -> None:
    def answer(asked: Asked, handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("content-length", "1000")
        handler.end_headers()
        handler.wfile.write(b'{"results": [{"ind')
        handler.close_connection = True

    with (
        reranker(answer, max_retries=1) as (model, server),
        pytest.raises(EndpointError, match="cannot be reached"),
    ):
        model.score(RerankRequest("q", ["d"]))
    assert len(server.asked) == 2


def test_nobody_at_the_address_is_named() -> None:
    with serving(speaking("cohere")) as server:
        url = server.url
    model = EndpointReranker(DIALECTS["cohere"], JsonClient(url + "/v2/rerank", max_retries=0), "m")
    with pytest.raises(EndpointError, match=r"127\.0\.0\.1:\d+/v2/rerank cannot be reached"):
        model.score(RerankRequest("q", ["d"]))
    model.close()


BAD_ANSWERS: dict[str, tuple[Any, str]] = {
    "truncated JSON": (b'{"results": [{"index": 0, ', "not JSON"),
    "no JSON": (b"<html>hello</html>", "not JSON"),
    "deep": (b"[" * 200_000, "not JSON"),
    "a list": ([], "a list 'results'"),
    "no results": ({"error": "odd"}, "a list 'results'"),
    "too few": ({"results": [{"index": 1, "relevance_score": 0.5}]}, "scores 1 of the 2 documents"),
    "twice": ({"results": [{"index": 1, "relevance_score": 0.5}] * 2}, "document 1 twice"),
    "beyond": ({"results": [{"index": 2, "relevance_score": 0.5}]}, "document 2 of a request of 2"),
    "negative": ({"results": [{"index": -1, "relevance_score": 0.5}]}, "document -1"),
    "text": ({"results": [{"index": "0", "relevance_score": 0.5}]}, "'0', which is no index"),
    "truth": ({"results": [{"index": True, "relevance_score": 0.5}]}, "True, which is no index"),
    "no score": ({"results": [{"index": 0, "score": 0.5}]}, "score of document 0 is None"),
    "not a number": (b'{"results": [{"index": 0, "relevance_score": NaN}]}', "document 0 is nan"),
    "infinite": (b'{"results": [{"index": 0, "relevance_score": 1e999}]}', "document 0 is inf"),
    "bare": ({"results": [0.1, 0.2]}, "no objects with an index"),
}


@pytest.mark.parametrize("case", BAD_ANSWERS)
def test_a_bad_answer_is_one_clear_sentence(case: str) -> None:
    said, message = BAD_ANSWERS[case]
    with (
        reranker(lambda *_: (200, said)) as (model, server),
        pytest.raises(EndpointError, match=message) as failure,
    ):
        model.score(RerankRequest("q", ["a", "b"]))
    assert "0 of 2 documents had been scored" in str(failure.value)
    assert len(str(failure.value)) < 400 and len(server.asked) == 1


@given(
    st.recursive(
        st.none() | st.floats() | st.text() | st.booleans(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(["index", "results", "relevance_score", "usage"]), inner
            )
        ),
    )
)
def test_no_answer_breaks_the_reader(answer: Any) -> None:
    for dialect in DIALECTS.values():
        try:
            read = read_answer(dialect, answer, 1)
        except EndpointError:
            continue
        assert len(read.scores) == 1


def test_a_huge_answer_is_refused_also_when_it_was_compressed() -> None:
    def answer(asked: Asked, handler: BaseHTTPRequestHandler) -> None:
        send(handler, 200, gzip.compress(b" " * 5_000_000), {"content-encoding": "gzip"})

    with (
        reranker(answer, max_answer_bytes=1_000_000) as (model, _),
        pytest.raises(EndpointError, match="more than 1,000,000 bytes"),
    ):
        model.score(RerankRequest("q", ["d"]))


def test_a_broken_compression_is_an_unreadable_answer() -> None:
    def answer(asked: Asked, handler: BaseHTTPRequestHandler) -> None:
        send(handler, 200, b"plain", {"content-encoding": "gzip"})

    with (
        reranker(answer) as (model, _),
        pytest.raises(EndpointError, match="unreadable answer"),
    ):
        model.score(RerankRequest("q", ["d"]))


def test_when_one_part_fails_the_error_says_how_many_were_scored() -> None:
    def answer(asked: Asked, handler: BaseHTTPRequestHandler) -> Any:
        if "poison" in asked.body["texts"]:
            return 422, {"error": "Tokenization error", "error_type": "Tokenizer"}
        return speaking("tei")(asked, handler)

    documents = ["apples"] * 79 + ["poison"]
    with (
        reranker(answer, "tei", parallel=1) as (model, _),
        pytest.raises(EndpointError, match=r"Tokenization error\..*64 of 80 documents had been"),
    ):
        model.score(RerankRequest("apples", documents))


def test_redirects_are_not_followed() -> None:
    with serving(speaking("cohere")) as elsewhere:

        def answer(asked: Asked, handler: BaseHTTPRequestHandler) -> None:
            send(handler, 307, {}, {"location": elsewhere.url + "/v2/rerank?key=hidden"})

        with (
            reranker(answer, key="secret") as (model, _),
            pytest.raises(EndpointError, match="redirects to http://127") as failure,
        ):
            model.score(RerankRequest("q", ["d"]))
    assert elsewhere.asked == [] and "hidden" not in str(failure.value)


def self_signed(folder: Path) -> ssl.SSLContext:
    """A server's context with a certificate that nobody vouches for."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), False
        )
        .sign(key, hashes.SHA256())
    )
    pem = folder / "server.pem"
    pem.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        + certificate.public_bytes(Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context


def test_a_certificate_that_nobody_vouches_for_is_refused_at_once(tmp_path: Path) -> None:
    with serving(speaking("cohere"), self_signed(tmp_path)) as server:
        model = EndpointReranker(
            DIALECTS["cohere"], JsonClient(server.url + "/v2/rerank", "k"), "m"
        )
        started = time.perf_counter()
        with pytest.raises(EndpointError, match="a certificate that is not trusted"):
            model.score(RerankRequest("q", ["d"]))
        model.close()
    assert server.asked == [] and time.perf_counter() - started < 1


def test_no_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with reranker(speaking("cohere")) as (model, _):
        assert len(model.score(RerankRequest("q", ["d"])).logits) == 1


def test_the_key_stands_in_no_message_and_no_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    said = {"detail": "The key sk-very-secret is wrong"}
    with (
        reranker(lambda *_: (401, said), key="sk-very-secret") as (model, server),
        pytest.raises(EndpointError) as failure,
    ):
        model.score(RerankRequest("q", ["d"]))
    assert server.asked[0].headers["authorization"] == "Bearer sk-very-secret"
    assert "Check the key in the environment variable RERANK_KEY" in str(failure.value)
    assert "very-secret" not in str(failure.value) + repr(failure.value) + caplog.text
    assert "very-secret" not in repr(model) + repr(model.card)


def test_a_missing_key_is_named_and_a_bad_one_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RERANK_KEY", raising=False)
    with pytest.raises(BadRecipe, match="RERANK_KEY is not set"):
        key_from_environment("RERANK_KEY")
    monkeypatch.setenv("RERANK_KEY", " \n")
    with pytest.raises(BadRecipe, match="RERANK_KEY is not set"):
        key_from_environment("RERANK_KEY")
    monkeypatch.setenv("RERANK_KEY", "se\ncret")
    with pytest.raises(BadRecipe) as failure:
        key_from_environment("RERANK_KEY")
    assert "cret" not in str(failure.value)
    monkeypatch.setenv("RERANK_KEY", " good\n")
    assert key_from_environment("RERANK_KEY") == "good"
    assert key_from_environment("") == ""


def test_error_answers_are_read_in_every_usual_shape() -> None:
    assert error_detail(b'{"detail": "bad"}') == "bad"
    assert (
        error_detail(b'{"detail": [{"loc": ["body"], "msg": "field required"}]}')
        == "field required"
    )
    assert error_detail(b'{"message": "bad"}') == "bad"
    assert error_detail(b'{"error": {"message": "bad", "code": 3}}') == "bad"
    assert error_detail(b'{"error": "bad", "error_type": "Backend"}') == "bad"
    assert error_detail(b"plain words") == "plain words"
    assert error_detail(b"<html>") == error_detail(b"[]") == error_detail(b"3") == ""


def test_calls_from_several_threads_share_the_connections() -> None:
    with reranker(speaking("cohere")) as (model, server):
        results: dict[int, float] = {}

        def ask(number: int) -> None:
            document = "apples" if number % 2 else "pears"
            results[number] = float(model.score(RerankRequest("apples", [document])).relevance[0])

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert results == {number: float(number % 2) for number in range(12)}
    assert len(server.asked) == 12


def test_a_closed_reranker_opens_again() -> None:
    with reranker(speaking("cohere")) as (model, _):
        first = model.score(RerankRequest(QUERY, DOCUMENTS))
        model.close()
        assert np.array_equal(model.score(RerankRequest(QUERY, DOCUMENTS)).logits, first.logits)


def test_scores_are_kept_only_where_somebody_promised_that_they_stay() -> None:
    client = JsonClient("https://rerank.example/v2/rerank?token=hidden")
    assert EndpointReranker(DIALECTS["cohere"], client, "m").card.revision == ""
    first = EndpointReranker(DIALECTS["cohere"], client, "m", model_revision="1").card.revision
    second = EndpointReranker(DIALECTS["cohere"], client, "n", model_revision="1").card.revision
    assert first and second and first != second and "hidden" not in first


def test_the_servers_of_these_tests_score_by_shared_words() -> None:
    assert overlap("boil apples", "the apples") == 0.5
