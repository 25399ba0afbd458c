"""P5: a relay cannot forge an act, its delivery, its reading or its answer.

The attacker is the relay with everything that it has: its own key, the log's key, every statement
and every true object of the past, and a member of another desk who helps. What it makes is judged
by the checks that clients, the counting and ``comity audit verify`` share.

Found by: whoever is shown it, when it is shown; nothing of it is counted.
"""

from dataclasses import dataclass, replace
from typing import Final

import pytest

from comity_protocol.acts import sign_act, verify_act
from comity_protocol.core import Core
from comity_protocol.directory import Directory
from comity_protocol.envelope import Sealed, verify_core
from comity_protocol.errors import ComityError
from comity_protocol.identifiers import DeskId, EnvelopeId
from comity_protocol.keys import Context, FastKey
from comity_protocol.notices import (
    Author,
    DeskNotice,
    Erase,
    EraseBasis,
    Hold,
    HoldBasis,
    sign_notice,
    verify_notice,
)
from comity_protocol.receipts import Receipt, Signed, sign_receipt, verify_receipt
from support.draws import Draws
from support.world import Member, World, held_of, lead, request

FORGERIES: Final = 300
FORGERIES_LONG: Final = 100_000


@dataclass(frozen=True, slots=True)
class Loot:
    """What the attacker has.

    Attributes:
        keys: Its own, and those of a member of another desk who helps.
        past: True envelopes, receipts and notices, with the kind of their signatures.
        act: A true formal act with its signature.
    """

    world: World
    victim: Member
    receiver: DeskId
    keys: tuple[FastKey, ...]
    envelopes: tuple[Sealed, ...]
    past: tuple[tuple[Context, Signed], ...]
    act: tuple[bytes, bytes]


def loot() -> Loot:
    """Let desks speak, and give the attacker all of it."""
    world = World.found(("XA", "XB", "XC"))
    desks = [world.create_desk(code) for code in ("XA", "XB", "XC")]
    victim, receiver, helper = (world.active(desk)[0] for desk in desks)
    sealed = tuple(world.seal_act(victim, desks[1], lead()) for _ in range(3))
    seq = world.directory.desk(desks[1]).seq
    receipt = Receipt(desks[1], receiver.id, seq, held_of(*sealed), bytes(32))
    author = Author(world.genesis.deployment, victim.desk, victim.id, 1, bytes(32))
    notice = Hold(author, (sealed[0].id,), HoldBasis.AUDIT)
    act = request().serialize()
    signature = sign_act(
        victim.full, act, deployment=world.genesis.deployment, sender=desks[0], receiver=desks[1]
    )
    return Loot(
        world,
        victim,
        desks[1],
        (world.relay_key, FastKey(bytes(world.log_key)), helper.fast),
        sealed,
        (
            *((Context.ENVELOPE, Signed(one.upload.core, one.upload.signature)) for one in sealed),
            (Context.RECEIPT, sign_receipt(receiver.fast, receipt)),
            (Context.NOTICE, sign_notice(victim.fast, notice)),
        ),
        (act, signature),
    )


class Forger:
    """Makes forgeries without end; none repeats a true object."""

    def __init__(self, loot: Loot, draws: Draws) -> None:
        self._loot = loot
        self._draws = draws
        self.true = {one.payload for _, one in loot.past}

    def signed(self, kind: Context, payload: bytes) -> Signed:
        """Sign with what there is: own keys, signatures of the past, and noise."""
        draws, loot = self._draws, self._loot
        match draws.below(5):
            case 0:
                return Signed(payload, draws.choice(loot.keys).sign(kind, payload))
            case 1:
                _, old = draws.choice(loot.past)
                return Signed(payload, old.signature)
            case 2:
                _, old = draws.choice(loot.past)
                return Signed(payload, draws.flip(old.signature))
            case 3:
                # A signature that the victim really gave over these bytes, as something else.
                other = draws.choice([one for one in Context if one is not kind])
                return Signed(payload, loot.victim.fast.sign(other, payload))
            case _:
                return Signed(payload, draws.choice((bytes(64), draws.noise(64))))

    def envelope(self) -> Signed:
        """Forge an envelope of the victim: a new one, or a true one that says something else."""
        draws, loot = self._draws, self._loot
        core = Core.parse(draws.choice(loot.envelopes).upload.core)
        changes: list[dict[str, object]] = [
            {"id": EnvelopeId(draws.noise(16))},
            {"seen": draws.noise(32)},
            {"body": replace(core.body, hash=draws.noise(32))},
            {"audit": replace(core.audit, hash=draws.noise(32))},
            {"to": (*core.to[:-1], replace(core.to[-1], wrap_hash=draws.noise(32)))},
        ]
        forged = replace(core, **draws.choice(changes))  # type: ignore[arg-type]  # its own fields
        return self.signed(Context.ENVELOPE, forged.serialize())

    def receipt(self) -> Signed:
        """Forge that the receiving desk holds what it may never have been given."""
        draws, loot = self._draws, self._loot
        device = loot.world.active(loot.receiver)[draws.below(2)].id
        held = ((EnvelopeId(draws.noise(16)), draws.noise(32)),)
        receipt = Receipt(loot.receiver, device, draws.below(4), held, draws.noise(32))
        return self.signed(Context.RECEIPT, receipt.serialize())

    def notice(self) -> Signed:
        """Forge an erasure or a hold of the victim's, or a restore by another than the relay."""
        draws, loot = self._draws, self._loot
        deployment, ids = loot.world.genesis.deployment, (draws.choice(loot.envelopes).id,)
        author = Author(deployment, loot.victim.desk, loot.victim.id, 1, draws.noise(32))
        forged: tuple[DeskNotice, ...] = (
            Erase(author, ids, EraseBasis.MISTAKE),
            Hold(author, ids, HoldBasis.AUDIT),
        )
        notice = draws.choice(forged)
        return self.signed(Context.NOTICE, notice.serialize())

    def mutation(self) -> tuple[Context, Signed]:
        """Turn over a bit in a true object or in its signature."""
        kind, old = self._draws.choice(self._loot.past)
        if self._draws.below(2):
            return kind, Signed(self._draws.flip(old.payload), old.signature)
        return kind, Signed(old.payload, self._draws.flip(old.signature))

    def act(self) -> tuple[bytes, bytes]:
        """Forge a formal act of the victim: words or signature changed."""
        act, signature = self._loot.act
        if self._draws.below(2):
            return self._draws.flip(act), signature
        return act, self._draws.flip(signature)


def is_believed(kind: Context, signed: Signed, directory: Directory) -> bool:
    """Judge as clients, the counting and an audit do."""
    try:
        match kind:
            case Context.ENVELOPE:
                verify_core(signed.payload, signed.signature, directory, index=10**6)
            case Context.RECEIPT:
                verify_receipt(signed, directory, index=10**6)
            case _:
                verify_notice(signed, directory, index=10**6)
    except ComityError:
        return False
    return True


def forge(count: int) -> dict[str, int]:
    """Make so many forgeries; gives how many were made and how many believed."""
    have = loot()
    forger, directory = Forger(have, Draws("P5")), have.world.directory
    made, believed = 0, 0
    # The judge believes what is true.
    assert all(is_believed(kind, one, directory) for kind, one in have.past)
    for number in range(count):
        match number % 4:
            case 0:
                believed += is_believed(Context.ENVELOPE, forger.envelope(), directory)
            case 1:
                believed += is_believed(Context.RECEIPT, forger.receipt(), directory)
            case 2:
                believed += is_believed(Context.NOTICE, forger.notice(), directory)
            case _:
                believed += is_believed(*forger.mutation(), directory)
        made += 1
    for _ in range(count // 50):
        act, signature = forger.act()
        try:
            verify_act(
                have.victim.full.public,
                act,
                signature,
                deployment=have.world.genesis.deployment,
                sender=have.victim.desk,
                receiver=have.receiver,
            )
            believed += 1
        except ComityError:
            pass
        made += 1
    return {"made": made, "believed": believed}


def test_300_forgeries_of_a_relay_are_believed_by_nobody() -> None:
    """[E-1] [Q-1] [H-1] [P-4] [K-1]"""
    assert forge(FORGERIES) == {"made": 306, "believed": 0}


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_hundred_thousand_forgeries_of_a_relay_are_believed_by_nobody() -> None:
    """[E-1] [Q-1] [H-1] [P-4] [K-1]"""
    assert forge(FORGERIES_LONG) == {"made": 102_000, "believed": 0}
