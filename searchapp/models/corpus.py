"""Collections, their members, documents and passages."""

from __future__ import annotations

import uuid
from typing import Any, Self

from django.conf import settings
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.contrib.postgres.indexes import GinIndex
from django.db import models, transaction
from django.db.models import Q
from django.db.models.functions import Collate
from django.utils import timezone
from django.utils.text import slugify

AnyUser = AbstractBaseUser | AnonymousUser | None
# On a user who acts by an API key of some collections only: the key's id.
ACTS_BY_KEY = "acts_by_api_key"

# Language code -> name; the codes are those `rerank.ranking.analysis` knows.
LANGUAGES = [
    ("en", "English"),
    ("da", "Danish"),
    ("de", "German"),
    ("es", "Spanish"),
    ("fi", "Finnish"),
    ("fr", "French"),
    ("it", "Italian"),
    ("ja", "Japanese"),
    ("ko", "Korean"),
    ("nl", "Dutch"),
    ("no", "Norwegian"),
    ("pt", "Portuguese"),
    ("ru", "Russian"),
    ("sv", "Swedish"),
    ("zh", "Chinese"),
    ("none", "Other (words as they are)"),
]


# A collection of this slug would have the address of the form that creates collections.
RESERVED_SLUGS = {"new"}


class Role(models.TextChoices):
    """What a member may do; each role includes the ones before it."""

    VIEWER = "viewer", "Viewer"  # search and read
    EDITOR = "editor", "Editor"  # also upload and delete documents
    OWNER = "owner", "Owner"  # also tune, share, delete the collection


_AT_LEAST = {
    Role.VIEWER: [Role.VIEWER, Role.EDITOR, Role.OWNER],
    Role.EDITOR: [Role.EDITOR, Role.OWNER],
    Role.OWNER: [Role.OWNER],
}


class CollectionQuerySet(models.QuerySet["Collection"]):
    """The only door to permissions: every route filters through `visible_to` or `with_role`."""

    def visible_to(self, user: AnyUser) -> Self:
        """Public collections and those the user is a member of; all of them for a superuser."""
        return self._where(user, Role.VIEWER, include_public=True)

    def with_role(self, user: AnyUser, role: Role) -> Self:
        """Collections where the user holds at least `role` by membership, or is a superuser."""
        return self._where(user, role, include_public=False)

    def create_with_owner(
        self, *, slug: str, name: str, user: AnyUser = None, **fields: Any
    ) -> Collection:
        """A new collection with its first config active and, if given, `user` as its owner."""
        from .configs import ConfigActivation, SearchConfig, first_dense_weight

        owner_id = user.pk if user is not None and user.is_authenticated else None
        with transaction.atomic():
            collection = self.create(slug=slug, name=name, created_by_id=owner_id, **fields)
            config = SearchConfig.objects.create(
                collection=collection,
                version=1,
                dense_weight=first_dense_weight(collection.language),
                created_by_id=owner_id,
                frozen_at=timezone.now(),
            )
            ConfigActivation.objects.create(
                collection=collection,
                config=config,
                activated_by_id=owner_id,
                reason="First version",
            )
            collection.active_config = config
            collection.save(update_fields=["active_config"])
            if owner_id is not None:
                Membership.objects.create(collection=collection, user_id=owner_id, role=Role.OWNER)
        return collection

    def _where(self, user: AnyUser, role: Role, *, include_public: bool) -> Self:
        public = Q(is_public=True) if include_public else Q(pk__in=[])
        if user is None or not user.is_authenticated or not user.is_active:
            return self.filter(public)
        rows = self._of_the_key(user)
        if getattr(user, "is_superuser", False):
            return rows
        member = Membership.objects.filter(user_id=user.pk, role__in=_AT_LEAST[role])
        return rows.filter(public | Q(pk__in=member.values("collection_id")))

    def _of_the_key(self, user: AnyUser) -> Self:
        key = getattr(user, ACTS_BY_KEY, None)
        if key is None:
            return self.all()
        return self.filter(pk__in=Collection.objects.filter(api_keys=key).values("pk"))


class Collection(models.Model):
    """A set of documents searched together."""

    slug = models.SlugField(max_length=64, unique=True)
    # What programs call it, where that is no slug; not unique, as two people may use one name.
    api_name = models.CharField(max_length=1024, blank=True, db_index=True, editable=False)
    name = models.CharField(max_length=200)
    description = models.TextField(blank=True)
    # Decides the analysis of text into terms, so a change needs a reindex.
    language = models.CharField(max_length=8, choices=LANGUAGES, default="en")
    is_public = models.BooleanField(default=False)
    suggested_queries = models.JSONField(default=list, blank=True)
    # Whether its reranker may be trained on what people searched for; the owner's to say.
    train_on_searches = models.BooleanField(default=False)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)
    active_config = models.ForeignKey(
        "SearchConfig", null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    active_generation = models.ForeignKey(
        "Generation", null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    members = models.ManyToManyField(settings.AUTH_USER_MODEL, through="Membership")

    objects = CollectionQuerySet.as_manager()

    class Meta:
        ordering = ["name", "id"]

    def __str__(self) -> str:
        return self.name


def free_slug(name: str) -> str:
    """A slug from the name that no collection has; with a number behind it where that is taken."""
    base = slugify(name)[:56].strip("-_") or "collection"
    taken = set(Collection.objects.filter(slug__startswith=base).values_list("slug", flat=True))
    taken |= RESERVED_SLUGS
    slug, number = base, 2
    while slug in taken:
        slug, number = f"{base}-{number}", number + 1
    return slug


class Membership(models.Model):
    """One user's role in one collection."""

    collection = models.ForeignKey(Collection, on_delete=models.CASCADE, related_name="memberships")
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="memberships"
    )
    role = models.CharField(max_length=8, choices=Role.choices, default=Role.VIEWER)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["collection", "user"], name="one_role_per_member")
        ]

    def __str__(self) -> str:
        return f"{self.user} is {self.role} of {self.collection}"


class DocumentStatus(models.TextChoices):
    """indexing -> ready. Text and postings exist from the first; vectors complete the second.

    A document that a program announced with a file is `received` until that is read; until then it
    holds nothing, or what its predecessor of the same path held.
    """

    RECEIVED = "received", "Waiting to be read"
    INDEXING = "indexing", "Indexing"
    READY = "ready", "Ready"
    FAILED = "failed", "Failed"


class DocumentQuerySet(models.QuerySet["Document"]):
    def visible_to(self, user: AnyUser) -> Self:
        return self.filter(collection__in=Collection.objects.visible_to(user))


class Document(models.Model):
    """One readable text with a path that is unique in its collection."""

    uid = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    collection = models.ForeignKey(Collection, on_delete=models.CASCADE, related_name="documents")
    upload = models.ForeignKey(
        "Upload", null=True, blank=True, on_delete=models.SET_NULL, related_name="documents"
    )
    path = models.CharField(max_length=1024)
    title = models.CharField(max_length=500, blank=True)
    # str -> str | list[str]
    metadata = models.JSONField(default=dict, blank=True)
    media_type = models.CharField(max_length=100, default="text/plain")
    size_bytes = models.BigIntegerField(default=0)
    page_count = models.PositiveIntegerField(null=True, blank=True)
    passage_count = models.PositiveIntegerField(default=0)
    status = models.CharField(
        max_length=10, choices=DocumentStatus.choices, default=DocumentStatus.INDEXING
    )
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    objects = DocumentQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["collection", "path"], name="one_document_per_path")
        ]
        indexes = [
            models.Index(fields=["collection", "media_type"]),
            # Lists by path are in the order of its bytes, whatever the database's language.
            models.Index("collection", Collate("path", "C"), name="document_path_bytes"),
            # What is not finished yet: asked after every batch of vectors.
            models.Index(
                fields=["upload", "id"],
                name="document_indexing",
                condition=Q(status="indexing"),
            ),
            GinIndex(fields=["metadata"], opclasses=["jsonb_path_ops"], name="document_metadata"),
        ]

    def __str__(self) -> str:
        return self.title or self.path


class DocumentText(models.Model):
    """The extracted text, apart from the document row so that lists of documents stay narrow."""

    document = models.OneToOneField(
        Document, primary_key=True, on_delete=models.CASCADE, related_name="content"
    )
    text = models.TextField()
    # Character offset at which each page starts; empty when the format has no pages.
    page_starts = models.JSONField(default=list)

    def __str__(self) -> str:
        return f"text of {self.document_id}"


class PassageQuerySet(models.QuerySet["Passage"]):
    def visible_to(self, user: AnyUser) -> Self:
        return self.filter(collection__in=Collection.objects.visible_to(user))


class Passage(models.Model):
    """The unit that is indexed and ranked: text[start:end] of its document."""

    collection = models.ForeignKey(Collection, on_delete=models.CASCADE, related_name="passages")
    document = models.ForeignKey(Document, on_delete=models.CASCADE, related_name="passages")
    ordinal = models.PositiveIntegerField()
    text = models.TextField()
    start = models.PositiveIntegerField()
    end = models.PositiveIntegerField()
    # 1-based, both inclusive; null when the format has no pages.
    page_first = models.PositiveIntegerField(null=True, blank=True)
    page_last = models.PositiveIntegerField(null=True, blank=True)
    # Headings from the top down, outermost first.
    heading_path = models.JSONField(default=list, blank=True)

    objects = PassageQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["document", "ordinal"], name="passage_order"),
            models.CheckConstraint(condition=Q(end__gte=models.F("start")), name="passage_span"),
        ]

    def __str__(self) -> str:
        return f"passage {self.ordinal} of document {self.document_id}"

    @property
    def indexed_text(self) -> str:
        """What is analysed, embedded and reranked: the title and headings, then the text."""
        return compose_indexed_text(self.document.title, self.heading_path, self.text)


def compose_indexed_text(title: str, heading_path: list[Any], text: str) -> str:
    """Title and headings on a first line (repeats dropped), then the passage text."""
    parts: list[str] = []
    for part in [title, *heading_path]:
        cleaned = str(part).strip()
        if cleaned and cleaned not in parts:
            parts.append(cleaned)
    return f"{' › '.join(parts)}\n{text}" if parts else text
