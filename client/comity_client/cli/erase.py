"""``comity erase``, ``hold``, ``release``: what becomes of a desk's copies."""

from typing import TYPE_CHECKING, Final

import click

from comity_client.cli.shell import Shell, Verb

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from comity_client.desk import Desk
    from comity_protocol.identifiers import ExchangeId

ERASE: Final = ("RETENTION", "COURT_ORDER", "DATA_SUBJECT", "MISTAKE", "CASE_CLOSED")
HOLD: Final = ("PROCEEDINGS", "COMPLAINT", "AUDIT")


@click.command(cls=Verb)
@click.argument("exchange")
@click.option("--basis", type=click.Choice(ERASE), required=True, help="Why.")
@click.option("--yes", is_flag=True, help="You have read what goes.")
@click.pass_obj
def erase(shell: Shell, exchange: str, basis: str, yes: bool) -> None:
    """Erase your desk's copies of EXCHANGE: here, on your colleagues' devices, at the relay.

    Needs an admin's device. The other desk decides for its own copy, and is told that yours is
    gone. The log keeps hashes alone, so every proof stays valid. What is on hold stays.
    """
    from comity_protocol.notices import EraseBasis

    def question(acts: int, other: str) -> str:
        return (
            f"erase {acts} acts with {other} for good, on this machine, on your colleagues' and at"
            " the relay; nothing brings them back"
        )

    async def do(desk: "Desk", id_: "ExchangeId") -> int:
        return await desk.erase(id_, EraseBasis(basis))

    _run(shell, exchange, do, "erased", basis, question=question, is_given=yes)


@click.command(cls=Verb)
@click.argument("exchange")
@click.option("--basis", type=click.Choice(HOLD), required=True, help="Why.")
@click.pass_obj
def hold(shell: Shell, exchange: str, basis: str) -> None:
    """Keep every desk, yours and the other, from erasing EXCHANGE until you release it."""
    from comity_protocol.notices import HoldBasis

    async def do(desk: "Desk", id_: "ExchangeId") -> int:
        return await desk.hold(id_, HoldBasis(basis))

    _run(shell, exchange, do, "on hold", basis)


@click.command(cls=Verb)
@click.argument("exchange")
@click.pass_obj
def release(shell: Shell, exchange: str) -> None:
    """End your desk's hold of EXCHANGE. Needs an admin's device."""

    async def do(desk: "Desk", id_: "ExchangeId") -> int:
        return await desk.release(id_)

    _run(shell, exchange, do, "released", None)


def _run(
    shell: Shell,
    exchange: str,
    do: "Callable[[Desk, ExchangeId], Awaitable[int]]",
    done: str,
    basis: str | None,
    *,
    question: "Callable[[int, str], str] | None" = None,
    is_given: bool = True,
) -> None:
    """Synchronise, ask, state the notice, and say what it did."""
    from comity_client.cli.known import name_of
    from comity_client.cli.online import find_exchange, with_desk

    async def run(desk: "Desk") -> "tuple[ExchangeId, int]":
        with shell.step("synchronising"):
            await desk.sync()
            await desk.fetch()
        id_ = find_exchange(desk, exchange)
        one = desk.exchange(id_)
        other = one.responder if one.initiator == desk.profile.desk else one.initiator
        if question is not None:
            name = name_of(other, desk.profile, dict(desk.directory.desks))
            shell.confirm(question(len(one.steps), name), is_given=is_given)
        with shell.step("asking the relay to log it"):
            return id_, await do(desk, id_)

    id_, count = with_desk(shell, run)
    what = f"{count} envelope{'' if count == 1 else 's'}"
    shell.give(
        "notice",
        {"exchange": id_.hex(), "done": done, "basis": basis, "envelopes": count},
        [f"{done}: {what} of exchange {id_.hex()[:8]}{f', basis {basis}' if basis else ''}"],
    )
