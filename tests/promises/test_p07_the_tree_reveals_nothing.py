"""P7: the log reveals nothing to whoever reads it, and one region nothing to another.

The guesser knows every State, every desk and its id, every public key, every procedure, event,
urgency and measure, and every minute of the day; and how entries are made. He has all entries.

Found by: nobody has to find anything; there is nothing to find. The control shows that a log of
plain hashes would give itself away to the same guesser.
"""

from collections.abc import Iterator, Sequence
from hashlib import sha256
from itertools import product
from math import sqrt
from typing import Final

import pytest

from comity_protocol import codes
from comity_protocol.acts import Event
from comity_protocol.core import core_hash
from comity_protocol.encoding import serialize
from comity_protocol.envelope import Sealed, open_wrap
from comity_protocol.errors import ComityError
from comity_protocol.identifiers import DeskId
from comity_protocol.keys import Context, digest
from comity_protocol.leaves import (
    LEAF_BYTES,
    commit_counters,
    envelope_blind,
    envelope_leaf,
    notice_leaf,
    places_of,
    receipt_leaf,
)
from comity_protocol.notices import Author, Hold, HoldBasis
from comity_protocol.profiles import PROFILES
from comity_protocol.receipts import Receipt
from comity_protocol.statements import Authority, Policy
from support.world import Member, World, core_of, held_of, lead

LEAVES: Final = 150
LEAVES_LONG: Final = 10_000
MINUTE: Final = 60
DAY: Final = 1_800_000_000
CONTEXTS: Final = tuple(kind for kind in Context if kind.value.startswith(("leaf", "act", "key")))


def entries_of(world: World, count: int) -> list[bytes]:
    """Give the entries of so many envelopes, receipts and notices, as the relay makes them."""
    one, other = world.create_desk("XA"), world.create_desk("XB")
    sender, receiver = (world.active(desk)[0] for desk in (one, other))
    entries: list[bytes] = []
    for number in range(count // 3 + 1):
        # The same act each time: the log must not show that it is.
        sealed = world.seal_act(sender, other, lead(), seen=bytes(32))
        core = core_of(sealed)
        desks = [entry.desk for entry in core.to]
        blind = envelope_blind(world.relay_key, core.id)
        commitments = commit_counters(desks, [number + 1] * len(desks), blind)
        receipt = Receipt(other, receiver.id, 4, held_of(sealed), bytes(32))
        author = Author(world.genesis.deployment, other, receiver.id, 4, bytes(32))
        entries += [
            envelope_leaf(core_hash(sealed.upload.core), commitments),
            receipt_leaf(receipt.serialize()),
            notice_leaf(Hold(author, (core.id,), HoldBasis.AUDIT).serialize()),
        ]
    return entries[:count]


def guesses(world: World, minutes: int) -> Iterator[bytes]:
    """Give what the guesser knows, alone and put together."""
    states = [*world.parties]
    desks = [*world.directory.desks]
    keys = [
        key
        for desk in world.directory.desks.values()
        for device in desk.devices.values()
        for key in (device.fast, device.full, device.seal)
    ]
    kinds = [*PROFILES, *(event.value for event in Event), *codes.URGENCIES, *codes.MEASURES]
    yield from (text.encode() for text in (*states, *kinds))
    yield from desks
    yield from keys
    for one, other in product(desks, desks):
        yield one + other
        yield places_of([one, other])
        for counter in range(200):
            yield serialize([one, counter])
            yield serialize([one, other, counter])
    for minute in range(minutes):
        at = DAY + minute * MINUTE
        yield str(at).encode()
        yield serialize(at)
        for asker, asked, event in product(states, states, Event):
            yield f"{asker}|{asked}|{event.value}|{at}".encode()
            yield serialize([asker, asked, event.value, at])


def hashes_of(guess: bytes) -> Iterator[bytes]:
    """Give every hash of a guess that an entry could hold."""
    yield guess
    yield sha256(guess).digest()
    yield from (digest(kind, guess) for kind in CONTEXTS)


def hits(entries: Sequence[bytes], guessed: Iterator[bytes]) -> tuple[int, int]:
    """Look for guesses in both halves of the entries; gives how many were tried, and hits."""
    halves = {half for entry in entries for half in (entry[1:33], entry[33:])}
    tried = found = 0
    for guess in guessed:
        for hashed in hashes_of(guess):
            tried += 1
            found += hashed in halves
    return tried, found


def balance(entries: Sequence[bytes]) -> float:
    """Give how far the bytes of all halves are from even, in standard deviations (chi-square)."""
    counts = [0] * 256
    for entry in entries:
        for byte in entry[1:]:
            counts[byte] += 1
    expected = sum(counts) / 256
    chi = sum((count - expected) ** 2 / expected for count in counts)
    return (chi - 255) / sqrt(2 * 255)


def look(count: int, minutes: int) -> tuple[int, int]:
    """Let the guesser try; gives how many guesses, and how many of them hit."""
    world = World.found()
    entries = entries_of(world, count)
    halves = [half for entry in entries for half in (entry[1:33], entry[33:])]
    assert {len(entry) for entry in entries} == {LEAF_BYTES}
    # All begin alike, and nothing repeats although one act was said again and again.
    assert {entry[0] for entry in entries} == {0}
    assert len(set(halves)) == len(halves)
    # Of random halves two in ten thousand million share eight bytes.
    assert len({half[:8] for half in halves}) == len(halves)
    assert abs(balance(entries)) < 6
    kinds = [entries[start::3] for start in range(3)]
    assert max(abs(balance(kind)) for kind in kinds) < 6
    return hits(entries, guesses(world, minutes))


def test_a_guesser_who_knows_everybody_and_every_minute_finds_nothing() -> None:
    """[L-7] [L-8]"""
    tried, found = look(LEAVES, minutes=30)

    assert found == 0
    assert tried > 10_000


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_guesser_with_ten_thousand_entries_and_millions_of_guesses_finds_nothing() -> None:
    """[L-7] [L-8]"""
    tried, found = look(LEAVES_LONG, minutes=7 * 1_440)

    assert found == 0
    assert tried > 4_000_000


def test_the_same_guesser_would_find_plain_hashes() -> None:
    world = World.found()
    plain = [
        b"\0" + digest(Context.LEAF_ENVELOPE, f"XA|XB|lead|{DAY + n * MINUTE}".encode()) + bytes(32)
        for n in range(20)
    ]

    tried, found = hits(plain, guesses(world, minutes=30))

    assert tried > 0
    assert found == 20


def two_regions() -> tuple[World, list[Sealed], Member, Member]:
    """Two pairs of desks with a secretariat each."""
    world = World.found(("XA", "XB", "XC", "XD", "SEC", "SED"))
    offices = [world.create_desk(code, Authority.SECRETARIAT) for code in ("SEC", "SED")]
    pairs: list[tuple[DeskId, DeskId]] = []
    for office, codes_ in zip(offices, (("XA", "XB"), ("XC", "XD")), strict=True):
        policy = Policy(auditors_file=(office,), auditors_lead=(office,))
        first, second = (world.create_desk(code, policy=policy) for code in codes_)
        pairs.append((first, second))
    sender, to = world.active(pairs[1][0])[0], pairs[1][1]
    sealed = [world.seal_act(sender, to, lead()) for _ in range(5)]
    stranger, own = (world.active(office)[0] for office in offices)
    return world, sealed, stranger, own


def test_one_region_s_secretariat_opens_nothing_of_another_s() -> None:
    """[E-4] [R-14] With all its keys and the other region's rows in hand."""
    _, sealed, stranger, office = two_regions()
    opened = 0
    for one in sealed:
        core = core_of(one)
        assert stranger.desk not in [entry.desk for entry in core.to]
        seeds = [stranger.secret.file, *stranger.secret.leads.values()]
        for entry, wrap in zip(core.to, one.upload.wraps, strict=True):
            for seed in seeds:
                try:
                    open_wrap(core, wrap, entry, seed)
                    opened += 1
                except ComityError:
                    pass
    own = core_of(sealed[0])
    place = [entry.desk for entry in own.to].index(office.desk)

    assert opened == 0
    # The office of that region opens what is its own.
    assert open_wrap(own, sealed[0].upload.wraps[place], own.to[place], office.secret.file)
