"""Waiting until another connection waits for a lock."""

from __future__ import annotations

import time

from django.db import connection


def until_somebody_waits() -> None:
    for _ in range(200):
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
            if cursor.fetchone()[0]:
                return
        time.sleep(0.02)
    raise AssertionError("nobody waits")
