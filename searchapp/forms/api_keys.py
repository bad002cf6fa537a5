"""The form that makes an API key."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django import forms
from django.utils import timezone

from searchapp.models import ApiKey, Collection, Scope
from searchapp.models.corpus import AnyUser

# Limits are per key: whoever could make any number of keys would have none.
MAX_KEYS = 50
LIFETIMES = [("30", "30 days"), ("90", "90 days"), ("365", "A year"), ("", "Until it is revoked")]
REACHES = [
    ("every", "Every collection I may use, now or later"),
    ("named", "Only those ticked here"),
]


class ApiKeyForm(forms.Form):
    """A key of `owner`, for what they may use themselves."""

    name = forms.CharField(
        max_length=100,
        label="Name",
        help_text="Which program uses it, so that you know later what a revocation stops.",
        error_messages={"required": "Give the key a name."},
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
    )
    scopes = forms.MultipleChoiceField(
        choices=Scope.choices,
        initial=[Scope.SEARCH],
        label="It may",
        error_messages={"required": "Tick at least one thing the key may do."},
        widget=forms.CheckboxSelectMultiple,
    )
    reach = forms.ChoiceField(
        choices=REACHES, initial="every", label="In", widget=forms.RadioSelect
    )
    collections = forms.ModelMultipleChoiceField(
        queryset=Collection.objects.none(),
        required=False,
        label="Collections",
        error_messages={"invalid_choice": "One of these collections is not there any more."},
        widget=forms.CheckboxSelectMultiple,
    )
    lifetime = forms.ChoiceField(choices=LIFETIMES, initial="90", required=False, label="Valid for")

    def __init__(self, owner: AnyUser, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"label_suffix": "", **kwargs})
        self.owner = owner
        self.fields["collections"].queryset = Collection.objects.visible_to(owner)  # type: ignore[attr-defined]

    def clean_name(self) -> str:
        name = " ".join(str(self.cleaned_data["name"]).split())
        if ApiKey.objects.owned_by(self.owner).filter(name=name, revoked_at=None).exists():
            raise forms.ValidationError(
                "You have a key of this name. Choose another name, or revoke that key first."
            )
        return name

    def clean(self) -> dict[str, Any]:
        values = super().clean() or self.cleaned_data
        if ApiKey.objects.owned_by(self.owner).working().count() >= MAX_KEYS:
            raise forms.ValidationError(f"You have {MAX_KEYS} keys in use. Revoke one first.")
        named = values.get("reach") == "named"
        if named and not values.get("collections") and "collections" not in self.errors:
            self.add_error("collections", "Tick at least one collection, or choose every one.")
        # Both may have been meant; the wider of the two is not ours to choose.
        if not named and values.get("collections"):
            self.add_error("reach", "Some collections are ticked below. Only those, or every one?")
        return values

    def expires_at(self) -> datetime | None:
        days = self.cleaned_data["lifetime"]
        return timezone.now() + timedelta(days=int(days)) if days else None

    def made(self) -> tuple[ApiKey, str]:
        """The new key and its plain text. Raises IntegrityError when another of the same name was
        made in the same moment."""
        assert self.owner is not None
        values = self.cleaned_data
        return ApiKey.objects.create_with_plain(
            owner=self.owner,  # type: ignore[arg-type]  # signed in: the view asks for it
            name=values["name"],
            scopes=values["scopes"],
            collections=values["collections"] if values["reach"] == "named" else None,
            expires_at=self.expires_at(),
        )
