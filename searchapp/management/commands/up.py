"""Everything Podium needs, under one parent, until Ctrl-C."""

from __future__ import annotations

import sys
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandParser

from searchapp.embedded.state import EmbeddedError
from searchapp.embedded.supervisor import Supervisor


class Command(BaseCommand):
    help = "Starts the servers, the web process and the workers, and keeps them running."
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--port", type=int, default=8000)
        parser.add_argument(
            "--host", default="127.0.0.1", help="0.0.0.0 lets other machines in; default 127.0.0.1"
        )
        parser.add_argument("--no-demo", action="store_true", help="without the demo collections")

    def handle(self, *args: Any, **options: Any) -> None:
        supervisor = Supervisor(
            settings.VAR_DIR,
            options["host"],
            options["port"],
            demo=settings.DEMO and not options["no_demo"],
            out=sys.stdout,
        )
        try:
            supervisor.run()
        except EmbeddedError as error:
            self.stderr.write(str(error))
            sys.exit(1)
