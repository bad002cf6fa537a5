"""One user of each kind around one collection, for tests of who may open what."""

from __future__ import annotations

from dataclasses import dataclass

from django.contrib.auth.models import User
from django.test import Client

from searchapp.models import Collection, Membership, Role

KINDS = ["anonymous", "stranger", "viewer", "editor", "owner", "superuser"]


@dataclass(frozen=True)
class People:
    """`users[kind]` for each of KINDS but anonymous."""

    users: dict[str, User]

    def client(self, kind: str, *, enforce_csrf_checks: bool = False) -> Client:
        client = Client(enforce_csrf_checks=enforce_csrf_checks)
        if kind != "anonymous":
            client.force_login(self.users[kind])
        return client


def make_people(collection: Collection) -> People:
    users = {kind: User.objects.create_user(kind) for kind in KINDS[1:-1]}
    users["superuser"] = User.objects.create_superuser("superuser")
    for role in Role:
        Membership.objects.create(collection=collection, user=users[role.value], role=role)
    return People(users)
