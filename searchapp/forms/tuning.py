"""The draft of a search config as a form, the saved queries, the reason of an activation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django import forms
from django.conf import settings

from searchapp.models import Checkpoint, CheckpointState, Collection, SavedQuery, SearchConfig
from searchapp.models.configs import Fusion, Variant
from searchapp.models.corpus import AnyUser
from searchapp.search import configs
from searchapp.search.pipeline import MAX_QUERY_CHARACTERS

# Empty rows below the filled ones, so that the glossary grows without scripts.
SPARE_ROWS = 3
MAX_SAVED_QUERIES = 50
_NUMBERS = {"required": "Write a number here.", "invalid": "This is no number."}


def _number(name: str, step: str, **options: Any) -> forms.Field:
    smallest, largest, whole = configs.RANGES[name]
    kind: type[forms.IntegerField] = forms.IntegerField if whole else forms.FloatField
    field = kind(label=configs.FIELDS[name], error_messages=_NUMBERS, **options)
    field.widget.attrs |= {"min": f"{smallest:g}", "max": f"{largest:g}", "step": step}
    return field


class DraftForm(forms.Form):
    """Fields as of `configs.FIELDS`; ranges and the like are checked there, by `save`."""

    instruction = forms.CharField(
        required=False,
        strip=False,
        label=configs.FIELDS["instruction"],
        widget=forms.Textarea(attrs={"rows": 5}),
        help_text="What makes a passage a good answer here, in plain words.",
    )
    fusion = forms.ChoiceField(choices=Fusion.choices, label="Merge the two legs by")
    dense_weight = _number("dense_weight", "0.05", help_text="0 is words only, 1 is meaning only.")
    rrf_k = _number("rrf_k", "1", help_text="For reciprocal ranks.")
    lexical_depth = _number("lexical_depth", "10", help_text="Candidates by words; 0 is off.")
    dense_depth = _number("dense_depth", "10", help_text="Candidates by meaning; 0 is off.")
    bm25_variant = forms.ChoiceField(choices=Variant.choices, label="BM25 variant")
    bm25_k1 = _number("bm25_k1", "0.1", help_text="How fast repeats stop counting.")
    bm25_b = _number("bm25_b", "0.05", help_text="How much length counts.")
    rerank_depth = _number("rerank_depth", "10", help_text="Candidates reranked; 0 is off.")
    model = forms.ChoiceField(label="Reranker")
    threshold = _number(
        "threshold",
        "0.01",
        required=False,
        help_text="Hits of a lower relevance, calibrated if it is, are left out; empty keeps all.",
    )

    def __init__(self, draft: SearchConfig, data: Mapping[str, Any] | None = None) -> None:
        super().__init__(data, initial=configs.values(draft), label_suffix="")
        self.draft = draft
        self.fields["model"].choices = _models(draft)  # type: ignore[attr-defined]

    @property
    def glossary(self) -> list[dict[str, str]]:
        """The rows to draw: those typed, else those of the draft, and a few empty ones."""
        rows = self._typed_glossary() if self.is_bound else list(self.draft.glossary)
        return [*rows, *({"term": "", "meaning": ""} for _ in range(SPARE_ROWS))]

    def save(self) -> bool:
        """Writes the draft; else the form has the sentences in its errors."""
        if not self.is_valid():
            return False
        seen = self.data.get("seen") or None
        changes = {**self.cleaned_data, "glossary": self._typed_glossary()}
        # Browsers send line ends as CRLF; the stored text has one form whoever wrote it.
        changes["instruction"] = changes["instruction"].replace("\r\n", "\n").strip()
        found = configs.save_draft(self.draft, changes, seen)
        for name, sentence in found.items():
            self.add_error(name if name in self.fields else None, sentence)
        return not found

    def _typed_glossary(self) -> list[dict[str, str]]:
        terms = self.data.getlist("term") if hasattr(self.data, "getlist") else []
        meanings = self.data.getlist("meaning") if hasattr(self.data, "getlist") else []
        pairs = zip(terms, meanings, strict=False)
        return configs.clean_glossary([{"term": t, "meaning": m} for t, m in pairs])


class SavedQueryForm(forms.Form):
    text = forms.CharField(
        max_length=MAX_QUERY_CHARACTERS,
        label="Query",
        error_messages={"required": "Type the query to save."},
    )

    def save_for(self, collection: Collection, user: AnyUser) -> SavedQuery | None:
        """The saved query (the same one if it was there); None, with an error, when it is full."""
        text = " ".join(self.cleaned_data["text"].split())
        existing = collection.saved_queries.filter(text=text).first()
        if existing is not None:
            return existing
        if collection.saved_queries.count() >= MAX_SAVED_QUERIES:
            self.add_error("text", f"Up to {MAX_SAVED_QUERIES} queries can be saved.")
            return None
        return SavedQuery.objects.create(
            collection=collection, text=text, created_by_id=user.pk if user else None
        )


def _models(draft: SearchConfig) -> list[tuple[str, str]]:
    configured = settings.RERANK_MODEL or "the built-in baseline"
    choices = {"default": f"As configured: {configured}", "untrained": "Untrained baseline"}
    if settings.RERANK_MODEL:
        choices[settings.RERANK_MODEL] = settings.RERANK_MODEL
    for checkpoint in Checkpoint.objects.filter(
        collection_id=draft.collection_id, state=CheckpointState.ACTIVE
    ):
        choices[checkpoint.model_name] = f"Checkpoint {checkpoint.pk}, trained here"
    choices.setdefault(draft.model, draft.model)
    return list(choices.items())
