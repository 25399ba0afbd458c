"""The tables of the relay's store: one schema for SQLite and PostgreSQL.

Each column says why the relay keeps it; what is not here the relay does not know. Everything but
``head``, ``mailboxes``, ``leases``, ``holds`` and the queues ``pending`` and ``parked`` is written
once: of a stored object only its place (leaf index, counters) is filled in later, and only once,
and of an envelope the parts are taken out that nobody has a copy of any more.

There are no foreign keys: rows that belong together are written in one transaction, by one method,
and are erased in an order of their own. Unique keys carry the rules: no id twice [R-2], no leaf
index and no counter of a mailbox twice [R-3].
"""

from typing import Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
)

SCHEMA_VERSION: Final = 7
"""Counts up with every change below. A program refuses the tables of another version."""

metadata: Final = MetaData()

# SQLite stores by its row number only what is declared INTEGER PRIMARY KEY.
_Number = BigInteger().with_variant(Integer(), "sqlite")

_KINDS: Final = "kind IN ('statement', 'envelope', 'receipt', 'notice')"

schema_version: Final = Table(
    "schema_version",
    metadata,
    Column(
        "version",
        Integer,
        primary_key=True,
        autoincrement=False,
        comment="which tables these are, so that a program never writes into others",
    ),
)

head: Final = Table(
    "head",
    metadata,
    Column(
        "id",
        SmallInteger,
        CheckConstraint("id = 1"),
        primary_key=True,
        autoincrement=False,
        comment="always 1: the one row whose lock puts all integration in one order",
    ),
    Column("size", BigInteger, nullable=False, comment="the next leaf index"),
    Column("root", LargeBinary, nullable=False, comment="root hash, for the signer to compare"),
    Column(
        "frontier",
        LargeBinary,
        nullable=False,
        comment="hashes that the next leaves are joined to, so that growing reads no old leaf",
    ),
    Column(
        "statements",
        BigInteger,
        nullable=False,
        comment="ordinal of the newest statement, so that no decision rests on an older directory",
    ),
    Column(
        "incarnation",
        LargeBinary,
        nullable=False,
        comment="random mark of this database, by which clients notice a relay set up anew",
    ),
    Column(
        "erasures",
        BigInteger,
        nullable=False,
        comment="how often copies were erased, so that no reference rests on wraps that are gone",
    ),
)

statements: Final = Table(
    "statements",
    metadata,
    Column(
        "ordinal",
        _Number,
        primary_key=True,
        autoincrement=False,
        comment="order of acceptance, by which readers page and directories are compared",
    ),
    Column("hash", LargeBinary, nullable=False, unique=True, comment="a known one is not repeated"),
    Column("payload", LargeBinary, nullable=False, comment="what was signed; for all members"),
    Column("signatures", LargeBinary, nullable=False, comment="for members to verify the payload"),
    Column("kind", Text, nullable=False, comment="lets an operator see what happened to a desk"),
    Column("desk", LargeBinary, comment="whose chain it continues; none for the genesis"),
    Column("accepted_at", BigInteger, nullable=False, comment="time that the promise states"),
    Column("promise", LargeBinary, nullable=False, comment="given again when it is sent again"),
    Column("leaf_index", BigInteger, unique=True, comment="its place in the log; empty if pending"),
)

epoch_boxes: Final = Table(
    "epoch_boxes",
    metadata,
    Column("desk", LargeBinary, primary_key=True, comment="whose epoch keys the box holds"),
    Column("device", LargeBinary, primary_key=True, comment="who can open it and is given it"),
    Column(
        "epoch",
        BigInteger,
        primary_key=True,
        autoincrement=False,
        comment="tells the device which key of its desk it gets",
    ),
    Column(
        "ordinal",
        BigInteger,
        primary_key=True,
        autoincrement=False,
        comment="the statement that brought it, so that the newest box of an epoch is given",
    ),
    Column("box", LargeBinary, nullable=False, comment="sealed epoch keys, carried to the device"),
)

previous_epochs: Final = Table(
    "previous_epochs",
    metadata,
    Column("desk", LargeBinary, primary_key=True, comment="whose history it opens"),
    Column(
        "epoch",
        BigInteger,
        primary_key=True,
        autoincrement=False,
        comment="the epoch whose file seed opens it",
    ),
    Column(
        "ordinal",
        BigInteger,
        primary_key=True,
        autoincrement=False,
        comment="the statement that brought it, so that the newest one of an epoch is given",
    ),
    Column(
        "previous",
        LargeBinary,
        nullable=False,
        comment="sealed seed of the epoch before, by which a successor reads the history",
    ),
)

envelopes: Final = Table(
    "envelopes",
    metadata,
    Column("id", LargeBinary, primary_key=True, comment="a known one is not repeated"),
    Column("core_hash", LargeBinary, nullable=False, comment="tells a repetition from a clash"),
    Column("core", LargeBinary, nullable=False, comment="what was signed; handed to the desks"),
    Column("signature", LargeBinary, nullable=False, comment="for recipients to verify the core"),
    Column(
        "body",
        LargeBinary,
        nullable=False,
        comment="ciphertext, handed to addressed desks; empty once none of them has a copy",
    ),
    Column(
        "audit",
        LargeBinary,
        nullable=False,
        comment="ciphertext, handed to auditors as well; empty once nobody has a copy",
    ),
    Column("sender_desk", LargeBinary, nullable=False, comment="may ask for it; gets its receipts"),
    Column("sender_device", LargeBinary, nullable=False, comment="for quotas and operators"),
    Column(
        "recipients",
        LargeBinary,
        nullable=False,
        comment="who may open it, with the wraps; whose copy was erased",
    ),
    Column("ref", LargeBinary, comment="the envelope whose wraps open this one too"),
    Column("accepted_at", BigInteger, nullable=False, comment="time that the promise states"),
    Column("promise", LargeBinary, nullable=False, comment="given again when it is sent again"),
    Column("blind", LargeBinary, nullable=False, comment="hides its counters; can be derived anew"),
    Column("leaf_index", BigInteger, unique=True, comment="its place in the log; empty if pending"),
    Column("counters", LargeBinary, comment="its places in the mailboxes; empty if pending"),
)

# Most envelopes that open an exchange refer to none.
Index(
    "envelopes_ref",
    envelopes.c.ref,
    sqlite_where=envelopes.c.ref.is_not(None),
    postgresql_where=envelopes.c.ref.is_not(None),
)

mailbox_items: Final = Table(
    "mailbox_items",
    metadata,
    Column("desk", LargeBinary, primary_key=True, comment="whose mailbox it is"),
    Column(
        "counter",
        BigInteger,
        primary_key=True,
        autoincrement=False,
        comment="its place in the mailbox, by which the desk pages",
    ),
    Column("leaf_index", BigInteger, nullable=False, comment="which envelope it is"),
    Column("position", SmallInteger, nullable=False, comment="which of its recipients the desk is"),
    Column(
        "kind",
        SmallInteger,
        nullable=False,
        comment="file, lead, audit or erased: what it is given",
    ),
    sqlite_with_rowid=False,
)

receipts: Final = Table(
    "receipts",
    metadata,
    Column("hash", LargeBinary, primary_key=True, comment="a known one is not repeated"),
    Column("payload", LargeBinary, nullable=False, comment="what was signed; handed to the sender"),
    Column("signature", LargeBinary, nullable=False, comment="for the sender to verify it"),
    Column("desk", LargeBinary, nullable=False, comment="whose word it is, for operators"),
    Column("sender_desk", LargeBinary, nullable=False, comment="to whom it is handed over"),
    Column("envelope_ids", LargeBinary, nullable=False, comment="what it says is held and opens"),
    Column("accepted_at", BigInteger, nullable=False, comment="time that the promise states"),
    Column("promise", LargeBinary, nullable=False, comment="given again when it is sent again"),
    Column("readers", LargeBinary, comment="auditors to whom it is handed over too"),
    Column("leaf_index", BigInteger, unique=True, comment="its place in the log; empty if pending"),
    Index("receipts_sender", "sender_desk", "leaf_index"),
)

receipt_readers: Final = Table(
    "receipt_readers",
    metadata,
    Column("desk", LargeBinary, primary_key=True, comment="an auditor that is given the receipt"),
    Column(
        "leaf_index",
        BigInteger,
        primary_key=True,
        autoincrement=False,
        comment="which receipt, by which the auditor pages",
    ),
    sqlite_with_rowid=False,
)

notices: Final = Table(
    "notices",
    metadata,
    Column("hash", LargeBinary, primary_key=True, comment="a known one is not repeated"),
    Column("payload", LargeBinary, nullable=False, comment="what was signed; handed to the desks"),
    Column("signature", LargeBinary, nullable=False, comment="for the desks to verify it"),
    Column("kind", Text, nullable=False, comment="lets an operator see what was done and why"),
    Column("desk", LargeBinary, comment="whose word it is; none for the relay's own"),
    Column("accepted_at", BigInteger, nullable=False, comment="time that the promise states"),
    Column("promise", LargeBinary, nullable=False, comment="given again when it is sent again"),
    Column("readers", LargeBinary, comment="to whom it is handed over; none for every desk"),
    Column("leaf_index", BigInteger, unique=True, comment="its place in the log; empty if pending"),
)

notice_readers: Final = Table(
    "notice_readers",
    metadata,
    Column("desk", LargeBinary, primary_key=True, comment="who is given it; empty for every desk"),
    Column(
        "leaf_index",
        BigInteger,
        primary_key=True,
        autoincrement=False,
        comment="which notice, by which the desk pages",
    ),
    sqlite_with_rowid=False,
)

holds: Final = Table(
    "holds",
    metadata,
    Column("envelope_id", LargeBinary, primary_key=True, comment="what nobody may erase"),
    Column("desk", LargeBinary, primary_key=True, comment="who holds it and may release it"),
    sqlite_with_rowid=False,
)

mailboxes: Final = Table(
    "mailboxes",
    metadata,
    Column("desk", LargeBinary, primary_key=True, comment="whose mailbox it is"),
    Column(
        "counter",
        BigInteger,
        nullable=False,
        comment="the last one given, so that none is given twice even when envelopes are erased",
    ),
)

leaves: Final = Table(
    "leaves",
    metadata,
    Column(
        "leaf_index",
        _Number,
        primary_key=True,
        autoincrement=False,
        comment="its place in the log",
    ),
    Column(
        "data",
        LargeBinary,
        nullable=False,
        comment="what was hashed, for the signer to hash again and for everyone to download",
    ),
)

tile_hashes: Final = Table(
    "tile_hashes",
    metadata,
    Column(
        "level",
        SmallInteger,
        primary_key=True,
        autoincrement=False,
        comment="1 for roots of 256 leaves, 2 for roots of 65,536 leaves and so on",
    ),
    Column(
        "position",
        BigInteger,
        primary_key=True,
        autoincrement=False,
        comment="from the left, by which proofs and tiles find it",
    ),
    Column("hash", LargeBinary, nullable=False, comment="so that a proof reads few rows"),
)

pending: Final = Table(
    "pending",
    metadata,
    Column(
        "arrival",
        _Number,
        primary_key=True,
        autoincrement=True,
        comment="order in which to integrate; never an index, because it has gaps",
    ),
    Column("kind", Text, CheckConstraint(_KINDS), nullable=False, comment="in which table it is"),
    Column("key", LargeBinary, nullable=False, comment="hash or id of what waits"),
    sqlite_autoincrement=True,
)

parked: Final = Table(
    "parked",
    metadata,
    Column(
        "arrival",
        _Number,
        primary_key=True,
        autoincrement=True,
        comment="shows an operator the oldest first",
    ),
    Column("kind", Text, CheckConstraint(_KINDS), nullable=False, comment="in which table it is"),
    Column("key", LargeBinary, nullable=False, comment="hash or id of what cannot be integrated"),
    Column("reason", Text, nullable=False, comment="tells an operator what to look for"),
    sqlite_autoincrement=True,
)

checkpoints: Final = Table(
    "checkpoints",
    metadata,
    Column("note_hash", LargeBinary, primary_key=True, comment="what cores say they have seen"),
    Column("size", BigInteger, nullable=False, index=True, comment="leaves that it covers"),
    Column("note", LargeBinary, nullable=False, comment="the signed note, handed to everyone"),
    Column("at", BigInteger, nullable=False, comment="shows how old the newest one is"),
)

anchors: Final = Table(
    "anchors",
    metadata,
    Column(
        "day",
        Integer,
        primary_key=True,
        autoincrement=False,
        comment="days since 1970 UTC; one anchor each",
    ),
    Column("size", BigInteger, nullable=False, index=True, comment="leaves that it covers"),
    Column("note", LargeBinary, nullable=False, comment="the signed note, handed to everyone"),
)

leases: Final = Table(
    "leases",
    metadata,
    Column("name", Text, primary_key=True, comment="the job that only one process should do"),
    Column("holder", Text, nullable=False, comment="the process that does it"),
    Column("until", BigInteger, nullable=False, comment="when another one may take over"),
)

repair: Final = Table(
    "repair",
    metadata,
    Column(
        "one",
        SmallInteger,
        CheckConstraint("one = 1"),
        primary_key=True,
        autoincrement=False,
        comment="always 1: there is at most one repair, and none but after a restore",
    ),
    Column("had", BigInteger, nullable=False, comment="entries that the restored database had"),
    Column("size", BigInteger, nullable=False, comment="entries that it was given back"),
    Column("began_at", BigInteger, nullable=False, comment="shows an operator since when"),
    Column(
        "seconds_left",
        BigInteger,
        nullable=False,
        comment="how long members are still waited for, whatever the clock says",
    ),
    Column(
        "is_placing",
        SmallInteger,
        nullable=False,
        comment="whether counters are being given, so that nothing more is taken",
    ),
    Column("lost", BigInteger, comment="entries without objects, for the notice of the restore"),
    Column("ended_at", BigInteger, comment="time that this notice states"),
    Column("incarnation", LargeBinary, comment="mark of the database that this notice states"),
)

vacancies: Final = Table(
    "vacancies",
    metadata,
    Column(
        "leaf_index",
        _Number,
        primary_key=True,
        autoincrement=False,
        comment="the place of an entry whose object was lost in a restore",
    ),
    Column(
        "tag",
        LargeBinary,
        nullable=False,
        index=True,
        comment="by which the object is recognised when a member sends it again",
    ),
    Column("leaf", LargeBinary, nullable=False, comment="the entry, which the counters must make"),
    Column("is_statement", SmallInteger, nullable=False, comment="statements come back in order"),
    Column("is_lost", SmallInteger, nullable=False, comment="it did not come back in time"),
    Column("key", LargeBinary, comment="id of the envelope that came back and has no counters yet"),
)
