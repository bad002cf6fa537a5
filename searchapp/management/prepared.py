"""Commands that need the tables."""

from __future__ import annotations

from typing import Any

from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from searchapp.embedded.servers import provided


class PreparedCommand(BaseCommand):
    """Runs on a database whose tables are as this version needs them.

    The embedded database is made so on the way; one of DATABASE_URL is its owner's to migrate.
    """

    def execute(self, *args: Any, **options: Any) -> str | None:
        executor = MigrationExecutor(connection)
        if executor.migration_plan(executor.loader.graph.leaf_nodes()):
            if provided("DATABASE_URL"):
                raise CommandError(
                    "The database's tables are not those of this version: run manage.py prepare."
                )
            call_command("migrate", interactive=False, verbosity=0)
        return super().execute(*args, **options)
