"""Certificates of real acts, and everything that can be altered in one."""

import asyncio
import base64
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import msgspec

from comity_client.certificate.check import Checked
from comity_client.certificate.gather import gather
from comity_client.certificate.record import Admission, Certificate, KeptReceipt, Opening
from comity_client.drafts import Draft, DraftPerson
from comity_client.profile import read_profile, write_profile
from comity_protocol.core import core_hash
from comity_protocol.identifiers import EnvelopeId, OfficerId
from comity_protocol.keys import random_bytes
from comity_protocol.receipts import Signed
from comity_protocol.stamps import sign_stamp
from comity_protocol.statements import Authority, Role
from support.desks import REQUEST, enrol, open_desk
from support.relay import relay
from support.world import Member, World

HARM: Final = "document.documentElement.dataset.harmed=1"

HOSTILE_NAME: Final = f"</script><img src=x onerror={HARM}>"

HOSTILE_TEXT: Final = (
    f"</td></main><script>{HARM}</script><img src=x onerror={HARM}>\n"
    f'"><svg onload={HARM}> &lt;b&gt; &amp; <!-- -->\n'
    '#eval("panic()") #image("/etc/passwd") $x$ *bold* `raw` \\ #panic() <label> @ref //\n'
    "\u0637\u0644\u0628 2026-01-31 \u202eright to left\u202c \u4e2d\u6587 \U0001f600"
)

HOSTILE: Final = msgspec.structs.replace(
    REQUEST,
    text=HOSTILE_TEXT,
    reference="#panic()<i>",
    persons=(DraftPerson("VICTIM", HOSTILE_TEXT), DraftPerson("OTHER", "unknown")),
)

LEAD: Final = Draft(text="a vehicle was seen at the border", language="en")


@dataclass(frozen=True, slots=True)
class Made:
    """Certificates of one deployment.

    Attributes:
        opened: Of a formal act full of hostile text, with receipt and stamps, by its sender.
        closed: Of the same act, by its recipient, not opened.
        other: Of another act, opened, whose sender's device was let in by two admins.
    """

    opened: Checked
    closed: Checked
    other: Checked


def make_certificates(folder: Path) -> Made:
    """Make them over a real relay with real witnesses."""
    return asyncio.run(_make(folder))


async def _make(folder: Path) -> Made:
    world = World.found()
    ids = [world.create_desk(code, Authority.PROSECUTION, admins=2) for code in ("XA", "XB")]
    admins = world.active(ids[0])
    carol = Member(ids[0], OfficerId(random_bytes(16)), Role.OFFICER)
    world.publish(world.admission(carol, by=[one.full for one in admins], giver=admins[0]))
    world.members[carol.id] = carol
    world.turn(ids[0])
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(relay(folder, world))
        await running.publish()
        desks = []
        for number, member in enumerate((admins[0], world.active(ids[1])[0], carol)):
            profile = enrol(folder / f"desk{number}", world, member, running.url)
            write_profile(profile, replace(read_profile(profile), names={ids[1]: HOSTILE_NAME}))
            desk, _ = open_desk(profile, member, running.clock)
            await stack.enter_async_context(desk)
            await desk.sync()
            desks.append(desk)
        alice, bob, third = desks
        first = alice.request(ids[1], HOSTILE)
        second = third.lead(ids[1], LEAD)
        for _ in range(2):
            for desk in desks:
                await desk.flush()
            for desk in (bob, alice, third):
                await running.seal()
                await desk.fetch()
        _stamp(world, alice.state.connection.execute, first)
        return Made(
            await gather(alice, first, is_open=True),
            await gather(bob, first),
            await gather(third, second, is_open=True),
        )


def _stamp(world: World, execute: Callable[..., object], envelope: EnvelopeId) -> None:
    """Put stamps of two witnesses where the desk keeps them."""
    row = execute("SELECT core FROM inbox WHERE envelope = ?", (envelope,))
    what = core_hash(row.fetchone()[0])  # type: ignore[attr-defined]  # a cursor
    for name, key in list(world.witness_keys.items())[:2]:
        at = 1_700_000_000
        signed = sign_stamp(key, world.genesis.deployment, what, at)
        execute("INSERT INTO stamps VALUES (?, ?, ?, ?)", (what, name, at, signed.signature))


def flip(data: bytes, at: int) -> bytes:
    """Turn over one bit."""
    at %= len(data)
    return data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :]


def alterations(right: Certificate, other: Certificate) -> Iterator[tuple[str, bytes]]:
    """Give certificates that differ from the right one in one place, by what differs."""
    for name, one in _altered(right, other):
        yield name, one.serialize()
    whole = right.serialize()
    for cut in (0, 1, len(whole) // 2, len(whole) - 1):
        yield f"cut at {cut}", whole[:cut]
    yield "a byte more", whole + b"\x00"


def _altered(right: Certificate, other: Certificate) -> Iterator[tuple[str, Certificate]]:
    for at in (5, 300, 500, len(right.genesis) // 2, -3):
        yield f"genesis at {at}", replace(right, genesis=flip(right.genesis, at))
    policy = right.genesis.replace(b"group quorum 2 ", b"group quorum 1 ")
    yield "threshold of the policy", replace(right, genesis=policy)
    for name, proof in _lines(right.proof):
        yield f"proof, {name}", replace(right, proof=proof)
    yield "proof of another act", replace(right, proof=other.proof)
    for at in (2, 40, 80, 120, 160, 200, 240, -40, -1):
        yield f"core at {at}", replace(right, core=flip(right.core, at))
    yield "another core", replace(right, core=other.core)
    yield "another act but its proof", replace(other, proof=right.proof)
    for at in (0, 31, 32, 63):
        yield f"signature at {at}", replace(right, signature=flip(right.signature, at))
    yield "signature of another act", replace(right, signature=other.signature)
    if right.seen is not None:
        yield "seen, another note", replace(right, seen=_note(right.proof))
        for name, note in _lines(right.seen):
            yield f"seen, {name}", replace(right, seen=note)
        yield "seen, left out", replace(right, seen=None)
    yield from _with_statements(right)
    yield from _with_receipts(right)
    for number, stamp in enumerate(right.stamps):
        for name, changed in (
            ("time", replace(stamp, at=stamp.at + 1)),
            ("signature", replace(stamp, signature=flip(stamp.signature, 9))),
            ("witness", replace(stamp, witness="witness2.example")),
        ):
            stamps = (*right.stamps[:number], changed, *right.stamps[number + 1 :])
            yield f"stamp {number}, {name}", replace(right, stamps=tuple(sorted(stamps)))
        left = (*right.stamps[:number], *right.stamps[number + 1 :])
        yield f"stamp {number}, left out", replace(right, stamps=left)
    desk, name = right.names[0]
    yield "name", replace(right, names=((desk, f"{name}!"),))
    yield "name of another desk", replace(right, names=((type(desk)(flip(desk, 0)), name),))
    yield "names left out", replace(right, names=())
    if right.opening is not None:
        body, key = right.opening.body, right.opening.key
        for at in (0, 24, 56, len(body) // 2, -1):
            yield f"body at {at}", replace(right, opening=Opening(flip(body, at), key))
        yield "body, cut", replace(right, opening=Opening(body[:-1], key))
        for at in (0, 31):
            yield f"key at {at}", replace(right, opening=Opening(body, flip(key, at)))
        yield "body of another act", replace(right, opening=other.opening)
        yield "not opened", replace(right, opening=None)


def _with_statements(right: Certificate) -> Iterator[tuple[str, Certificate]]:
    all_ = right.admissions
    for number, one in enumerate(all_):
        signed = one.signed
        (signer, signature), *others = signed.signatures

        def signed_by(signer: bytes, signature: bytes) -> Admission:
            pairs = tuple(sorted([(signer, signature), *others]))  # noqa: B023  # used at once
            return replace(one, signed=replace(signed, signatures=pairs))  # noqa: B023

        for name, changed in (
            ("leaf index", replace(one, index=one.index + 100)),
            ("payload", replace(one, signed=replace(signed, payload=flip(signed.payload, -9)))),
            ("hash", replace(one, hashes=(flip(one.hashes[0], 3), *one.hashes[1:]))),
            ("one hash less", replace(one, hashes=one.hashes[:-1])),
            ("ML-DSA half", signed_by(signer, flip(signature, 100))),
            ("Ed25519 half", signed_by(signer, flip(signature, -20))),
            ("signer", signed_by(flip(signer, 15), signature)),
            ("signature left out", replace(one, signed=replace(signed, signatures=tuple(others)))),
        ):
            rest = sorted((*all_[:number], changed, *all_[number + 1 :]), key=lambda at: at.index)
            yield f"statement {number}, {name}", replace(right, admissions=tuple(rest))
        left = (*all_[:number], *all_[number + 1 :])
        yield f"statement {number}, left out", replace(right, admissions=left)


def _with_receipts(right: Certificate) -> Iterator[tuple[str, Certificate]]:
    for one in right.receipts:
        payload, signature = one.signed.payload, one.signed.signature
        for name, changed in (
            ("payload", KeptReceipt(one.proof, Signed(flip(payload, -40), signature))),
            ("signature", KeptReceipt(one.proof, Signed(payload, flip(signature, 40)))),
            ("proof of the act", KeptReceipt(right.proof, one.signed)),
            *((f"proof, {name}", replace(one, proof=proof)) for name, proof in _lines(one.proof)),
        ):
            yield f"receipt, {name}", replace(right, receipts=(changed,))
    yield "receipts left out", replace(right, receipts=())


def _lines(file: bytes) -> Iterator[tuple[str, bytes]]:
    """Give a proof file or a note with one line altered in its last letters, or left out."""
    lines = file.split(b"\n")
    for number, line in enumerate(lines):
        if not line:
            continue
        altered = flip(line, -1) if line[-1:].isdigit() else flip(line, -5)
        for name, instead in (("altered", [altered]), ("left out", [])):
            changed = [*lines[:number], *instead, *lines[number + 1 :]]
            yield f"line {number} {name}", b"\n".join(changed)


def _note(proof: bytes) -> bytes:
    return proof.partition(b"\n\n")[2]


def embed(page: bytes, certificate: bytes) -> bytes:
    """Put another certificate into a page and leave all else as it is."""
    head, mark, rest = page.partition(b'id="certificate">')
    return head + mark + base64.b64encode(certificate) + b"<" + rest.partition(b"<")[2]
