"""The relay cannot read: nothing of what desks say to each other is anywhere in or around it.

Promise P14. Two exchanges between prosecutors and an auditor are played by the real client over
the real relay, with a planted word in every text that a person can write. Then every byte is
searched that the relay has written, logged, counted, sent or been sent. Beside the words, what the
relay must not know of the exchanges is searched for: their ids, salts, and codes of offences,
legal bases and urgency. The control plants one word, in each form, and each must be found.
"""

import asyncio
import shutil
import sqlite3
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from urllib.parse import urlsplit

import asyncpg
import pytest
from aiohttp import ClientSession

from comity_client.desk import Desk
from comity_client.drafts import Draft, DraftHandling, DraftItem, DraftPerson
from comity_client.profile import read_profile, write_profile
from comity_protocol.identifiers import DeskId
from comity_protocol.statements import Authority, Policy
from support.canary import Canaries, files_below, forms_of, hits
from support.desks import enrol, open_desk
from support.load import Ledger, Line, insist_on_statement
from support.postgres import PostgresServer
from support.process import RelayProcess, watching_witness
from support.relay import Clock
from support.world import Member, World

CLOCK = Clock()


def now() -> int:
    return int(CLOCK())


@dataclass(slots=True)
class Wire:
    """Everything that went over the wire, in both directions, and where to connect to."""

    url: str = ""
    asked: bytearray = field(default_factory=bytearray)
    answered: bytearray = field(default_factory=bytearray)


@asynccontextmanager
async def tapped(relay: RelayProcess) -> AsyncIterator[Wire]:
    """Stand between clients and the relay and keep every byte."""
    wire = Wire()
    host, port = str(urlsplit(relay.url).hostname), urlsplit(relay.url).port

    async def pump(
        source: asyncio.StreamReader, sink: asyncio.StreamWriter, kept: bytearray
    ) -> None:
        try:
            while part := await source.read(65_536):
                kept.extend(part)
                sink.write(part)
                await sink.drain()
        except ConnectionError:
            pass
        finally:
            sink.close()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_relay, from_relay = await asyncio.open_connection(host, port)
        await asyncio.gather(
            pump(reader, from_relay, wire.asked), pump(to_relay, writer, wire.answered)
        )

    server = await asyncio.start_server(connect, "127.0.0.1", 0)
    async with server:
        wire.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield wire


@dataclass(slots=True)
class Played:
    """What is left when the desks have said all they had to say.

    Attributes:
        asked: What the desks sent over the wire; the clumsy program's requests are not in it.
        secrets: What the relay must not know beside the words: name and bytes.
    """

    canaries: Canaries
    relay: RelayProcess
    wire: Wire
    asked: bytes
    metrics: bytes
    secrets: dict[str, bytes]

    def around_the_relay(self) -> list[tuple[str, bytes]]:
        """All that the relay wrote beside its database, said and was told."""
        return [
            *files_below(self.relay.folder),
            ("answers", bytes(self.wire.answered)),
            ("requests", self.asked),
            ("metrics", self.metrics),
        ]


def request_of(canaries: Canaries) -> Draft:
    """A request with a word in every field that takes free text."""
    word = canaries.word
    return Draft(
        reference=word("reference"),
        language="en",
        basis=("UNTOC18",),
        offences=("TIP",),
        urgency="U3",
        urgency_reason="LIFE",
        due_on="2027-03-01",
        due_reason=word("due_reason"),
        text=word("text"),
        authority=word("authority"),
        proceeding=word("proceeding"),
        facts=word("facts"),
        items=(DraftItem("M05", word("wanted")), DraftItem("M19", word("wanted too"))),
        persons=(DraftPerson("VICTIM", word("victim")), DraftPerson("SUSPECT", word("suspect"))),
        purpose=word("purpose"),
        cases=1,
        victims=2,
        children="NO",
        handling=DraftHandling("THIS_INVESTIGATION", "YES", "AUTHORITY"),
    )


@asynccontextmanager
async def played(folder: Path, database: str) -> AsyncIterator[Played]:
    """Play a lead and a formal request to their ends; the relay runs until the caller is done."""
    world, canaries = World.found(("XA", "XB", "SEC")), Canaries()
    auditor = world.create_desk("SEC", Authority.SECRETARIAT)
    policy = Policy(auditors_file=(auditor,), auditors_lead=(auditor,))
    desks = [world.create_desk(code, Authority.PROSECUTION, policy=policy) for code in ("XA", "XB")]
    async with AsyncExitStack() as stack:
        urls = [
            await stack.enter_async_context(watching_witness(folder, name, world, set(), CLOCK))
            for name in sorted(world.witness_keys)
        ]
        relay = RelayProcess(folder / "relay", world, witnesses=urls, database=database)
        stack.push_async_callback(relay.kill)
        await relay.start()
        wire = await stack.enter_async_context(tapped(relay))
        session = await stack.enter_async_context(ClientSession())
        line = Line(world, Ledger(), session, url=wire.url)
        for _, signed in world.statements[1:]:
            await insist_on_statement(line, signed)
        await _wait_until_logged(line, len(world.statements))
        one, other = [
            await _open(stack, folder, world, world.active(desk)[0], wire.url, canaries, desks)
            for desk in desks
        ]
        secrets_ = await _talk(one, other, desks[1], canaries)
        asked = bytes(wire.asked)
        await _slip(line, world.active(desks[0])[0], canaries)
        async with session.get(line.url + "/metrics") as response:
            metrics = await response.read()
        yield Played(canaries, relay, wire, asked, metrics, secrets_)


async def _open(
    stack: AsyncExitStack,
    folder: Path,
    world: World,
    member: Member,
    url: str,
    canaries: Canaries,
    desks: list[DeskId],
) -> Desk:
    """Open a desk whose officer's name and whose names of others are words."""
    own = enrol(folder / canaries.word(f"officer {member.id.hex()}"), world, member, url)
    names = {desk: canaries.word(f"nickname {desk.hex()}") for desk in desks}
    write_profile(own, replace(read_profile(own), names=MappingProxyType(names)))
    desk, _ = open_desk(own, member, now)
    await stack.enter_async_context(desk)
    await desk.sync()
    return desk


async def _wait_until_logged(line: Line, leaves: int) -> None:
    size = 0
    async with asyncio.timeout(30):
        while size < leaves:
            async with line.session.get(line.url + "/checkpoint") as response:
                if response.status == 200:
                    size = int((await response.read()).split(b"\n")[1])


async def _talk(one: Desk, other: Desk, to: DeskId, canaries: Canaries) -> dict[str, bytes]:
    word = canaries.word
    lead = Draft(
        text=word("lead"),
        language="en",
        offences=("TIP",),
        handling=DraftHandling("THIS_INVESTIGATION", "ASK", "OFFICE"),
    )
    sent = [one.lead(to, lead), one.request(to, request_of(canaries))]
    await _deliver(one, other)
    first, second = (other.read(id_).record.exchange for id_ in sent)
    sent += [other.add(first, Draft(text=word("more"), language="en"))]
    sent += [other.acknowledge(second, Draft(authority=word("competent authority")))]
    sent += [other.consult(second, Draft(topic="COST", text=word("consultation")))]
    await _deliver(other, one)
    sent += [other.answer(second, Draft(text=word("answer"), outcomes=("DONE", "DONE")))]
    await _deliver(other, one)
    sent += [one.close(second, Draft(text=word("closing")))]
    await _deliver(one, other)
    opened = [one.read(id_) for id_ in sent]
    texts = [str(found.act) for found in opened]
    assert all(canaries.stem in text for text in texts), "each act carries a word"
    known: dict[str, bytes] = {
        f"exchange {number}": id_ for number, id_ in enumerate((first, second))
    }
    for number, found in enumerate(opened):
        assert found.act is not None
        known[f"salt {number}"] = found.act.salt
        known[f"body {number}"] = found.act.serialize()[:48]
    return known


async def _deliver(sender: Desk, receiver: Desk) -> None:
    await sender.flush()
    async with asyncio.timeout(30):
        while not await receiver.fetch():
            await sender.sync()
    await sender.fetch()


async def _slip(line: Line, member: Member, canaries: Canaries) -> None:
    """Put words where a clumsy program might: what is refused must not be echoed or kept."""
    word = canaries.stem
    raw = line.session
    for method, path, headers, body in (
        ("GET", f"/v1/mailbox?after={word}", {}, b""),
        ("GET", f"/{word}", {}, b""),
        ("GET", f"/v1/proof/{word}", {}, b""),
        ("GET", f"/v1/envelopes/{word}", {"Authorization": f"Comity {word}"}, b""),
        ("POST", "/v1/statements", {"Content-Type": "application/cbor"}, word.encode()),
        ("POST", "/v1/statements", {"Content-Type": f"text/{word}"}, word.encode()),
        # Not as a method: before routing the web server quotes a wrong one to whoever sent it.
        ("PUT", "/version", {"X-Case": word}, b""),
    ):
        async with raw.request(
            method, line.url + path, headers=headers, data=body or None
        ) as response:
            assert response.status >= 400
            await response.read()


CODES = {
    "offence": b"\x63TIP",
    "legal basis": b"\x67UNTOC18",
    "measure": b"\x63M05",
    "purpose": b"THIS_INVESTIGATION",
    "role": b"\x66VICTIM",
    "reason": b"\x64LIFE",
    "event": b"\x67request",
}
"""As the protocol's encoding writes them; a bare ``U3`` would be found in any random bytes."""


async def test_nothing_that_desks_say_is_in_or_around_a_relay_on_sqlite(tmp_path: Path) -> None:
    async with played(tmp_path, "") as left:
        while_running = left.around_the_relay()
        await left.relay.stop()
        after = list(files_below(left.relay.folder))
    forms = left.canaries.forms()
    unknown = {
        f"{name}, {form}": data
        for name, secret in left.secrets.items()
        for form, data in forms_of(secret).items()
    }

    assert hits(while_running, forms) == []
    assert hits(after, forms) == []
    assert hits([*while_running, *after], unknown) == []
    assert {name for name, _ in while_running} >= {"relay.sqlite", "relay.sqlite-wal", "stderr.log"}
    database = tmp_path / "relay" / "relay.sqlite"
    assert hits(_columns(database, tmp_path), CODES) == []

    # The control: one word in the clear in one row of a copy of this very database.
    connection = sqlite3.connect(shutil.copy(database, tmp_path / "planted.sqlite"))
    word = left.canaries.word("facts").encode()
    connection.execute(
        "UPDATE envelopes SET audit = audit || ?"
        " WHERE leaf_index = (SELECT max(leaf_index) FROM envelopes)",
        [word],
    )
    assert connection.total_changes == 1
    connection.commit()
    connection.close()
    planted = [("copy", (tmp_path / "planted.sqlite").read_bytes())]
    assert hits(planted, forms) == ["as it is in copy"]


async def test_nothing_that_desks_say_is_in_or_around_a_relay_on_postgresql(
    tmp_path: Path,
) -> None:
    with PostgresServer() as server:
        async with played(tmp_path, server.create_database()) as left:
            around = left.around_the_relay()
            # Everything that is only in PostgreSQL's memory goes to its files.
            watcher = await asyncpg.connect(left.relay.database.replace("+asyncpg", ""))
            await watcher.execute("CHECKPOINT")
            count = await watcher.fetchval("SELECT count(*) FROM envelopes")
            await watcher.close()
            files = list(files_below(server._directory / "data"))
            files.append(("log", (server._directory / "log").read_bytes()))
    unknown = {
        f"{name}, {form}": data
        for name, secret in left.secrets.items()
        for form, data in forms_of(secret).items()
    }

    assert count == 7
    assert hits(around, left.canaries.forms()) == []
    assert hits(files, left.canaries.forms()) == []
    assert hits(files, unknown) == []
    assert any("pg_wal/" in name for name, _ in files)


@pytest.mark.parametrize("form", sorted(Canaries().forms()))
def test_a_word_that_is_written_anywhere_would_be_found(tmp_path: Path, form: str) -> None:
    """Control: one word in one form in one row of a copy."""
    canaries = Canaries()
    with sqlite3.connect(tmp_path / "copy.sqlite") as copy:
        copy.execute("CREATE TABLE envelopes (body BLOB)")
        copy.execute("INSERT INTO envelopes VALUES (?)", [b"abc" + canaries.forms()[form] + b"de"])
    copy.close()

    assert hits(files_below(tmp_path), canaries.forms())


@pytest.mark.parametrize("before", range(3))
def test_base64_is_found_at_any_place_of_a_longer_text(before: int) -> None:
    """Control: what stands before and after changes how a word looks in base64."""
    canaries = Canaries()
    text = "x" * before + canaries.word("facts") + "y"

    assert hits([("text", b64encode(text.encode()))], canaries.forms())


def _columns(database: Path, folder: Path) -> list[tuple[str, bytes]]:
    """What the relay holds sealed, column by column, from a copy of the database."""
    copy = folder / "searched.sqlite"
    shutil.copy(database, copy)
    connection = sqlite3.connect(copy)
    names = ("body", "audit", "recipients", "core")
    found = [
        (name, value)
        for name in names
        for (value,) in connection.execute(f"SELECT {name} FROM envelopes")  # noqa: S608 - our names
    ]
    connection.close()
    assert len(found) == 7 * len(names)
    return found
