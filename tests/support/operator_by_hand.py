"""Alterations that need more thought: consistent ones, rolled back ones, forged ones.

The operator holds the keys of the relay and of the log, so what only these sign he forges at will.
He has neither a device's key nor a witness's.
"""

import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any, Final

from nacl.signing import SigningKey

from comity_protocol.checkpoint import note_hash, open_checkpoint, sign_checkpoint
from comity_protocol.core import Core
from comity_protocol.encoding import serialize
from comity_protocol.envelope import Upload
from comity_protocol.keys import FastKey, random_bytes
from comity_protocol.leaves import LEAF_BYTES, receipt_hash, receipt_leaf, statement_leaf
from comity_protocol.merkle import Frontier, leaf_hash
from comity_protocol.receipts import Promise, Receipt, Signed, sign_promise, sign_receipt
from comity_protocol.signed_note import Note, SignatureLine, parse_note, serialize_note
from comity_server.store import Recipient
from comity_server.store_values import pack_counters, pack_recipients, unpack_recipients
from support.operator_run import DATABASE, Scene
from support.operator_world import STAGES

Alteration = Callable[[Scene], None]
By = tuple[str, str, str, Alteration]
"""Name, family, what is altered, and how."""

YEARS: Final = 20 * 366 * 86_400


def rebuild(scene: Scene, *, is_signed: bool) -> None:
    """Make head and tiles follow from the entries again, and the signer's memory when it is so."""
    leaves = [data for (data,) in scene.rows("SELECT data FROM leaves ORDER BY leaf_index")]
    growth = Frontier().grow([leaf_hash(leaf) for leaf in leaves])
    frontier = growth.frontier
    with scene.database() as connection:
        connection.execute(
            "UPDATE head SET size = ?, root = ?, frontier = ?",
            (frontier.size, frontier.root, frontier.serialize()),
        )
        connection.execute("DELETE FROM tile_hashes")
        connection.executemany(
            "INSERT INTO tile_hashes VALUES (?, ?, ?)",
            [(one.level, one.index, one.hash) for one in growth.tile_hashes],
        )
    if is_signed:
        with closing(sqlite3.connect(scene.data / "signer.sqlite")) as connection, connection:
            connection.execute("UPDATE signer SET frontier = ?", (frontier.serialize(),))
            connection.execute("DELETE FROM entries")
            connection.execute("INSERT INTO entries VALUES (0, ?)", (b"".join(leaves),))


def entry_altered(index: int, *, is_signed: bool) -> Alteration:
    def alter(scene: Scene) -> None:
        ((data,),) = scene.rows("SELECT data FROM leaves WHERE leaf_index = ?", index)
        data = data[:40] + bytes([data[40] ^ 1]) + data[41:]
        scene.execute("UPDATE leaves SET data = ? WHERE leaf_index = ?", data, index)
        rebuild(scene, is_signed=is_signed)

    return alter


def entries_swapped(first: int, second: int) -> Alteration:
    def alter(scene: Scene) -> None:
        (one,), (other,) = (
            scene.rows("SELECT data FROM leaves WHERE leaf_index = ?", index)[0]
            for index in (first, second)
        )
        scene.execute("UPDATE leaves SET data = ? WHERE leaf_index = ?", other, first)
        scene.execute("UPDATE leaves SET data = ? WHERE leaf_index = ?", one, second)
        rebuild(scene, is_signed=True)

    return alter


def entry_removed(scene: Scene) -> None:
    """Take the last entry and its object away, as if it had never been."""
    (size,) = scene.rows("SELECT size FROM head")[0]
    scene.execute("DELETE FROM leaves WHERE leaf_index = ?", size - 1)
    for table in ("receipts", "envelopes", "notices", "statements"):
        with scene.database() as connection:
            connection.execute(f"DELETE FROM {table} WHERE leaf_index = ?", (size - 1,))  # noqa: S608
    rebuild(scene, is_signed=True)


def entry_in_the_middle(scene: Scene) -> None:
    """Push an entry in, and every later one a place on."""
    scene.execute("UPDATE leaves SET leaf_index = -leaf_index - 1 WHERE leaf_index >= 100")
    scene.execute("UPDATE leaves SET leaf_index = -leaf_index WHERE leaf_index < 0")
    scene.execute("INSERT INTO leaves VALUES (100, ?)", b"\x00" + random_bytes(LEAF_BYTES - 1))
    rebuild(scene, is_signed=True)


def append(scene: Scene, leaf: bytes) -> int:
    """Add an entry, consistently; give its index."""
    (size,) = scene.rows("SELECT size FROM head")[0]
    scene.execute("INSERT INTO leaves VALUES (?, ?)", size, leaf)
    rebuild(scene, is_signed=True)
    return int(size)


def ghost_statement(scene: Scene) -> None:
    """Log a statement that nobody signed, without giving it to anybody."""
    append(scene, statement_leaf(b"a device that nobody admitted"))


def forged_statement(scene: Scene) -> None:
    """Admit a device to alice's desk by keys that the operator made."""
    world = scene.world
    alice = scene.past.members["alice"]
    ghost = replace(alice, fast=FastKey.generate())
    signed = world.admission(ghost, by=[alice.full])
    payload = signed.payload
    index = append(scene, statement_leaf(payload))
    promise = sign_promise(world.relay_key, Promise(signed.hash, scene.past.at)).serialize()
    (ordinal,) = scene.rows("SELECT statements FROM head")[0]
    forged = serialize([[signer, bytes(len(sig))] for signer, sig in signed.signatures])
    scene.execute(
        "INSERT INTO statements VALUES (?, ?, ?, ?, 'device', ?, ?, ?, ?)",
        ordinal + 1, signed.hash, payload, forged, alice.desk, scene.past.at, promise, index,
    )  # fmt: skip
    scene.execute("UPDATE head SET statements = statements + 1")


def forged_receipt(*, by_relay: bool) -> Alteration:
    """Log a receipt of bob's desk that bob's device did not sign."""

    def alter(scene: Scene) -> None:
        world, bob = scene.world, scene.past.members["bob"]
        (core_hash_, id_, sender) = scene.rows(
            "SELECT core_hash, id, sender_desk FROM envelopes ORDER BY leaf_index DESC LIMIT 2"
        )[1]
        seen = scene.rows("SELECT note_hash FROM checkpoints ORDER BY size DESC LIMIT 1")[0][0]
        seq = world.directory.desk(bob.desk).seq
        receipt = Receipt(bob.desk, bob.id, seq, ((id_, core_hash_),), seen)
        key = world.relay_key if by_relay else FastKey.generate()
        signed = sign_receipt(key, receipt)
        hash_ = receipt_hash(signed.payload)
        promise = sign_promise(world.relay_key, Promise(hash_, scene.past.at)).serialize()
        index = append(scene, receipt_leaf(signed.payload))
        scene.execute(
            "INSERT INTO receipts VALUES (?, ?, ?, ?, ?, ?, ?, ?, NULL, ?)",
            hash_, signed.payload, signed.signature, bob.desk, sender, id_, scene.past.at, promise,
            index,
        )  # fmt: skip

    return alter


def put_back(stage: int, *names: str) -> Alteration:
    """Put older files back."""

    def alter(scene: Scene) -> None:
        for name in names:
            shutil.copy(scene.past.older(stage) / name, scene.data / name)

    return alter


def rolled_back_but(stage: int, *tables: str) -> Alteration:
    """Put the older database and signer back, but keep some tables as they are now."""

    def alter(scene: Scene) -> None:
        now = scene.folder / "now.sqlite"
        shutil.copy(scene.data / DATABASE, now)
        put_back(stage, DATABASE, "signer.sqlite")(scene)
        with scene.database() as connection:
            connection.execute("ATTACH ? AS now", (str(now),))
            for table in tables:
                connection.execute(f"DELETE FROM main.{table}")  # noqa: S608
                connection.execute(f"INSERT INTO main.{table} SELECT * FROM now.{table}")  # noqa: S608

    return alter


def promise_moved(table: str, seconds: int) -> Alteration:
    """Sign a promise anew, for another time."""

    def alter(scene: Scene) -> None:
        rows = scene.rows(f"SELECT leaf_index, promise FROM {table} ORDER BY leaf_index")  # noqa: S608
        index, data = rows[-1 if table == "statements" else 0]
        promise = Promise.parse(Signed.parse(data).payload)
        moved = sign_promise(scene.world.relay_key, Promise(promise.what, promise.at + seconds))
        scene.execute(
            f"UPDATE {table} SET promise = ?, accepted_at = ? WHERE leaf_index = ?",  # noqa: S608
            moved.serialize(), promise.at + seconds, index,
        )  # fmt: skip

    return alter


def accepted_at(table: str, at: int) -> Alteration:
    """Move the clock of retention."""
    return lambda scene: scene.execute(f"UPDATE {table} SET accepted_at = accepted_at + ?", at)  # noqa: S608


def note_changed(how: Callable[[Scene, bytes, bytes], bytes]) -> Alteration:
    """Replace the newest published note by one made of it and an older one."""

    def alter(scene: Scene) -> None:
        query = "SELECT note FROM checkpoints ORDER BY size DESC, at DESC"
        notes = [note for (note,) in scene.rows(query)]
        newest, older = (
            notes[0],
            next(note for note in notes if _root(scene, note) != _root(scene, notes[0])),
        )
        changed = how(scene, newest, older)
        with scene.database() as connection:
            connection.execute("DELETE FROM checkpoints WHERE note = ?", (newest,))
            connection.execute(
                "INSERT INTO checkpoints VALUES (?, ?, ?, ?)",
                (
                    note_hash(changed),
                    open_checkpoint(changed, scene.world.genesis.log).size,
                    changed,
                    scene.past.at + 10**6,
                ),
            )

    return alter


def _root(scene: Scene, note: bytes) -> bytes:
    return open_checkpoint(note, scene.world.genesis.log).root


def old_cosignatures(scene: Scene, newest: bytes, older: bytes) -> bytes:
    """Put the cosignatures of an older checkpoint under the newest."""
    log = scene.world.genesis.log.name
    mine, its = parse_note(newest), parse_note(older)
    lines = [line for line in mine.signatures if line.name == log]
    return serialize_note(
        Note(mine.text, (*lines, *(line for line in its.signatures if line.name != log)))
    )


def cosigned_at(seconds: int) -> Callable[[Scene, bytes, bytes], bytes]:
    """Change the time in every cosignature."""

    def change(scene: Scene, newest: bytes, older: bytes) -> bytes:
        del older
        log, note = scene.world.genesis.log.name, parse_note(newest)
        lines = tuple(
            line if line.name == log else _moved(line, seconds) for line in note.signatures
        )
        return serialize_note(Note(note.text, lines))

    return change


def _moved(line: SignatureLine, seconds: int) -> SignatureLine:
    at = int.from_bytes(line.signature[:8], "big") + seconds
    return replace(line, signature=at.to_bytes(8, "big") + line.signature[8:])


def uncosigned(scene: Scene, newest: bytes, older: bytes) -> bytes:
    """Leave the witnesses out."""
    del older
    log, note = scene.world.genesis.log.name, parse_note(newest)
    return serialize_note(
        Note(note.text, tuple(line for line in note.signatures if line.name == log))
    )


def one_cosigned(scene: Scene, newest: bytes, older: bytes) -> bytes:
    """Leave one witness, below the quorum."""
    del older
    log, note = scene.world.genesis.log.name, parse_note(newest)
    own = tuple(line for line in note.signatures if line.name == log)
    rest = tuple(line for line in note.signatures if line.name != log)
    return serialize_note(Note(note.text, (*own, *rest[:1])))


def larger_head(scene: Scene, newest: bytes, older: bytes) -> bytes:
    """Sign a head that no witness saw, and give it the cosignatures of the newest."""
    del older
    genesis = scene.world.genesis
    note = parse_note(newest)
    forged = parse_note(
        sign_checkpoint(
            origin=genesis.origin,
            size=open_checkpoint(newest, genesis.log).size + 1,
            root=bytes(32),
            key=scene.world.log_key,
        )
    )
    rest = tuple(line for line in note.signatures if line.name != genesis.log.name)
    return serialize_note(Note(forged.text, (*forged.signatures, *rest)))


def brought_back(*, with_tombstones: bool) -> Alteration:
    """Put the body and the wraps of what was erased back, as they were uploaded."""

    def alter(scene: Scene) -> None:
        erased = scene.past.erased
        uploads = [one.body for one in scene.past.sent if one.path == "/v1/envelopes"]
        upload = next(
            one for one in map(Upload.parse, uploads) if Core.parse(one.core).id == erased
        )
        ((packed, index),) = scene.rows(
            "SELECT recipients, leaf_index FROM envelopes WHERE id = ?", erased
        )
        recipients = tuple(
            Recipient(to.desk, to.epoch, to.kind, wrap)
            for to, wrap in zip(unpack_recipients(packed), upload.wraps or (None,) * 3, strict=True)
        )
        scene.execute(
            "UPDATE envelopes SET body = ?, audit = ?, recipients = ? WHERE id = ?",
            upload.body, upload.audit, pack_recipients(recipients), erased,
        )  # fmt: skip
        for to in recipients:
            scene.execute(
                "UPDATE mailbox_items SET kind = ? WHERE desk = ? AND leaf_index = ?",
                to.kind, to.desk, index,
            )  # fmt: skip
        if not with_tombstones:
            (scene.data / "tombstones.sqlite").unlink()

    return alter


def of_file(name: str, table: str, query: str, *values: Any) -> Alteration:  # noqa: ANN401
    """Alter one of the small files beside the database."""
    del table

    def alter(scene: Scene) -> None:
        with closing(sqlite3.connect(scene.data / name)) as connection, connection:
            assert connection.execute(query, values).rowcount, query

    return alter


def unlink(name: str) -> Alteration:
    """Delete a file."""
    return lambda scene: (scene.data / name).unlink()


def garbled(name: str) -> Alteration:
    """Flip a bit at the beginning of a file."""

    def alter(scene: Scene) -> None:
        path = scene.data / name
        data = path.read_bytes()
        path.write_bytes(data[:3] + bytes([data[3] ^ 1]) + data[4:])

    return alter


def other_log_key(scene: Scene) -> None:
    scene.world = replace(scene.world, log_key=SigningKey.generate())


def other_relay_key(scene: Scene) -> None:
    scene.world = replace(scene.world, relay_key=FastKey.generate())


def other_genesis(scene: Scene) -> None:
    """Install a genesis with another witness in the place of one."""
    _, first = scene.world.statements[0]
    signatures = first.signatures[:-1]
    statements = [(0, replace(first, signatures=signatures)), *scene.world.statements[1:]]
    scene.world = replace(scene.world, statements=statements)


def sql(*queries: str) -> Alteration:
    """Run statements on the database."""

    def alter(scene: Scene) -> None:
        for query in queries:
            scene.execute(query)

    return alter


def one_counter_twice(scene: Scene) -> None:
    """Give an envelope the mailbox counter of the one before, in the mailbox and in its row."""
    desk = scene.past.members["bob"].desk
    last, before = scene.rows(
        "SELECT counter, leaf_index FROM mailbox_items WHERE desk = ?"
        " ORDER BY counter DESC LIMIT 2",
        desk,
    )
    scene.execute("DELETE FROM mailbox_items WHERE desk = ? AND counter = ?", desk, before[0])
    scene.execute(
        "UPDATE mailbox_items SET counter = ? WHERE desk = ? AND counter = ?",
        before[0], desk, last[0],
    )  # fmt: skip
    ((packed, counters),) = scene.rows(
        "SELECT recipients, counters FROM envelopes WHERE leaf_index = ?", last[1]
    )
    numbers = [
        before[0] if to.desk == desk else int.from_bytes(counters[8 * at : 8 * at + 8], "big")
        for at, to in enumerate(unpack_recipients(packed))
    ]
    scene.execute(
        "UPDATE envelopes SET counters = ? WHERE leaf_index = ?",
        pack_counters(tuple(numbers)), last[1],
    )  # fmt: skip
    scene.execute("UPDATE mailboxes SET counter = ? WHERE desk = ?", before[0], desk)


def by_hand() -> Iterator[By]:
    """Give them all."""
    for index in (1, 30, 100, 255, 270, 283):
        word = f"entry {index}"
        yield (
            f"{word} altered, tree recomputed",
            "change",
            word,
            entry_altered(index, is_signed=False),
        )
        yield (
            f"{word} altered, tree recomputed and signed",
            "forged",
            word,
            entry_altered(index, is_signed=True),
        )
    for first, second in ((26, 27), (40, 41), (281, 283)):
        word = f"entries {first} and {second}"
        yield (
            f"{word} swapped, tree recomputed and signed",
            "swap",
            word,
            entries_swapped(first, second),
        )
    yield "last entry taken out, signed", "delete", "log", entry_removed
    yield "entry pushed in at 100, signed", "insert", "log", entry_in_the_middle
    yield "statement that nobody made logged", "insert", "log", ghost_statement
    yield "device admitted by the operator's keys", "forged", "statements", forged_statement
    yield "receipt signed by the relay's key", "forged", "receipts", forged_receipt(by_relay=True)
    yield "receipt signed by a stray key", "forged", "receipts", forged_receipt(by_relay=False)
    for stage in range(STAGES - 1):
        back = f"as after stage {stage}"
        yield f"database {back}", "roll back", DATABASE, put_back(stage, DATABASE)
        yield (
            f"database and signer {back}",
            "roll back",
            "both",
            put_back(stage, DATABASE, "signer.sqlite"),
        )
        yield f"signer {back}", "roll back", "signer.sqlite", put_back(stage, "signer.sqlite")
        yield (
            f"everything {back}",
            "roll back",
            "all files",
            put_back(stage, DATABASE, "signer.sqlite", "tombstones.sqlite"),
        )
        yield (
            f"everything {back} but the checkpoints",
            "roll back",
            "all files",
            rolled_back_but(stage, "checkpoints"),
        )
    yield "tombstones as after stage 1", "roll back", "tombstones", put_back(1, "tombstones.sqlite")
    for table in ("envelopes", "receipts", "notices", "statements"):
        yield (
            f"promise in {table} back-dated by a day",
            "back-date",
            table,
            promise_moved(table, -86_400),
        )
        yield (
            f"promise in {table} dated a day later",
            "back-date",
            table,
            promise_moved(table, 86_400),
        )
        yield (
            f"all of {table} accepted {20} years earlier",
            "back-date",
            table,
            accepted_at(table, -YEARS),
        )
    for name, how in (
        ("old cosignatures under the newest checkpoint", old_cosignatures),
        ("newest checkpoint cosigned an hour earlier", cosigned_at(-3_600)),
        ("newest checkpoint cosigned a second later", cosigned_at(1)),
        ("newest checkpoint without witnesses", uncosigned),
        ("newest checkpoint with one witness", one_cosigned),
        ("larger head with the cosignatures of the newest", larger_head),
    ):
        yield name, "forged", "checkpoints", note_changed(how)
    yield "erased copies brought back", "roll back", "envelopes", brought_back(with_tombstones=True)
    yield (
        "erased copies brought back, tombstones deleted",
        "roll back",
        "envelopes",
        brought_back(with_tombstones=False),
    )
    yield "one mailbox counter given twice", "insert", "mailbox_items", one_counter_twice
    for table in (
        "statements", "envelopes", "receipts", "notices", "mailbox_items", "receipt_readers",
        "notice_readers", "holds", "mailboxes", "leaves", "tile_hashes", "checkpoints", "head",
        "epoch_boxes", "previous_epochs", "leases",
    ):  # fmt: skip
        yield f"all of {table} deleted", "delete", table, sql(f"DELETE FROM {table}")  # noqa: S608
    yield (
        "removal withheld from everybody",
        "withheld tail",
        "statements",
        sql(
            "DELETE FROM statements WHERE kind = 'removal'",
            "UPDATE head SET statements = statements - 1",
        ),
    )
    yield (
        "all checkpoints but the newest deleted",
        "withheld tail",
        "checkpoints",
        sql("DELETE FROM checkpoints WHERE size < (SELECT max(size) FROM checkpoints)"),
    )
    yield (
        "covering checkpoints deleted, so that acts look later",
        "back-date",
        "checkpoints",
        sql("DELETE FROM checkpoints WHERE size BETWEEN 20 AND 280"),
    )
    yield (
        "vacancy invented",
        "insert",
        "vacancies",
        sql(
            "INSERT INTO repair VALUES (1, 280, 284, 1800000000, 1800000001, 0, NULL, NULL, NULL)",
            "INSERT INTO vacancies SELECT leaf_index, substr(data, 2, 32), data, 0, 0, NULL"
            " FROM leaves WHERE leaf_index = 283",
        ),
    )
    yield (
        "repair invented",
        "insert",
        "repair",
        sql("INSERT INTO repair VALUES (1, 280, 284, 1800000000, 1800000001, 0, NULL, NULL, NULL)"),
    )
    yield (
        "pending row invented",
        "insert",
        "pending",
        sql("INSERT INTO pending (kind, key) VALUES ('receipt', x'00')"),
    )
    yield (
        "pending row of an envelope that has its place",
        "insert",
        "pending",
        sql("INSERT INTO pending (kind, key) SELECT 'envelope', id FROM envelopes LIMIT 1"),
    )
    yield (
        "parked row invented",
        "insert",
        "parked",
        sql("INSERT INTO parked (kind, key, reason) VALUES ('receipt', x'00', 'x')"),
    )
    yield (
        "tables of another version",
        "change",
        "schema_version",
        sql("UPDATE schema_version SET version = version + 1"),
    )
    yield (
        "reference to other wraps invented",
        "change",
        "envelopes",
        sql(
            "UPDATE envelopes SET ref = id"
            " WHERE leaf_index = (SELECT min(leaf_index) FROM envelopes)"
        ),
    )
    yield (
        "entry of the signer's memory altered",
        "change",
        "signer.sqlite",
        of_file("signer.sqlite", "entries", "UPDATE entries SET data = zeroblob(length(data))"),
    )
    yield (
        "entries of the signer's memory deleted",
        "delete",
        "signer.sqlite",
        of_file("signer.sqlite", "entries", "DELETE FROM entries"),
    )
    yield (
        "frontier of the signer's memory altered",
        "change",
        "signer.sqlite",
        of_file(
            "signer.sqlite", "signer", "UPDATE signer SET frontier = ?", Frontier().serialize()
        ),
    )
    yield (
        "signer's memory of another log",
        "change",
        "signer.sqlite",
        of_file("signer.sqlite", "signer", "UPDATE signer SET origin = 'other'"),
    )
    yield (
        "tombstone deleted",
        "delete",
        "tombstones.sqlite",
        of_file("tombstones.sqlite", "tombstones", "DELETE FROM tombstones"),
    )
    yield "tombstones invented for everything", "insert", "tombstones.sqlite", tombstones_invented
    for name in ("signer.sqlite", "tombstones.sqlite", DATABASE):
        yield f"{name} deleted", "delete", name, unlink(name)
        yield f"{name} garbled", "change", name, garbled(name)
    yield "another log key", "forged", "log.key", other_log_key
    yield "another relay key", "forged", "relay.key", other_relay_key
    yield "genesis with a signature left out", "change", "genesis.cbor", other_genesis


def tombstones_invented(scene: Scene) -> None:
    """Have everything of bob's erased at the next start."""
    desk = scene.past.members["bob"].desk
    ids: Sequence[tuple[bytes]] = scene.rows("SELECT id FROM envelopes")
    with closing(sqlite3.connect(scene.data / "tombstones.sqlite")) as connection, connection:
        connection.executemany(
            "INSERT INTO tombstones VALUES (?, ?) ON CONFLICT DO NOTHING",
            [(id_, desk) for (id_,) in ids],
        )
