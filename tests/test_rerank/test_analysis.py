"""Text to terms: languages, scripts, identifiers, and nothing that could break an index."""

from __future__ import annotations

import threading

import pytest
import Stemmer
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank.ranking import analysis
from rerank.ranking.analysis import query_terms, terms
from rerank.ranking.stop_words import STOP_WORDS


@pytest.mark.parametrize(
    ("language", "one", "other"),
    [
        ("en", "running", "runs"),
        ("de", "Häuser", "Häusern"),
        ("fr", "nationale", "nationaux"),
        ("es", "canciones", "canción"),
        ("it", "lavorare", "lavorando"),
        ("pt", "livros", "livro"),
        ("nl", "boeken", "boek"),
        ("ru", "книгами", "книга"),
        ("sv", "flickorna", "flickor"),
        ("da", "husene", "huset"),
        ("fi", "taloissa", "talossa"),
        ("no", "bilene", "bilen"),
    ],
)
def test_inflected_forms_meet_in_one_term(language: str, one: str, other: str) -> None:
    assert terms(one, language) == terms(other, language)
    assert terms(one, "none") != terms(other, "none")


@pytest.mark.parametrize("language", sorted(analysis.STEMMERS))
def test_every_language_stems_as_snowball_does(language: str) -> None:
    stemmer = Stemmer.Stemmer(analysis.STEMMERS[language])
    words = ["national", "internationalisation", "andere", "casas", "книги"]
    assert terms(" ".join(words), language) == stemmer.stemWords(words)


def test_scripts_without_spaces_become_bigrams_in_any_language() -> None:
    assert terms("東京都", "en") == terms("東京都", "ja") == ["東京", "京都"]
    assert terms("犬", "zh") == ["犬"]
    assert terms("한국어", "ko") == ["한국", "국어"]
    assert terms("ไทย", "none") == ["ไท", "ทย"]
    assert terms("Python言語で", "ja") == ["python", "言語", "語で"]


def test_compatibility_forms_are_the_same_word() -> None:
    assert terms("ﬁnd", "none") == ["find"]
    assert terms("ＡＢＣ１", "none") == ["abc1"]
    assert terms("e\u0301te\u0301", "none") == ["été"]
    assert terms("हिन्दी", "none") == ["हिन्दी"]


def test_names_of_code_are_found_whole_and_in_parts() -> None:
    assert terms("os.path.join", "none") == ["os", "path", "join"]
    assert terms("snake_case", "none") == ["snake_case", "snake", "case"]
    assert terms("__init__", "none") == ["__init__", "init"]
    assert terms("OrderedDict", "none") == ["ordereddict", "ordered", "dict"]
    assert terms("HTTPServer", "none") == ["httpserver", "http", "server"]
    assert terms("iPhone LaTeX NASA Berlin", "none") == ["iphone", "latex", "nasa", "berlin"]


def test_a_query_loses_its_stop_words_but_never_all_its_words() -> None:
    assert query_terms("How do I use the with statement?", "en") == ["use", "statement"]
    assert query_terms("to be or", "en") == ["to", "be", "or"]
    assert query_terms("l'école d'une ville", "fr") == terms("école ville", "fr")
    assert query_terms("the", "none") == ["the"]
    assert "the" in terms("the house", "en"), "the index keeps stop words"


def test_stop_words_are_lower_case_words_of_known_languages() -> None:
    assert set(STOP_WORDS) <= set(analysis.STEMMERS)
    for words in STOP_WORDS.values():
        assert all(word == word.lower() and word.isalpha() for word in words)


def test_empty_texts_have_no_terms() -> None:
    for text in ("", "   ", "?!… —", "\x00", "\ud800"):
        assert terms(text, "en") == query_terms(text, "en") == []


@given(st.text(max_size=200), st.sampled_from([*analysis.STEMMERS, "zh", "none", "xx"]))
@settings(max_examples=200, deadline=None)
def test_any_text_gives_short_non_empty_terms_the_same_each_time(text: str, language: str) -> None:
    found = terms(text, language)
    assert found == terms(text, language)
    assert all(0 < len(term) <= analysis.MAX_TERM_LENGTH for term in found)
    assert set(query_terms(text, language)) <= set(found)


def test_very_long_words_are_cut() -> None:
    assert terms("x" * 5000, "en") == ["x" * 100]


def test_the_cache_is_bounded_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(analysis, "CACHE_WORDS", 10)
    text = " ".join(f"word{i}s" for i in range(100))
    assert terms(text, "en") == terms(text, "en")
    assert len(analysis._analysed("en")) <= 10


def test_threads_agree() -> None:
    words = [
        f"{stem}{ending}" for stem in ("walk", "talk", "jump") for ending in ("ing", "ed", "s")
    ]
    text = " ".join(f"{word}{'x' * (i % 3)}{i}" for i in range(300) for word in words)
    expected = terms(text, "en")
    analysis._analysed("en").clear()
    results: list[list[str]] = []
    threads = [threading.Thread(target=lambda: results.append(terms(text, "en"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [expected] * 8
