"""Who may do what in a collection. A collection with members never loses its last owner."""

from __future__ import annotations

from django.contrib import messages
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from searchapp.forms.collections import MemberForm, RoleForm
from searchapp.models import Collection, Membership, Role

from .access import opened, whole


@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
def members(request: HttpRequest, slug: str) -> HttpResponse:
    """The table of members; adds one, changes a role, removes one."""
    access = opened(request, slug, Role.OWNER)
    form = MemberForm()
    if request.method == "POST":
        if "member" in request.POST:
            _change(request, access.collection)
            return _onwards(request, slug)
        form = MemberForm(request.POST)
        if form.is_valid():
            _add(request, access.collection, form)
            return redirect("collection_members", slug)
    rows = access.collection.memberships.select_related("user").order_by("user__username")
    context = {
        "access": access,
        "collection": access.collection,
        "form": form,
        "memberships": rows,
        "roles": Role.choices,
        "tab": "members",
    }
    status = 422 if form.is_bound else 200
    return render(request, "collections/members.html", context, status=status)


def _add(request: HttpRequest, collection: Collection, form: MemberForm) -> None:
    user, role = form.cleaned_data["username"], Role(form.cleaned_data["role"])
    membership, created = Membership.objects.get_or_create(
        collection=collection, user=user, defaults={"role": role}
    )
    if created:
        messages.success(request, f"{user.get_username()} is now {role.label.lower()}.")
        return
    _say(request, set_role(membership, role), f"{user.get_username()} is now {role.label.lower()}.")


def _change(request: HttpRequest, collection: Collection) -> None:
    """One row of the table: `member` with either `remove` or a `role`."""
    membership = get_object_or_404(
        collection.memberships.select_related("user"), pk=whole(request.POST["member"])
    )
    name = membership.user.get_username()
    if "remove" in request.POST:
        _say(request, remove(membership), f"{name} is no member any more.")
        return
    form = RoleForm(request.POST)
    if form.is_valid():
        role = Role(form.cleaned_data["role"])
        _say(request, set_role(membership, role), f"{name} is now {role.label.lower()}.")
    else:
        messages.error(request, "Choose one of the roles.")


def set_role(membership: Membership, role: Role) -> str:
    """Gives the member another role. Returns why not, or ""."""
    with transaction.atomic():
        owners = _owners_locked(membership.collection_id)
        if role != Role.OWNER and owners == {membership.pk}:
            return _last_owner(membership)
        Membership.objects.filter(pk=membership.pk).update(role=role)
    return ""


def remove(membership: Membership) -> str:
    """Ends the membership. Returns why not, or ""."""
    with transaction.atomic():
        if _owners_locked(membership.collection_id) == {membership.pk}:
            return _last_owner(membership)
        Membership.objects.filter(pk=membership.pk).delete()
    return ""


def _owners_locked(collection_id: int) -> set[int]:
    # The collection's row is the lock: two owners who step down at once would both see the other.
    Collection.objects.select_for_update(of=("self",)).get(pk=collection_id)
    owners = Membership.objects.filter(collection_id=collection_id, role=Role.OWNER)
    return set(owners.values_list("pk", flat=True))


def _last_owner(membership: Membership) -> str:
    return (
        f"{membership.user.get_username()} is the last owner. "
        "Make another member owner first, or delete the collection."
    )


def _say(request: HttpRequest, problem: str, success: str) -> None:
    if problem:
        messages.error(request, problem)
    else:
        messages.success(request, success)


def _onwards(request: HttpRequest, slug: str) -> HttpResponse:
    """Owners who just gave up their own role cannot see this page any more."""
    for name, role in [("collection_members", Role.OWNER), ("collection", Role.VIEWER)]:
        collections = Collection.objects
        allowed = (
            collections.with_role(request.user, role)
            if role == Role.OWNER
            else collections.visible_to(request.user)
        )
        if allowed.filter(slug=slug).exists():
            return redirect(name, slug)
    return redirect("collections")
