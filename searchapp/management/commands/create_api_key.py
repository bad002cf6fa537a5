"""`manage.py create_api_key --name N --scopes search,ingest`: a key on the last line printed."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError
from datetime import timedelta
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractBaseUser
from django.core.management.base import CommandError
from django.db import IntegrityError
from django.utils import timezone

from searchapp.management.prepared import PreparedCommand
from searchapp.models import ApiKey, Collection, Membership, Scope


class Command(PreparedCommand):
    help = (
        "Creates an API key and prints it on the last line, once: only its hash is kept. "
        "The key may do what its scopes and its owner's own rights both allow."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--name", required=True, help="which program uses it")
        parser.add_argument(
            "--scopes", required=True, type=_scopes, metavar=",".join(Scope.values),
            help="what it may do, separated by commas",
        )  # fmt: skip
        parser.add_argument(
            "--collections", type=_names, metavar="NAME,…",
            help="where, by the collection's address or its name in the API; without it, wherever "
            "the owner may",
        )  # fmt: skip
        parser.add_argument("--expires", type=_days, metavar="DAYS", help="without it: never")
        parser.add_argument("--user", metavar="NAME", help="the owner; else the administrator")

    def handle(self, *args: Any, **options: Any) -> None:
        owner = _owner(options["user"])
        name = " ".join(options["name"].split())
        if not 0 < len(name) <= 100:
            raise CommandError("A key's name has 1 to 100 characters.")
        days = options["expires"]
        try:
            key, plain = ApiKey.objects.create_with_plain(
                owner=owner,
                name=name,
                scopes=options["scopes"],
                collections=_collections(options["collections"], owner),
                expires_at=timezone.now() + timedelta(days=days) if days else None,
            )
        except IntegrityError as error:
            raise CommandError(
                f"{owner.get_username()} has a key named {name!r} already. Choose another name, "
                "or revoke that key first."
            ) from error
        where = ", ".join(options["collections"] or ["every collection the owner may use"])
        until = f"until {key.expires_at:%Y-%m-%d %H:%M} UTC" if key.expires_at else "until revoked"
        self.stdout.write(f"{name}, key of {owner.get_username()}: {', '.join(key.scopes)}")
        self.stdout.write(f"in {where}, {until}. Shown this once:")
        self.stdout.write(plain)


def _scopes(raw: str) -> list[str]:
    scopes = _names(raw)
    unknown = [scope for scope in scopes if scope not in Scope.values]
    if unknown or not scopes:
        raise ArgumentTypeError(
            f"{(unknown or [raw])[0]!r} is no scope; there are {', '.join(Scope.values)}"
        )
    return scopes


def _names(raw: str) -> list[str]:
    return [part.strip() for part in raw.split(",") if part.strip()]


def _days(raw: str) -> int:
    # A century: datetimes end somewhere.
    if not raw.isdecimal() or not 1 <= int(raw) <= 36_500:
        raise ArgumentTypeError(f"{raw} is not a number of days from 1 to 36500")
    return int(raw)


def _owner(name: str | None) -> AbstractBaseUser:
    users = get_user_model()._default_manager.filter(is_active=True)
    if name is not None:
        found = users.filter(username=name).first()
        if found is None:
            raise CommandError(f"There is no active account named {name!r}.")
        return found
    administrators = list(users.filter(is_superuser=True).order_by("pk")[:2])
    if len(administrators) != 1:
        count = "several administrators" if administrators else "no administrator"
        raise CommandError(f"There are {count}: name the key's owner with --user NAME.")
    return administrators[0]


def _collections(names: list[str] | None, owner: AbstractBaseUser) -> list[Collection] | None:
    """By slug, else by what programs call them: the owner's own before a public one."""
    if names is None:
        return None
    rows = list(Collection.objects.visible_to(owner).order_by("-pk"))
    own = set(Membership.objects.filter(user_id=owner.pk).values_list("collection_id", flat=True))
    rows.sort(key=lambda each: each.pk in own)
    found = {each.api_name: each for each in rows} | {each.slug: each for each in rows}
    missing = [name for name in names if name not in found]
    if missing or not names:
        raise CommandError(
            f"There is no collection {missing[0]!r}, or not for {owner.get_username()}."
            if missing
            else "--collections names none; leave it out for every one."
        )
    return [found[name] for name in names]
