"""The tables as this version needs them, and somebody who may sign in."""

from __future__ import annotations

import os
import secrets
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.core.management.base import BaseCommand
from django.db import connection

_LOCK = 7_061_200


class Command(BaseCommand):
    help = (
        "Migrates the database and creates the user admin if there is no administrator yet "
        "(password from ADMIN_PASSWORD, else generated and shown once)."
    )
    requires_system_checks = []

    def handle(self, *args: Any, **options: Any) -> None:
        # Two containers that start at once wait for each other here.
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock(%s)", [_LOCK])
            try:
                call_command("migrate", interactive=False, verbosity=0)
                self._create_admin()
            finally:
                cursor.execute("SELECT pg_advisory_unlock(%s)", [_LOCK])

    def _create_admin(self) -> None:
        users = get_user_model().objects
        if users.filter(is_superuser=True).exists() or users.filter(username="admin").exists():
            return
        given = os.environ.get("ADMIN_PASSWORD", "")
        password = given or secrets.token_urlsafe(12)
        users.create_superuser("admin", password=password)
        if given:
            self.stdout.write("user admin created with the password of ADMIN_PASSWORD")
        else:
            self.stdout.write(f"user admin created; its password, shown only now: {password}")
