"""The command line: ``comity NOUN VERB``. One file a noun, imported only when it is called.

Everything that a person or a script sees goes through ``Shell``; exit codes stand in ``exits``.
"""

import os
from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Final

import click

from comity_client.cli.lazy import Entry, LazyGroup
from comity_client.cli.shell import Shell, common_options, give_version

_HERE: Final = "comity_client.cli"
_DAILY: Final = "Daily"
_DESK: Final = "Desk and devices"
_SETUP: Final = "Set up a deployment"
_MORE: Final = "More"


def _own(module: str, command: str, text: str, section: str) -> Entry:
    return Entry(f"{_HERE}.{module}:{command}", text, section)


ENTRIES: Final = MappingProxyType(
    {
        "lead": _own("send", "lead", "send an informal lead", _DAILY),
        "request": _own("send", "request", "send a formal request from a file", _DAILY),
        "inbox": _own("inbox", "inbox", "what other desks sent", _DAILY),
        "read": _own("inbox", "read", "open one envelope", _DAILY),
        "exchange": _own("exchange", "exchange", "list exchanges, show one", _DAILY),
        "ack": _own("reply", "ack", "acknowledge, naming the competent authority", _DAILY),
        "consult": _own("reply", "consult", "consult before refusing or postponing", _DAILY),
        "answer": _own("reply", "answer", "answer an exchange", _DAILY),
        "refuse": _own("reply", "refuse", "refuse, with ground and reasons", _DAILY),
        "add": _own("reply", "add", "add to an open lead", _DAILY),
        "close": _own("reply", "close", "close an answered exchange", _DAILY),
        "sync": _own("sync", "sync", "exchange everything with the relay", _DAILY),
        "outbox": _own("outbox", "outbox", "what is on its way", _DAILY),
        "status": _own("outbox", "status", "how far an envelope has come", _DAILY),
        "verify": _own("verify", "verify", "check an envelope anew, keep its proof", _DAILY),
        "stamp": _own("stamp", "stamp", "let witnesses date what the relay does not take", _DAILY),
        "contacts": _own("names", "contacts", "the desks of this deployment", _DAILY),
        "names": _own("names", "names", "your own names for desks", _DAILY),
        "desk": _own("desk", "desk", "create a desk, begin its first epoch", _DESK),
        "device": _own("device", "device", "new device, admit, remove", _DESK),
        "epoch": _own("epoch", "epoch", "turn the desk's keys", _DESK),
        "sign": _own("sign", "sign", "sign a ceremony's file", _DESK),
        "publish": _own("sign", "publish", "post a fully signed file", _DESK),
        "erase": _own("erase", "erase", "erase your desk's copies of an exchange", _DESK),
        "hold": _own("erase", "hold", "keep everybody from erasing an exchange", _DESK),
        "release": _own("erase", "release", "end your desk's hold", _DESK),
        "root": _own("root", "root", "a State's custodians", _SETUP),
        "deployment": _own("deployment", "deployment", "found a deployment, show one", _SETUP),
        "setup": _own("setup", "setup", "FOR TRYING: a whole deployment on this machine", _SETUP),
        "witness": _own("witness", "witness", "run a witness", _SETUP),
        "audit": _own("audit", "audit", "fetch, check and watch a whole log", _MORE),
        "alarm": _own("alarm", "alarm", "list alarms, export their evidence", _MORE),
        "doctor": _own("doctor", "doctor", "check this device, say what to do", _MORE),
        "demo": Entry("comity_client.demo:command", "everything, on this machine", _MORE),
        "secretariat": _own("secretariat", "secretariat", "response times", _MORE),
        "completion": _own("completion", "completion", "completion for your shell", _MORE),
    }
)


class _Comity(LazyGroup):
    """The command itself."""

    entries = ENTRIES


comity = _Comity(
    "comity",
    help="Leads and requests between the desks of States, over a relay that cannot read them.",
    epilog="\b\nExit codes: 0 done, 1 failed, 2 wrong use or cancelled, 3 not found,\n"
    "4 authentication needed, 5 refused by a rule, 6 offline and queued,\n"
    "7 verification failed, 8 copy damaged, 9 misconduct proven, 10 alarm, 75 temporary.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    params=[
        *common_options(),
        click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=give_version,
            help="Show the version and leave.",
        ),
    ],
)


def run(arguments: Sequence[str], now: Callable[[], int]) -> int:
    """Run one command.

    Args:
        arguments: Without the program's name.
        now: Clock, whole seconds since 1970-01-01T00:00:00Z.

    Returns:
        The exit code, as in ``exits``.
    """
    shell = Shell(now=now, is_json="--json" in arguments)
    color = False if os.environ.get("NO_COLOR") else None
    try:
        result = comity.main(
            list(arguments),
            prog_name="comity",
            standalone_mode=False,
            obj=shell,
            color=color,
        )
    except Exception as error:  # noqa: BLE001  # the outermost loop: every error ends in words
        return shell.tell(error)
    except KeyboardInterrupt:
        return shell.tell(click.Abort())
    return result if isinstance(result, int) else 0


__all__ = ["ENTRIES", "comity", "run"]
