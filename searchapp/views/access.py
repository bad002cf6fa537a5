"""Who may open a collection's pages, and what they may do there."""

from __future__ import annotations

from dataclasses import dataclass

from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest

from searchapp.models import Collection, Membership, Role


@dataclass(frozen=True)
class Access:
    """One user before one collection. `role` is None for a visitor of a public collection."""

    collection: Collection
    role: Role | None

    @property
    def may_edit(self) -> bool:
        return self.role in {Role.EDITOR, Role.OWNER}

    @property
    def owns(self) -> bool:
        return self.role == Role.OWNER

    @property
    def role_name(self) -> str:
        return self.role.label if self.role else "Visitor"


def opened(request: HttpRequest, slug: str, role: Role | None = None) -> Access:
    """The collection for this user. Raises Http404 when it is not visible to them, and
    PermissionDenied when it is but they hold less than `role`."""
    collection = (
        Collection.objects.visible_to(request.user)
        .select_related("active_config", "active_generation")
        .filter(slug=slug)
        .first()
    )
    if collection is None:
        raise Http404(f"no collection {slug}")
    access = Access(collection, _role_of(request, collection))
    if role is not None and not _holds(request, collection, role):
        raise PermissionDenied(f"{role.label} of {slug} needed")
    return access


def _holds(request: HttpRequest, collection: Collection, role: Role) -> bool:
    return Collection.objects.with_role(request.user, role).filter(pk=collection.pk).exists()


def _role_of(request: HttpRequest, collection: Collection) -> Role | None:
    user = request.user
    if not user.is_authenticated:
        return None
    if user.is_superuser:
        return Role.OWNER
    membership = Membership.objects.filter(collection=collection, user=user).first()
    return Role(membership.role) if membership else None


def whole(text: str) -> int:
    """The number of a form's hidden field; 0, which no row has, for anything else."""
    return int(text) if text.isdecimal() and len(text) < 19 else 0
