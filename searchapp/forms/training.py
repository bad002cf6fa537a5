"""What to train, as a form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django import forms

from rerank.inference.models import UNTRAINED
from searchapp.models import Collection
from searchapp.training.asked import (
    DEFAULT_EPOCHS,
    DEFAULT_LOSS,
    LOSSES,
    METHODS,
    MOST_EPOCHS,
    Asked,
    offered_bases,
)


class TrainingForm(forms.Form):
    """`asked()` is what was typed, once it is valid."""

    base = forms.ChoiceField(
        required=False,
        initial=UNTRAINED,
        label="Start from",
        help_text="Its weights are copied, not changed.",
    )
    epochs = forms.IntegerField(
        min_value=1,
        max_value=MOST_EPOCHS,
        initial=DEFAULT_EPOCHS,
        label="Epochs",
        help_text="How often each judged query is gone through.",
    )
    unjudged = forms.BooleanField(
        required=False,
        label="Count hits without a judgment as not relevant",
        help_text="Right where the judgments name every relevant document, as evaluation sets do. "
        "Else only judged documents count.",
    )
    searches = forms.BooleanField(
        required=False,
        label="Learn from logged searches too",
        help_text="A second model learns from the judgments to compare documents, and judges what "
        "people searched for. Takes several times as long.",
    )
    method = forms.ChoiceField(
        choices=METHODS, initial="full", required=False, label="What is trained"
    )
    loss = forms.ChoiceField(choices=LOSSES, initial=DEFAULT_LOSS, required=False, label="Loss")
    rate = forms.FloatField(
        min_value=0,
        max_value=0.999,
        required=False,
        label="Learning rate",
        help_text="Empty: the usual one.",
        widget=forms.NumberInput(attrs={"step": "any"}),
    )
    seed = forms.IntegerField(
        min_value=0,
        max_value=2**31 - 1,
        initial=0,
        required=False,
        label="Seed",
        help_text="Another one gives another training of equal right.",
    )

    def __init__(self, collection: Collection, data: Mapping[str, Any] | None = None) -> None:
        super().__init__(data, label_suffix="")
        self.fields["base"].choices = list(offered_bases(collection).items())  # type: ignore[attr-defined]
        if not collection.train_on_searches:
            self.fields["searches"].disabled = True

    @property
    def has_error_below(self) -> bool:
        """Whether one of the fields that are folded away is wrong."""
        return bool({"method", "loss", "rate", "seed"} & set(self.errors))

    def asked(self) -> Asked:
        typed = self.cleaned_data
        return Asked(
            base=typed["base"],
            method=typed["method"] or "full",
            loss=typed["loss"] or DEFAULT_LOSS,
            epochs=typed["epochs"],
            seed=typed["seed"] or 0,
            rate=typed["rate"] or 0.0,
            unjudged=typed["unjudged"],
            searches=typed["searches"],
        )
