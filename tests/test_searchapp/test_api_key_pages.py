"""Making, seeing once and revoking keys: on one's page, in the administration and in a shell."""

from __future__ import annotations

import io
import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.contrib.sessions.models import Session
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from searchapp.api import usage
from searchapp.api.usage import Meter
from searchapp.models import ApiKey, ApiUsage, Collection, Family, Scope
from tests.callers import caller, make_key
from tests.shelves import make_collection

pytestmark = pytest.mark.django_db
URL = "/accounts/api-keys/"
KEY = re.compile(r"podium_[A-Za-z0-9_-]{43}")


@pytest.fixture
def olive() -> User:
    return User.objects.create_user("olive")


@pytest.fixture
def client(olive: User) -> Client:
    client = Client()
    client.force_login(olive)
    return client


def form(**values: Any) -> dict[str, Any]:
    return {"name": "shop", "scopes": ["search"], "reach": "every", "lifetime": "90", **values}


def test_a_key_is_shown_by_the_answer_that_makes_it_and_never_again(client: Client) -> None:
    response = client.post(URL, form(scopes=["search", "ingest"]))
    assert response.status_code == 200
    assert "no-store" in response.headers["cache-control"]
    [plain] = KEY.findall(response.content.decode())
    key = ApiKey.objects.get()
    assert key.scopes == ["search", "ingest"]
    assert key.every_collection
    assert timedelta(days=89) < key.expires_at - timezone.now() <= timedelta(days=90)
    assert caller(plain).key == key
    again = client.get(URL).content.decode()
    assert key.prefix in again
    assert not KEY.findall(again)
    assert not any(plain in str(session.get_decoded()) for session in Session.objects.all())
    assert not any("podium_" in name for name in client.cookies)


def test_a_key_for_named_collections_is_for_those_alone(client: Client, olive: User) -> None:
    own = make_collection("own", user=olive, is_public=False)
    make_collection("public")
    client.post(URL, form(reach="named", collections=[own.pk], lifetime=""))
    key = ApiKey.objects.get()
    assert not key.every_collection
    assert list(key.collections.all()) == [own]
    assert key.expires_at is None


def test_a_foreign_collection_cannot_be_named(client: Client) -> None:
    foreign = make_collection("foreign", is_public=False)
    assert "foreign" not in client.get(URL).content.decode().lower()
    response = client.post(URL, form(reach="named", collections=[foreign.pk]))
    assert response.status_code == 422
    assert not ApiKey.objects.exists()


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"name": "  "}, "Give the key a name."),
        ({"name": "x" * 101}, "at most 100 characters"),
        ({"scopes": []}, "Tick at least one thing"),
        ({"scopes": ["root"]}, "root is not one of the available choices"),
        ({"reach": "named"}, "Tick at least one collection"),
        ({"reach": "every", "collections": "own"}, "Only those, or every one?"),
        ({"lifetime": "9999999"}, "9999999 is not one of the available choices"),
        ({"name": "taken"}, "You have a key of this name"),
    ],
)
def test_a_wrong_form_makes_no_key_and_says_why(
    client: Client, olive: User, wrong: dict[str, Any], sentence: str
) -> None:
    own = make_collection("own", user=olive)
    make_key(olive, name="taken")
    if wrong.get("collections") == "own":
        wrong = {**wrong, "collections": [own.pk]}
    response = client.post(URL, form(**wrong))
    assert response.status_code == 422
    assert sentence in response.content.decode()
    assert ApiKey.objects.count() == 1


def test_a_form_sent_twice_makes_one_key(client: Client) -> None:
    client.post(URL, form())
    assert client.post(URL, form()).status_code == 422
    assert ApiKey.objects.count() == 1


def test_a_person_has_a_bounded_number_of_keys(
    client: Client, olive: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("searchapp.forms.api_keys.MAX_KEYS", 2)
    make_key(olive)
    last, _ = make_key(olive)
    assert "You have 2 keys in use" in client.post(URL, form()).content.decode()
    client.post(URL, {"revoke": last.pk})
    assert client.post(URL, form()).status_code == 200


def test_revoking_frees_the_name(client: Client, olive: User) -> None:
    key, _ = make_key(olive, name="shop")
    response = client.post(URL, {"revoke": key.pk}, follow=True)
    assert "shop is revoked" in response.content.decode()
    key.refresh_from_db()
    assert key.revoked_at is not None
    assert client.post(URL, form()).status_code == 200
    assert "1 revoked or expired" in client.get(URL).content.decode()


def test_nobody_sees_or_revokes_the_keys_of_others_here(client: Client) -> None:
    stranger = User.objects.create_superuser("root")
    key, _ = make_key(stranger, name="theirs")
    usage.record(key, Family.RERANK, Meter(pairs=1), refused=False)
    assert "theirs" not in client.get(URL).content.decode()
    assert "theirs" not in client.get(f"{URL}usage/").content.decode()
    for pk in (key.pk, 0, "x", "9" * 40):
        assert client.post(URL, {"revoke": pk}).status_code == 404
    key.refresh_from_db()
    assert key.revoked_at is None


def test_the_pages_ask_for_a_session_and_a_token(olive: User) -> None:
    for path in (URL, f"{URL}usage/"):
        assert Client().get(path).status_code == 302
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(olive)
    assert strict.post(URL, form()).status_code == 403
    assert not ApiKey.objects.exists()


def test_the_usage_page_adds_up(client: Client, olive: User) -> None:
    now = timezone.now().replace(minute=0, second=0, microsecond=0)
    first, second = make_key(olive, name="shop")[0], make_key(olive, name="site")[0]
    rows = [
        (first, now, "rerank", 10, 2, 400, 1000, 7000),
        (first, now - timedelta(days=2), "rerank", 5, 0, 200, 500, 3000),
        (second, now - timedelta(days=2), "search", 3, 1, 0, 0, 0),
        (second, now - timedelta(days=20), "search", 100, 0, 0, 0, 0),
    ]
    for key, hour, family, calls, refused, pairs, size, tokens in rows:
        ApiUsage.objects.create(
            key=key, hour=hour, family=family, calls=calls, refused=refused, pairs=pairs,
            bytes=size, tokens=tokens,
        )  # fmt: skip
    for days, calls, refused, rows_shown in ((1, 10, 2, 1), (7, 18, 3, 2), (30, 118, 3, 2)):
        report = usage.report(olive, days)
        assert (report.total["calls"], report.total["refused"]) == (calls, refused)
        assert len(report.rows) == rows_shown
        assert sum(row["calls"] for row in report.rows) == calls
        assert sum(bar.calls for bar in report.bars) == calls
        assert len(report.bars) == (24 if days == 1 else days)
        page = client.get(f"{URL}usage/?days={days}")
        assert page.status_code == 200
        assert f"<dd>{calls}</dd>" in page.content.decode()
    assert client.get(f"{URL}usage/?days=nonsense").context["report"].days == 7


def test_the_usage_page_without_calls(client: Client) -> None:
    assert "Nothing was asked" in client.get(f"{URL}usage/").content.decode()


# --- the administration ------------------------------------------------------------------------


@pytest.fixture
def root(db: None) -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("root"))
    return client


def new_key(owner: User, **values: Any) -> dict[str, Any]:
    return {
        "owner": owner.pk,
        "name": "robot",
        "scopes": ["search", "judge"],
        "every_collection": "on",
        "expires_at_0": "",
        "expires_at_1": "",
        **values,
    }


def test_the_administration_makes_a_key_and_shows_it_once(root: Client, olive: User) -> None:
    response = root.post(reverse("admin:searchapp_apikey_add"), new_key(olive))
    [plain] = KEY.findall(response.content.decode())
    assert "no-store" in response.headers["cache-control"]
    key = ApiKey.objects.get()
    assert (key.owner, key.scopes) == (olive, ["search", "judge"])
    assert caller(plain).user == olive
    for page in ("changelist", "change"):
        arguments = [key.pk] if page == "change" else []
        shown = root.get(reverse(f"admin:searchapp_apikey_{page}", args=arguments)).content.decode()
        assert plain not in shown
        assert key.digest not in shown
    collection = make_collection("own")
    named = new_key(olive, name="other", every_collection="", collections=[collection.pk])
    root.post(reverse("admin:searchapp_apikey_add"), named)
    assert list(ApiKey.objects.get(name="other").collections.all()) == [collection]


def test_the_administration_refuses_contradictions_and_repeats(root: Client, olive: User) -> None:
    make_key(olive, name="taken")
    for values in ({"every_collection": ""}, {"name": "taken"}, {"scopes": []}):
        response = root.post(reverse("admin:searchapp_apikey_add"), new_key(olive, **values))
        assert response.context["adminform"].form.errors, values
    assert ApiKey.objects.count() == 1


def test_the_administration_lists_and_revokes_but_does_not_widen(root: Client, olive: User) -> None:
    key, _ = make_key(olive, "search", name="shop")
    make_key(olive, name="old", expires_at=timezone.now() - timedelta(days=1))
    url = reverse("admin:searchapp_apikey_changelist")
    working = root.get(f"{url}?state=working").content.decode()
    assert ">shop<" in working
    assert ">old<" not in working
    root.post(reverse("admin:searchapp_apikey_change", args=[key.pk]), {"scopes": ["admin"]})
    key.refresh_from_db()
    assert key.scopes == ["search"]
    root.post(url, {"action": "revoke", "_selected_action": [key.pk]})
    key.refresh_from_db()
    assert key.revoked_at is not None


def test_staff_make_keys_for_themselves_only(olive: User) -> None:
    boss = User.objects.create_superuser("boss")
    olive.is_staff = True
    olive.save()
    olive.user_permissions.set(Permission.objects.filter(content_type__model="apikey"))
    client = Client()
    client.force_login(olive)
    response = client.post(reverse("admin:searchapp_apikey_add"), new_key(boss))
    assert response.context["adminform"].form.errors["owner"]
    assert KEY.findall(
        client.post(reverse("admin:searchapp_apikey_add"), new_key(olive)).content.decode()
    )
    assert [key.owner for key in ApiKey.objects.all()] == [olive]


# --- the command -------------------------------------------------------------------------------


def command(*arguments: str) -> list[str]:
    out = io.StringIO()
    call_command("create_api_key", *arguments, stdout=out)
    return out.getvalue().splitlines()


def test_the_command_prints_the_key_on_its_last_line(olive: User) -> None:
    User.objects.create_superuser("root")
    own = make_collection("own", user=olive, is_public=False)
    lines = command("--name", "shop", "--scopes", "search,ingest,judge,admin")
    asker = caller(lines[-1])
    assert asker.user.get_username() == "root"
    assert asker.scopes == frozenset(Scope)
    assert asker.key.expires_at is None
    lines = command(
        "--name", "shop", "--scopes", "search", "--collections", "own", "--expires", "2",
        "--user", "olive",
    )  # fmt: skip
    asker = caller(lines[-1])
    assert asker.user == olive
    assert list(asker.collections) == [own]
    named = make_collection("my-docs", user=olive, is_public=False, api_name="My Docs")
    lines = command(
        "--name", "docs", "--scopes", "search", "--collections", "My Docs,own", "--user", "olive"
    )
    assert set(caller(lines[-1]).collections) == {named, own}
    assert timedelta(days=1) < asker.key.expires_at - timezone.now() <= timedelta(days=2)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--scopes", "root"], "'root' is no scope; there are search, ingest, judge, admin"),
        (["--scopes", ""], "is no scope"),
        (["--scopes", "search", "--expires", "0"], "not a number of days"),
        (["--scopes", "search", "--expires", "1e9"], "not a number of days"),
        (["--scopes", "search", "--user", "nobody"], "no active account named 'nobody'"),
        (["--scopes", "search", "--collections", "x"], "no collection 'x', or not for olive"),
        (["--scopes", "search", "--collections", ","], "names none"),
        (["--scopes", "search", "--name", "taken"], "has a key named 'taken' already"),
        (["--scopes", "search", "--name", " "], "1 to 100 characters"),
    ],
)
def test_the_command_says_what_is_wrong(olive: User, arguments: list[str], sentence: str) -> None:
    make_key(olive, name="taken")
    make_collection("x", is_public=False)
    if "--user" not in arguments:
        arguments = [*arguments, "--user", "olive"]
    with pytest.raises(CommandError, match=re.escape(sentence)):
        command("--name", "new", *arguments)
    assert ApiKey.objects.count() == 1


def test_the_command_asks_whose_key_when_that_is_not_clear(olive: User) -> None:
    with pytest.raises(CommandError, match="no administrator: name the key's owner"):
        command("--name", "n", "--scopes", "search")
    for name in ("root", "boss"):
        User.objects.create_superuser(name)
    with pytest.raises(CommandError, match="several administrators"):
        command("--name", "n", "--scopes", "search")


def test_an_erased_collection_takes_itself_out_of_its_keys(olive: User) -> None:
    from searchapp.search.erasing import erase_collection

    own = make_collection("own", user=olive)
    key, plain = make_key(olive, collections=[own])
    erase_collection(Collection.objects.get(pk=own.pk))
    assert ApiKey.objects.filter(pk=key.pk).exists()
    assert not caller(plain).collections.exists()
