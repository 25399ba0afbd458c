"""``comity exchange``: the threads between your desk and others, folded from the log."""

from typing import TYPE_CHECKING, Final

import click

from comity_client.cli.shell import Noun, Shell

if TYPE_CHECKING:
    from comity_client.desk import Desk
    from comity_protocol.exchange import Exchange

_VERBS: Final = {"lead": "add"}
"""Command of an event inside an exchange, where it is not the event's own name."""

_SENT_MAX: Final = 1_000


@click.group(cls=Noun)
def exchange() -> None:
    """List exchanges, show one."""


@exchange.command("list")
@click.option("--open", "is_open", is_flag=True, help="Only those without answer or refusal.")
@click.pass_obj
def list_exchanges(shell: Shell, is_open: bool) -> None:
    """List your desk's exchanges, as last synchronised."""
    from comity_client.cli.known import name_of
    from comity_client.cli.online import with_desk

    async def do(desk: "Desk") -> list[tuple[dict[str, object], str]]:
        names = dict(desk.directory.desks)
        own = desk.profile.desk
        rows = []
        for one in sorted(desk.exchanges(), key=lambda each: each.opened_index):
            if is_open and one.final_index is not None:
                continue
            other = one.responder if one.initiator == own else one.initiator
            way = "to" if one.initiator == own else "from"
            name = name_of(other, desk.profile, names)
            line = f"{one.id.hex()[:8]}  {one.state.value:<12} {one.profile.title} {way} {name}"
            rows.append((_document(one), line))
        return rows

    rows = with_desk(shell, do)
    shell.give(
        "exchanges",
        {"exchanges": [document for document, _ in rows]},
        [line for _, line in rows] or ["no exchanges"],
    )


@exchange.command("show")
@click.argument("exchange")
@click.option("--brief", is_flag=True, help="Without what the acts say.")
@click.pass_obj
def show_exchange(shell: Shell, exchange: str, brief: bool) -> None:
    """Show one exchange: where it stands, every act, and what you may do next."""
    from comity_client.cli.acts import act_document, act_lines
    from comity_client.cli.dates import long_words, times_document
    from comity_client.cli.known import name_of
    from comity_client.cli.online import find_exchange, moment, with_desk
    from comity_client.cli.said import said_of
    from comity_client.glance import outbox
    from comity_client.noticed import read_erased
    from comity_protocol.exchange import legal_events

    async def do(desk: "Desk") -> tuple[dict[str, object], list[str]]:
        names = dict(desk.directory.desks)
        one = desk.exchange(find_exchange(desk, exchange))
        nexts = sorted(event.value for event in legal_events(one, desk.profile.desk))
        verbs = sorted(_VERBS.get(event, event) for event in nexts)
        lines = [
            f"exchange   {one.id.hex()}",
            f"procedure  {one.profile.title} ({one.profile.anchor})",
            f"state      {one.state.value}",
            f"requesting {name_of(one.initiator, desk.profile, names)}",
            f"requested  {name_of(one.responder, desk.profile, names)}",
            f"you may    {', '.join(verbs) or 'do nothing more'}",
        ]
        # An own act counts here once it came back in the log; else somebody would act twice.
        here = {step.envelope for step in one.steps}
        sent = outbox(desk.state, limit=_SENT_MAX)
        waiting = [
            each.event
            for each in reversed(sent)
            if each.exchange == one.id and each.envelope not in here and each.stage != "rejected"
        ]
        if waiting:
            lines.append(f"on its way {', '.join(waiting)}; `comity sync` tells when it is sealed")
        steps: list[dict[str, object]] = []
        times, erased = desk.times(), read_erased(desk.state)
        said = said_of(desk, {step.envelope for step in one.steps})
        lines += said.lines(lambda id_: name_of(id_, desk.profile, names))
        for step in one.steps:
            gone = erased.get(step.envelope)
            opened = None if brief or gone else desk.read(step.envelope)
            steps.append(
                {
                    "envelope": step.envelope.hex(),
                    "leaf_index": step.index,
                    "sender": step.sender.hex(),
                    "event": step.record.event.value,
                    "act": act_document(opened.act) if opened else None,
                    "erased": {"basis": gone.basis, "at": gone.at} if gone else None,
                    **times_document(times.get(step.envelope)),
                }
            )
            sender = name_of(step.sender, desk.profile, names)
            lines += ["", f"-- {step.record.event.value} by {sender}, leaf {step.index}"]
            lines.append(f"   {long_words(times.get(step.envelope))}")
            if gone:
                lines.append(f"   erased on {moment(gone.at)[:10]}, basis {gone.basis}")
            if opened:
                lines += [f"   {line}".rstrip() for line in act_lines(opened.act)]
        document = {
            **_document(one),
            **said.document(),
            "next": nexts,
            "waiting": waiting,
            "steps": steps,
        }
        return document, lines

    document, lines = with_desk(shell, do)
    shell.give("exchange", document, lines)


def _document(one: "Exchange") -> dict[str, object]:
    return {
        "exchange": one.id.hex(),
        "profile": one.profile.code,
        "state": one.state.value,
        "initiator": one.initiator.hex(),
        "responder": one.responder.hex(),
        "acts": len(one.steps),
    }
