"""Keys that programs show instead of a session, and what was asked with them."""

from __future__ import annotations

import functools
import hashlib
import re
import secrets
from collections.abc import Iterable
from datetime import datetime
from typing import Any, Self, cast

from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractBaseUser
from django.contrib.postgres.fields import ArrayField
from django.db import connections, models, transaction
from django.db.models import Q
from django.utils import timezone

from .corpus import ACTS_BY_KEY, AnyUser, Collection, Role
from .rows import from_row, width

# What a key looks like: the name of the product, so that leak scanners and our own logs can tell
# it, and 256 random bits.
KEY_FORMAT = re.compile(r"podium_[A-Za-z0-9_-]{43}")
SHOWN_CHARACTERS = 13


class Scope(models.TextChoices):
    """What a key may be used for. Each also needs the owner's own right in the collection."""

    SEARCH = "search", "Search and rerank"
    INGEST = "ingest", "Add, change and delete documents"
    JUDGE = "judge", "Judge results"
    ADMIN = "admin", "Create, change and delete collections"


# The role the owner must hold in a collection for the scope; None: seeing it is enough.
ROLE_OF_SCOPE: dict[Scope, Role | None] = {
    Scope.SEARCH: None,
    Scope.INGEST: Role.EDITOR,
    Scope.JUDGE: Role.EDITOR,
    Scope.ADMIN: Role.OWNER,
}


@functools.cache
def _sql_of_digest() -> str:
    rows = ApiKey.objects.select_related("owner").filter(digest="").order_by()
    return rows.query.sql_with_params()[0]


def digest(plain: str) -> str:
    """SHA-256 of a key, in hex: 64 characters.

    One fast hash, no salt: slow hashes protect what people choose, because that can be guessed.
    256 random bits cannot, at any speed, and every call of an API pays for the hash. Looked up
    by its digest, a key is never compared character by character either: whoever measures times
    learns about digests, which they cannot aim.
    """
    return hashlib.sha256(plain.encode()).hexdigest()


class ApiKeyQuerySet(models.QuerySet["ApiKey"]):
    def create_with_plain(
        self,
        *,
        owner: AbstractBaseUser,
        name: str,
        scopes: Iterable[str],
        collections: Iterable[Collection] | None = None,
        expires_at: datetime | None = None,
    ) -> tuple[ApiKey, str]:
        """A new key and its plain text, which exists nowhere else. `collections` None: every
        one the owner may use, now or later."""
        # In the order of Scope, each once, so that equal keys read equally.
        wanted = set(scopes)
        key = self.model(
            owner_id=owner.pk,
            name=name,
            scopes=[scope for scope in Scope.values if scope in wanted],
            every_collection=collections is None,
            expires_at=expires_at,
        )
        plain = key.renew()
        with transaction.atomic():
            key.save(using=self.db, force_insert=True)
            if collections is not None:
                key.collections.set(collections)
        return key, plain

    def of_digest(self, wanted: str) -> ApiKey | None:
        """The key with its owner. Every call of an API asks this, so its SQL is composed once:
        composing it takes several times as long as running it."""
        with connections[self.db].cursor() as cursor:
            cursor.execute(_sql_of_digest(), [wanted])
            row = cursor.fetchone()
        if row is None:
            return None
        key = from_row(ApiKey, self.db, row)
        key.owner = from_row(get_user_model(), self.db, row[width(ApiKey) :])
        return key

    def working(self) -> Self:
        """Neither revoked nor expired, of an owner whose account is active."""
        not_expired = Q(expires_at=None) | Q(expires_at__gt=timezone.now())
        return self.filter(not_expired, revoked_at=None, owner__is_active=True)

    def owned_by(self, user: AnyUser) -> Self:
        """One's own keys only, for superusers too: the administration shows them the others."""
        return self.filter(owner_id=user.pk if user is not None and user.is_authenticated else None)

    def revoke(self) -> int:
        """Ends them at once and for good; how many were still standing."""
        return self.filter(revoked_at=None).update(revoked_at=timezone.now())


class ApiKey(models.Model):
    """One key of one owner: what it may do, where, and until when. The key itself is not kept."""

    name = models.CharField(max_length=100)
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="api_keys"
    )
    # The first characters, for people who look for the key they have in hand.
    prefix = models.CharField(max_length=16, editable=False)
    digest = models.CharField(max_length=64, unique=True, editable=False)
    scopes = ArrayField(models.CharField(max_length=8, choices=Scope.choices))
    # A field of its own: a key whose last collection is deleted must not become one for all.
    every_collection = models.BooleanField(default=True)
    collections = models.ManyToManyField(Collection, blank=True, related_name="api_keys")
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(null=True, blank=True)
    # Written at most once a minute.
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False)
    revoked_at = models.DateTimeField(null=True, blank=True, editable=False)

    objects = ApiKeyQuerySet.as_manager()

    class Meta:
        ordering = ["-id"]
        verbose_name = "API key"
        constraints = [
            models.CheckConstraint(
                condition=Q(scopes__contained_by=list(Scope.values)) & Q(scopes__len__gte=1),
                name="api_key_scopes",
            ),
            # A form sent twice makes one key.
            models.UniqueConstraint(
                fields=["owner", "name"],
                condition=Q(revoked_at=None),
                name="one_standing_api_key_per_name",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}…)"

    @property
    def is_expired(self) -> bool:
        return self.expires_at is not None and self.expires_at <= timezone.now()

    @property
    def is_standing(self) -> bool:
        return self.revoked_at is None and not self.is_expired

    @property
    def scope_labels(self) -> list[str]:
        return [Scope(scope).label for scope in self.scopes]

    def renew(self) -> str:
        """Gives this row, not saved yet, a key, and returns its plain text."""
        plain = f"podium_{secrets.token_urlsafe(32)}"
        self.prefix, self.digest = plain[:SHOWN_CHARACTERS], digest(plain)
        return plain

    def holder(self) -> AbstractBaseUser:
        """The owner as this key lets them act: CollectionQuerySet narrows all they may see or do
        to the key's collections."""
        owner = cast(AbstractBaseUser, self.owner)
        if not self.every_collection:
            vars(owner)[ACTS_BY_KEY] = self.pk
        return owner


class Family(models.TextChoices):
    """The endpoints whose use is counted together."""

    RERANK = "rerank", "Rerank"
    EMBED = "embed", "Embed"
    SEARCH = "search", "Search"
    DOCUMENTS = "documents", "Documents"
    COLLECTIONS = "collections", "Collections"
    JUDGMENTS = "judgments", "Judgments"


class ApiUsageQuerySet(models.QuerySet["ApiUsage"]):
    def of_keys_of(self, user: AnyUser) -> Self:
        return self.filter(key__in=ApiKey.objects.owned_by(user))

    def totals(self) -> dict[str, Any]:
        """{calls, refused, pairs, bytes, tokens}, each 0 where nothing was asked."""
        sums = {
            name: models.Sum(name, default=0)
            for name in ("calls", "refused", "pairs", "bytes", "tokens")
        }
        return self.aggregate(**sums)


class ApiUsage(models.Model):
    """What one key asked of one family of endpoints within one hour (UTC)."""

    key = models.ForeignKey(ApiKey, on_delete=models.CASCADE, related_name="usage")
    hour = models.DateTimeField()
    family = models.CharField(max_length=16, choices=Family.choices)
    # All calls, the refused ones among them.
    calls = models.BigIntegerField(default=0)
    refused = models.BigIntegerField(default=0)
    pairs = models.BigIntegerField(default=0)
    bytes = models.BigIntegerField(default=0)
    tokens = models.BigIntegerField(default=0)

    objects = ApiUsageQuerySet.as_manager()

    class Meta:
        ordering = ["-hour", "family"]
        verbose_name = "API usage"
        verbose_name_plural = "API usage"
        constraints = [
            models.UniqueConstraint(fields=["key", "hour", "family"], name="one_api_usage_per_hour")
        ]

    def __str__(self) -> str:
        return f"{self.family} by key {self.key_id} at {self.hour:%Y-%m-%d %H:00}"
