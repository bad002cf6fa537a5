"""The system user the embedded servers run as. PostgreSQL refuses to run as root."""

from __future__ import annotations

import hashlib
import os
import pwd
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .state import EmbeddedError, read_state, write_state

NAME = "podium"


@dataclass(frozen=True)
class Account:
    """Who runs the servers; `switch` when that is not who runs this process."""

    name: str
    uid: int
    gid: int
    switch: bool

    def popen_arguments(self) -> dict[str, Any]:
        """What subprocess needs to start a program as this user, in a folder it can enter."""
        if not self.switch:
            return {"cwd": "/"}
        return {"cwd": "/", "user": self.uid, "group": self.gid, "extra_groups": []}

    def can_run(self, *command: str | Path) -> bool:
        """Whether this user can start the command and it succeeds."""
        try:
            done = subprocess.run(
                [str(part) for part in command],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                check=False,
                timeout=30,
                **self.popen_arguments(),
            )
        except (OSError, subprocess.TimeoutExpired):
            return False
        return done.returncode == 0

    def can_enter(self, folder: Path) -> bool:
        return not self.switch or self.can_run("test", "-x", folder)

    def make_folder(self, folder: Path) -> None:
        """A folder of this user's own; the parents keep the modes they have."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.switch:
            os.chown(folder, self.uid, self.gid)

    def write_secret(self, path: Path, text: str) -> None:
        """A file only this user can read."""
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        if self.switch:
            os.chown(path, self.uid, self.gid)


def server_account() -> Account:
    """The current user, or for root an unprivileged one, created if there is none yet."""
    if os.geteuid() != 0:
        # A bare container may run a number that has no name.
        return Account(str(os.geteuid()), os.geteuid(), os.getegid(), switch=False)
    if not _known(NAME) and (program := shutil.which("useradd")):
        subprocess.run(
            [program, "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", NAME],
            check=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    for name in (NAME, "nobody"):
        if entry := _known(name):
            return Account(name, entry.pw_uid, entry.pw_gid, switch=True)
    raise EmbeddedError(
        "PostgreSQL does not run as root and there is no other user to run it as. Create one with "
        f"`useradd --system {NAME}`, start Podium as an ordinary user, or set DATABASE_URL."
    )


def home_folder(var: Path, account: Account) -> Path:
    """Where the servers' data lies: inside `var`, or where `account` can reach when it cannot.

    The choice is kept in the state file, so that data never seems to vanish.
    """
    remembered = read_state(var).get("home")
    if remembered and Path(remembered).is_dir() and account.can_enter(Path(remembered)):
        return Path(remembered)
    if account.can_enter(var):
        home = var / "servers"
    else:
        home = Path("/var/lib") / f"podium-{hashlib.sha256(str(var).encode()).hexdigest()[:12]}"
    try:
        account.make_folder(home)
    except OSError as error:
        raise EmbeddedError(
            f"Podium cannot create {home} ({error.strerror}). Correct the folder or set VAR_DIR "
            "to one that other users may enter."
        ) from error
    write_state(var, home=str(home))
    return home


def reachable(folder: Path, program: str, home: Path, account: Account) -> Path:
    """`folder` (which holds `program`), or a copy of it under `home` if `account` cannot run it.

    The copy keeps the package's layout: a program looks for its shared libraries in the folder
    `<package>.libs` beside its package.
    """
    if account.can_run(folder / program, "--version"):
        return folder
    digest = hashlib.sha256(f"{folder}:{_newest(folder)}".encode()).hexdigest()[:12]
    copy = home / "binaries" / digest / folder.parent.name / folder.name
    if not copy.is_dir():
        _copy_for(account, folder, home / "binaries" / digest)
    if not account.can_run(copy / program, "--version"):
        raise EmbeddedError(f"{copy / program} does not start on this machine.")
    return copy


def _copy_for(account: Account, folder: Path, target: Path) -> None:
    package = folder.parent
    draft = target.with_suffix(f".{os.getpid()}")
    account.make_folder(target.parent)
    account.make_folder(draft)
    shutil.copytree(folder, draft / package.name / folder.name, symlinks=True)
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, draft / libraries.name, symlinks=True)
    for path in [draft, *draft.rglob("*")] if account.switch else []:
        os.chown(path, account.uid, account.gid, follow_symlinks=False)
    shutil.rmtree(target, ignore_errors=True)
    draft.rename(target)


def _newest(folder: Path) -> int:
    """Changes when a new version is installed in the folder's place."""
    return max(path.lstat().st_mtime_ns for path in folder.rglob("*"))


def run_quietly(
    account: Account, command: Sequence[str | Path], what: str, **environment: str
) -> None:
    """Runs the command as `account`; raises EmbeddedError with its last lines when it fails."""
    done = subprocess.run(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        env={**os.environ, **environment},
        **account.popen_arguments(),
    )
    if done.returncode:
        raise EmbeddedError(f"{what} failed. {explain(done.stdout)}")


def explain(output: str) -> str:
    """The reason in a server's last lines, as a sentence where it is a known one."""
    if "No space left on device" in output:
        return "The disk is full: free some space and start again."
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return "It said: " + " / ".join(lines[-4:]) if lines else "It said nothing."


def _known(name: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None
