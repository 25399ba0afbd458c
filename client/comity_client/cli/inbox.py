"""``comity inbox`` and ``comity read``: what other desks sent, and what one envelope says."""

from typing import TYPE_CHECKING

import click

from comity_client.cli.shell import Shell, Verb

if TYPE_CHECKING:
    from collections.abc import Mapping

    from comity_client.brackets import Times
    from comity_client.cli.known import Known
    from comity_client.desk import Desk
    from comity_client.glance import Glance
    from comity_client.noticed import Erased
    from comity_protocol.identifiers import EnvelopeId

    Dated = Mapping[EnvelopeId, Times]
    Gone = Mapping[EnvelopeId, Erased]

_LINES_MAX = 10_000


@click.command(cls=Verb)
@click.option("--all", "is_all", is_flag=True, help="What your own desk sent, too.")
@click.option("--limit", type=click.IntRange(1, _LINES_MAX), default=100, show_default=True)
@click.pass_obj
def inbox(shell: Shell, is_all: bool, limit: int) -> None:
    """List what was received, the newest last. Needs no passphrase and no network.

    `comity sync` brings what is new.
    """
    from comity_client.brackets import read_times
    from comity_client.cli.known import Known
    from comity_client.glance import inbox as look
    from comity_client.noticed import read_erased

    with Known.open(shell) as known:
        found = [
            line
            for line in look(known.state, limit=limit)
            if is_all or line.sender != known.profile.desk
        ][::-1]
        times = read_times(known.state, known.genesis, {one.envelope for one in found})
        erased = read_erased(known.state)
        lines = [_line(known, one, times, erased) for one in found]
    document = {"envelopes": [_document(one, times, erased) for one in found]}
    shell.give("inbox", document, lines or ["nothing yet"])


@click.command(cls=Verb)
@click.argument("envelope")
@click.pass_obj
def read(shell: Shell, envelope: str) -> None:
    """Open ENVELOPE, by its id or its first digits, and show what it says."""
    from comity_client.cli.acts import act_document, act_lines, find_envelope
    from comity_client.cli.known import name_of
    from comity_client.cli.online import with_desk

    id_ = find_envelope(shell, envelope)

    async def do(desk: "Desk") -> tuple[dict[str, object], list[str]]:
        opened = desk.read(id_)
        sender = name_of(opened.core.sender, desk.profile, dict(desk.directory.desks))
        head = [
            f"{opened.record.event.value} from {sender}",
            f"envelope  {opened.core.id.hex()}",
            f"exchange  {opened.record.exchange.hex()}",
        ]
        document: dict[str, object] = {
            "envelope": opened.core.id.hex(),
            "sender": opened.core.sender.hex(),
            "exchange": opened.record.exchange.hex(),
            "event": opened.record.event.value,
            "leaf_index": opened.leaf_index,
            "signed": opened.is_signed,
            "act": act_document(opened.act),
        }
        return document, [*head, *act_lines(opened.act)]

    document, lines = with_desk(shell, do)
    shell.give("envelope", document, lines)


def _line(known: "Known", line: "Glance", times: "Dated", erased: "Gone") -> str:
    from comity_client.cli.dates import short_words
    from comity_client.cli.online import moment

    time = times.get(line.envelope) if line.envelope else None
    at = time.bracket.not_after if time and time.bracket else line.sealed_at
    when = moment(at) if at is not None else "not sealed yet         "
    sender = known.name(line.sender) if line.sender else "unknown sender"
    event = line.event or "unreadable"
    ids = f"{_short(line.envelope)}  exchange {_short(line.exchange)}"
    text = f"{when}  {event:<8} from {sender:<24} {ids}  {short_words(time)}".rstrip()
    if line.envelope is not None and (gone := erased.get(line.envelope)):
        return f"{text}\n  erased on {moment(gone.at)[:10]}, basis {gone.basis}"
    return f"{text}\n  refused: {line.text}" if line.refused else text


def _document(line: "Glance", times: "Dated", erased: "Gone") -> dict[str, object]:
    from comity_client.cli.dates import times_document

    gone = erased.get(line.envelope) if line.envelope else None
    return {
        **times_document(times.get(line.envelope) if line.envelope else None),
        "erased": {"basis": gone.basis, "at": gone.at} if gone else None,
        "counter": line.counter,
        "leaf_index": line.leaf_index,
        "envelope": line.envelope.hex() if line.envelope else None,
        "sender": line.sender.hex() if line.sender else None,
        "receiver": line.receiver.hex() if line.receiver else None,
        "exchange": line.exchange.hex() if line.exchange else None,
        "event": line.event,
        "sealed_at": line.sealed_at,
        "checked": line.is_checked,
        "refused": line.refused,
        "problem": line.text,
    }


def _short(id_: bytes | None) -> str:
    return id_.hex()[:8] if id_ else "--------"
