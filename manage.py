#!/usr/bin/env python
"""Django's command line."""

import os
import sys

# These need no database, or (`up`) see to it themselves.
_WITHOUT_SERVERS = {
    "check",
    "collectstatic",
    "compilemessages",
    "diffsettings",
    "findstatic",
    "help",
    "makemessages",
    "startapp",
    "startproject",
    "test",
    "up",
    "version",
}
# As shells report a process that wrote to a closed pipe.
_NOBODY_READS = 141


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "searchapp.settings")
    from searchapp.embedded import EmbeddedError, ensure, prepare

    command = sys.argv[1] if len(sys.argv) > 1 else "help"
    asks_for_help = command.startswith("-") or {"-h", "--help", "--version"} & set(sys.argv)
    try:
        # Before the settings load: they read where the servers listen.
        if command == "up":
            prepare()
        elif command not in _WITHOUT_SERVERS and not asks_for_help:
            ensure()
    except EmbeddedError as error:
        sys.exit(str(error))

    from django.core.management import execute_from_command_line

    try:
        try:
            execute_from_command_line(sys.argv)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read the output has gone; nothing is left to be written to it at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(_NOBODY_READS)


if __name__ == "__main__":
    main()
