"""A worker container's health check: does a worker on this host take work from the queue?"""

from __future__ import annotations

import socket
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from searchapp.engine import presence
from searchapp.engine.broker import BrokerDown


class Command(BaseCommand):
    help = "Succeeds when a worker of this host is ready for the queue."
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("queue", choices=["default", "embed", "gpu", "training"])

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            workers = presence.alive(options["queue"])
        except BrokerDown as error:
            raise CommandError(f"The broker does not answer: {error}") from error
        if not [worker for worker in workers if worker.host == socket.gethostname()]:
            raise CommandError(f"No worker of this host is ready for {options['queue']}.")
        self.stdout.write("ready")
