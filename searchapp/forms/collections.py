"""Forms of a collection: its settings, its members, its deletion."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractBaseUser

from searchapp.models import Collection, Role
from searchapp.models.corpus import free_slug

MAX_SUGGESTED_QUERIES = 12
MAX_SUGGESTED_CHARACTERS = 200


class LinesField(forms.CharField):
    """A list of texts, one per line; empty lines and repeats are dropped."""

    widget = forms.Textarea(attrs={"rows": 5})

    def prepare_value(self, value: Any) -> Any:
        return "\n".join(value) if isinstance(value, list) else value

    def clean(self, value: Any) -> list[str]:
        lines = [" ".join(line.split()) for line in (super().clean(value) or "").splitlines()]
        lines = list(dict.fromkeys(line for line in lines if line))
        if len(lines) > MAX_SUGGESTED_QUERIES:
            raise forms.ValidationError(
                f"These are {len(lines)} queries; up to {MAX_SUGGESTED_QUERIES} are shown."
            )
        if any(len(line) > MAX_SUGGESTED_CHARACTERS for line in lines):
            raise forms.ValidationError(
                f"A suggested query may have up to {MAX_SUGGESTED_CHARACTERS} characters."
            )
        return lines


class CollectionForm(forms.ModelForm):  # type: ignore[type-arg]  # not subscriptable when run
    """The settings an owner edits. The slug is made once, from the name, and stays."""

    suggested_queries = LinesField(
        required=False,
        label="Suggested queries",
        help_text="One per line. They invite people who do not know yet what is here.",
    )

    class Meta:
        model = Collection
        fields = [
            "name",
            "description",
            "language",
            "is_public",
            "train_on_searches",
            "suggested_queries",
        ]
        widgets = {"description": forms.Textarea(attrs={"rows": 3})}
        labels = {
            "is_public": "Public: everybody may search and read it, also without an account",
            "train_on_searches": "Its reranker may learn from what people searched for",
        }
        help_texts = {
            "description": "A sentence or two: what is in here, and for whom.",
            "language": "Decides how words are matched, so it is fixed once there are documents.",
            "train_on_searches": "Only the queries, without who asked them. Tell people so.",
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"label_suffix": "", **kwargs})
        if self.instance.pk and self.instance.documents.exists():
            self.fields["language"].disabled = True
            self.fields["language"].help_text = (
                "Fixed: the documents are indexed by the words of this language. "
                "For another one, create a new collection."
            )

    def clean_name(self) -> str:
        name = " ".join(str(self.cleaned_data["name"]).split())
        if not name:
            raise forms.ValidationError("Give the collection a name.")
        return name


class NewCollectionForm(CollectionForm):
    """A collection's first values; `slug` is then one that is free."""

    class Meta(CollectionForm.Meta):
        fields = ["name", "description", "language", "is_public"]

    suggested_queries = None  # type: ignore[assignment]  # how Django drops an inherited field

    def free_slug(self) -> str:
        return free_slug(self.cleaned_data["name"])


class MemberForm(forms.Form):
    """Adds an account by its name, or changes the role it has."""

    username = forms.CharField(
        max_length=150,
        label="User name",
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
    )
    role = forms.ChoiceField(choices=Role.choices, initial=Role.VIEWER)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"label_suffix": "", **kwargs})

    def clean_username(self) -> AbstractBaseUser:
        name = self.cleaned_data["username"].strip()
        user = get_user_model()._default_manager.filter(username=name, is_active=True).first()
        if user is None:
            raise forms.ValidationError(
                f"There is no account named “{name}”. An administrator can create it."
            )
        return user


class RoleForm(forms.Form):
    role = forms.ChoiceField(choices=Role.choices)


class DeleteCollectionForm(forms.Form):
    """Deletion is confirmed by typing the slug."""

    slug = forms.CharField(
        label="Slug of the collection",
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
    )

    def __init__(self, collection: Collection, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.collection = collection

    def clean_slug(self) -> str:
        if self.cleaned_data["slug"].strip() != self.collection.slug:
            raise forms.ValidationError(f"Type {self.collection.slug} to confirm.")
        return self.collection.slug
