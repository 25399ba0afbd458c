"""What all commands share: options, output, passphrases, the profile, and errors in words.

Answers go to standard output, as text or with ``--json`` as one versioned document. Everything
else, progress and errors, goes to standard error. Nothing is asked unless somebody is there.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

import click

from comity_client.cli.exits import Exit, exit_of
from comity_protocol.errors import ComityError, MalformedError
from comity_protocol.identifiers import parse_id

if TYPE_CHECKING:
    from comity_client.keystore import Cost, DeviceKeys
    from comity_client.profile import Profile

JSON_VERSION: Final = 1
"""Of every document; it grows when a field changes its meaning or goes, not when one joins."""

PASSPHRASE_ENVIRONMENT: Final = "COMITY_PASSPHRASE_FILE"  # noqa: S105  # a name, no secret
PROFILE_ENVIRONMENT: Final = "COMITY_PROFILE"
DEBUG_ENVIRONMENT: Final = "COMITY_DEBUG"
COST_ENVIRONMENT: Final = "COMITY_KEY_STORE_MIB"
"""Memory of a guess for *new* key stores, in MiB; the key store refuses what is below its floor."""

_DEFAULT_PROFILE: Final = "default"
_PROGRESS_SECONDS: Final = 1.0
_PASSPHRASE_BYTES_MAX: Final = 1_024
_MIB: Final = 1024 * 1024


class PassphraseNeededError(ComityError):
    """A passphrase is needed and nobody is there to be asked."""

    code: ClassVar[str] = "passphrase-needed"
    remedy: ClassVar[str] = (
        "run it in a terminal, or name a file of mode 600 with --passphrase-file"
        " or COMITY_PASSPHRASE_FILE"
    )


class FileError(ComityError):
    """A file that cannot be read or written."""

    code: ClassVar[str] = "no-such-file"
    remedy: ClassVar[str] = "check the file's name, its folder and who may read it"


class NotFoundError(ComityError):
    """A desk, envelope, exchange or name that was asked for; there is none, or more than one."""

    code: ClassVar[str] = "no-such-name"
    remedy: ClassVar[str] = (
        "check what you typed against that list; `comity sync` brings what is new"
    )


class NotConfirmedError(ComityError):
    """A yes is needed and was not given."""

    code: ClassVar[str] = "cancelled"
    remedy: ClassVar[str] = "nothing was changed; run it again with --yes if you have read it"


@dataclass(slots=True)
class Shell:
    """One call of the command.

    Attributes:
        now: Clock, whole seconds since 1970-01-01T00:00:00Z.
        is_json: Whether answers and errors are documents.
        profile: Name or folder of the profile, from the option; None for the environment's.
        passphrase_file: From the option; None for the environment's.
        is_offline: Whether the network is left alone.
        is_quiet: Whether progress and hints are left out.
    """

    now: Callable[[], int]
    is_json: bool = False
    profile: str | None = None
    passphrase_file: Path | None = None
    is_offline: bool = False
    is_quiet: bool = False

    # --- Output

    def give(self, kind: str, document: Mapping[str, object], lines: Sequence[str]) -> None:
        """Give the answer: the document with ``--json``, the lines otherwise."""
        if self.is_json:
            whole = {"version": JSON_VERSION, "kind": kind, **document}
            click.echo(json.dumps(whole, ensure_ascii=False))
            return
        for line in lines:
            click.echo(line)

    def hint(self, text: str) -> None:
        """Say on standard error what may be of use; left out for scripts."""
        if not (self.is_json or self.is_quiet):
            click.echo(text, err=True)

    @contextmanager
    def step(self, text: str) -> Iterator[None]:
        """Say on standard error what is going on once it takes more than a second."""
        from threading import Timer  # not every command waits

        timer = Timer(_PROGRESS_SECONDS, self.hint, [f"{text} ..."])
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def tell(self, error: BaseException) -> int:
        """Say what went wrong and what to do next; give the exit code."""
        if isinstance(error, click.exceptions.Exit):
            return error.exit_code
        if isinstance(error, click.exceptions.NoArgsIsHelpError) and not self.is_json:
            click.echo(error.format_message(), err=True)
            return int(Exit.USAGE)
        code, message, remedy, exit_code = _explain(error)
        if self.is_json:
            problem = {
                "version": JSON_VERSION,
                "type": f"urn:comity:problem:{code}",
                "code": code,
                "detail": message,
                "remedy": remedy,
                "exit": int(exit_code),
            }
            click.echo(json.dumps(problem, ensure_ascii=False), err=True)
        else:
            click.echo(f"error: {message}", err=True)
            click.echo(f"next:  {remedy}", err=True)
        if os.environ.get(DEBUG_ENVIRONMENT):
            raise error
        return int(exit_code)

    # --- Questions

    @property
    def is_attended(self) -> bool:
        """Whether somebody is there to be asked."""
        return sys.stdin.isatty() and not self.is_json

    def confirm(self, question: str, *, is_given: bool) -> None:
        """Go on only after a yes.

        Raises:
            NotConfirmedError: It was not given.
        """
        if is_given:
            return
        if not self.is_attended:
            raise NotConfirmedError(f"nobody is there to say yes to: {question}")
        if not click.confirm(question, err=True):
            raise NotConfirmedError("not confirmed")

    def passphrase(self, what: str, file: Path | None = None) -> str:
        """Get the passphrase that opens something.

        Args:
            what: What it opens, for the prompt.
            file: A file that holds it; by default that of the option or the environment.

        Raises:
            PassphraseNeededError: There is no file and nobody to ask, or the file is unusable.
        """
        if path := file or self._passphrase_path():
            return _read_passphrase(path)
        if not self.is_attended:
            raise PassphraseNeededError(f"passphrase of {what} is needed")
        entered = click.prompt(f"passphrase of {what}", hide_input=True, err=True)
        return str(entered)

    def new_passphrase(self, what: str, file: Path | None = None) -> str:
        """Get a new passphrase, typed twice when somebody types it."""
        if path := file or self._passphrase_path():
            return _read_passphrase(path)
        if not self.is_attended:
            raise PassphraseNeededError(f"new passphrase of {what} is needed")
        entered = click.prompt(
            f"new passphrase of {what} (12 characters or more)",
            hide_input=True,
            confirmation_prompt="the same again",
            err=True,
        )
        return str(entered)

    def _passphrase_path(self) -> Path | None:
        named = os.environ.get(PASSPHRASE_ENVIRONMENT)
        return self.passphrase_file or (Path(named) if named else None)

    # --- The profile

    @property
    def folder(self) -> Path:
        """The profile's folder: a path as it is, a name in the user's data folder."""
        chosen = self.profile or os.environ.get(PROFILE_ENVIRONMENT) or _DEFAULT_PROFILE
        if os.sep in chosen or chosen.startswith(".") or Path(chosen).is_dir():
            return Path(chosen)
        from platformdirs import user_data_path  # 20 ms, for names only

        return user_data_path("comity", appauthor=False) / chosen

    def read_profile(self) -> "Profile":
        """Read the profile; it needs no passphrase."""
        from comity_client.profile import PROFILE_FILE, ProfileError, read_profile

        if not (self.folder / PROFILE_FILE).exists():
            raise ProfileError(f"there is no profile in {self.folder}")
        return read_profile(self.folder)

    def device_keys(self) -> "DeviceKeys":
        """Open the profile's key store."""
        from comity_client.keystore import read_device_keys
        from comity_client.profile import KEYS_FILE

        self.read_profile()
        passphrase = self.passphrase(f"profile {self.folder.name}")
        with self.step("opening the key store"):
            return read_device_keys(self.folder / KEYS_FILE, passphrase)

    def key_store_cost(self) -> "Cost":
        """Give what a guess of a new key store costs."""
        from comity_client.keystore import DEFAULT_COST, Cost

        chosen = os.environ.get(COST_ENVIRONMENT, "")
        return Cost(memory_bytes=int(chosen) * _MIB) if chosen.isdecimal() else DEFAULT_COST


def common_options() -> list[click.Parameter]:
    """Give the options that every command takes, before or after its name."""
    return [
        click.Option(
            ["--profile"],
            metavar="NAME|FOLDER",
            expose_value=False,
            callback=_store("profile"),
            help="Which device you are. Default: $COMITY_PROFILE, then 'default'.",
        ),
        click.Option(
            ["--passphrase-file"],
            metavar="FILE",
            type=click.Path(path_type=Path, dir_okay=False),
            expose_value=False,
            callback=_store("passphrase_file"),
            help="File of mode 600 with the passphrase. Default: $COMITY_PASSPHRASE_FILE.",
        ),
        click.Option(
            ["--json"],
            is_flag=True,
            expose_value=False,
            callback=_store("is_json"),
            help="Answer with one JSON document.",
        ),
        click.Option(
            ["--offline"],
            is_flag=True,
            expose_value=False,
            callback=_store("is_offline"),
            help="Leave the network alone.",
        ),
        click.Option(
            ["--quiet", "-q"],
            is_flag=True,
            expose_value=False,
            callback=_store("is_quiet"),
            help="No progress, no hints.",
        ),
    ]


class Verb(click.Command):
    """A command with the common options."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        """Add the common options to the command's own."""
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]  # as click was given them
        self.params.extend(common_options())


class Noun(click.Group):
    """A group of verbs."""

    command_class = Verb


def typed_id(text: str, what: str) -> bytes:
    """Read an id that somebody typed.

    Raises:
        click.UsageError: It is not 32 lower-case hexadecimal digits.
    """
    try:
        return parse_id(text, what)
    except MalformedError as error:
        raise click.UsageError(f"{error}; `comity contacts` shows them") from error


def read_file(path: Path, bytes_max: int) -> bytes:
    """Read a file that somebody handed over.

    Raises:
        FileError: It is not there, unreadable, or larger than anything it could be.
    """
    try:
        with path.open("rb") as file:
            data = file.read(bytes_max + 1)
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror}") from error
    if len(data) > bytes_max:
        raise FileError(f"{path} is larger than {bytes_max:,} bytes, expected a smaller file")
    return data


def write_new_file(path: Path, data: bytes) -> None:
    """Write a file that must not be there yet.

    Raises:
        FileError: It is there, or cannot be written.
    """
    from comity_client.files import write_private

    if path.exists():
        raise FileError(f"{path} is there already; choose another name, or move it away")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_private(path, data)
    except OSError as error:
        raise FileError(f"{path} cannot be written: {error.strerror}") from error


def give_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    """Show the version and leave."""
    del param
    if not value or ctx.resilient_parsing:
        return
    from importlib.metadata import version  # 20 ms, for this option only

    shell = ctx.obj
    number = version("comity")
    shell.give("version", {"comity": number}, [f"comity {number}"])
    ctx.exit()


def _store(name: str) -> Callable[[click.Context, click.Parameter, object], None]:
    def callback(ctx: click.Context, param: click.Parameter, value: object) -> None:
        del param
        # An option that is not given here may have been given before the command's name.
        if value and isinstance(ctx.obj, Shell):
            setattr(ctx.obj, name, value)

    return callback


def _read_passphrase(path: Path) -> str:
    from comity_client.files import is_private

    try:
        with path.open("rb") as file:
            if path.is_file() and not is_private(file.fileno()):
                raise PassphraseNeededError(f"{path} can be read by others, expected mode 600")
            data = file.read(_PASSPHRASE_BYTES_MAX + 1)
    except OSError as error:
        raise PassphraseNeededError(f"{path} cannot be read: {error.strerror}") from error
    if len(data) > _PASSPHRASE_BYTES_MAX:
        raise PassphraseNeededError(f"{path} is larger than {_PASSPHRASE_BYTES_MAX:,} bytes")
    try:
        return data.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise PassphraseNeededError(f"{path} is not text in UTF-8") from error


def _explain(error: BaseException) -> tuple[str, str, str, Exit]:
    """Give code, message, remedy and exit code of anything that can end a command."""
    match error:
        case ComityError():
            return error.code, str(error), error.remedy, exit_of(error)
        case click.UsageError():
            path = error.ctx.command_path if error.ctx else "comity"
            message = error.format_message()
            message = message[:1].lower() + message[1:].rstrip(".")
            return "usage", message, f"see `{path} --help`", Exit.USAGE
        case click.ClickException():
            return "usage", error.format_message(), "see `comity --help`", Exit.USAGE
        case click.Abort():
            return "cancelled", "cancelled", "nothing more was done", Exit.USAGE
        case _ if type(error).__module__ == "sqlite3":
            # Named by its module, so that commands without a state file need not import it.
            return (
                "state-busy",
                f"state file: {error}",
                "close other programs that use this profile, check that the disk is not full, and"
                " try again",
                Exit.TEMPORARY,
            )
        case OSError():
            what = error.strerror or type(error).__name__
            where = f"{error.filename}: " if error.filename else ""
            return "system", f"{where}{what}", "check the disk and the folder", Exit.FAILED
        case _:
            return (
                "fault",
                f"fault of the program: {type(error).__name__}",
                f"tell the maintainers; with {DEBUG_ENVIRONMENT}=1 it shows where",
                Exit.FAILED,
            )
