"""What a certificate holds, and its one form.

    certificate = {v: 1, t: "certificate", genesis: genesis payload, proof: tlog-proof file,
                   core, sig: bstr 64, seen: note or null,
                   statements: [[leaf index, payload, [[signer, full signature], ...],
                                 [hash, ...]], ...]                      ascending by leaf index
                   receipts: [[tlog-proof file, payload, signature], ...] ascending by payload
                   stamps: [[witness name, at, signature], ...]           ascending
                   names: [[desk, what its maker calls it], ...]          ascending by desk
                   open: [body ciphertext, body key] or null}

The proof file of the envelope has its places as extra line; that of a receipt has none, because a
receipt's entry follows from the receipt. Statements are proven under the largest checkpoint of
these proofs. Nothing in it is believed before ``check.check_certificate``.
"""

from dataclasses import dataclass
from typing import Final

from comity_protocol.encoding import Value, parse, serialize
from comity_protocol.errors import LimitError
from comity_protocol.fields import Fields, array_of, bytes_of, check_ascending, integer_of, text_of
from comity_protocol.identifiers import ID_BYTES, DeskId
from comity_protocol.keys import FAST_SIGNATURE_BYTES, KEY_BYTES
from comity_protocol.limits import (
    BODY_BYTES_MAX,
    CERTIFICATE_BYTES_MAX,
    CERTIFICATE_RECEIPTS_MAX,
    CERTIFICATE_STATEMENTS_MAX,
    CORE_BYTES_MAX,
    NAME_BYTES_MAX,
    NOTE_BYTES_MAX,
    PROOF_HASHES_MAX,
    RECEIPT_BYTES_MAX,
    RECIPIENTS_MAX,
    STATEMENT_BYTES_MAX,
    WITNESSES_MAX,
)
from comity_protocol.merkle import HASH_BYTES, SIZE_MAX
from comity_protocol.receipts import Signed
from comity_protocol.stamps import Stamp
from comity_protocol.statements import SignedStatement, parse_signatures

PROOF_FILE_BYTES_MAX: Final = NOTE_BYTES_MAX + 4_096
"""A proof file: its note, and 63 hashes of 45 bytes before it."""


@dataclass(frozen=True, slots=True)
class Admission:
    """A statement that says who a desk or a device is, and its place in the log.

    Attributes:
        index: Its leaf index.
        signed: As it was posted, without boxes.
        hashes: Inclusion proof under the largest checkpoint that the certificate's proofs have.
    """

    index: int
    signed: SignedStatement
    hashes: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class KeptReceipt:
    """A receipt for the act, with a proof file of its own."""

    proof: bytes
    signed: Signed


@dataclass(frozen=True, slots=True, repr=False)
class Opening:
    """What opens the body: its ciphertext, and the key that opens this body and no other."""

    body: bytes
    key: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """Everything that shows one act to a stranger.

    Attributes:
        genesis: Payload of the genesis; its hash is what a ministry prints.
        proof: The envelope's tlog-proof, byte for byte.
        core: The envelope's core, as the device signed it.
        signature: That signature.
        seen: The note whose hash the core names; None when the maker did not have it.
        admissions: Desk statements, and those that admitted the devices that signed here.
        receipts: Of desks that the core addresses.
        stamps: Of witnesses, on the core's hash.
        names: What the certificate's maker calls desks. Nobody vouches for them.
        opening: What opens the body; None when it stays closed.
    """

    genesis: bytes
    proof: bytes
    core: bytes
    signature: bytes
    seen: bytes | None = None
    admissions: tuple[Admission, ...] = ()
    receipts: tuple[KeptReceipt, ...] = ()
    stamps: tuple[Stamp, ...] = ()
    names: tuple[tuple[DeskId, str], ...] = ()
    opening: Opening | None = None

    def serialize(self) -> bytes:
        """Give the bytes of a ``.certificate`` file."""
        opening = self.opening
        admissions: list[Value] = [
            [
                one.index,
                one.signed.payload,
                [list(pair) for pair in one.signed.signatures],
                list(one.hashes),
            ]
            for one in self.admissions
        ]
        return serialize(
            {
                "v": 1,
                "t": "certificate",
                "genesis": self.genesis,
                "proof": self.proof,
                "core": self.core,
                "sig": self.signature,
                "seen": self.seen,
                "statements": admissions,
                "receipts": [
                    [one.proof, one.signed.payload, one.signed.signature] for one in self.receipts
                ],
                "stamps": [one.to_value() for one in self.stamps],
                "names": [[desk, name] for desk, name in self.names],
                "open": None if opening is None else [opening.body, opening.key],
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> "Certificate":
        """Read a certificate; nothing in it is verified yet.

        Raises:
            LimitError: It is too long.
            MalformedError: It is not what ``serialize`` gives.
        """
        if len(data) > CERTIFICATE_BYTES_MAX:
            raise LimitError(
                f"certificate is {len(data):,} bytes, expected at most {CERTIFICATE_BYTES_MAX:,}"
            )
        fields = Fields.of(parse(data), "certificate", _NAMES)
        fields.integer("v", low=1, high=1)
        fields.text("t", choices=["certificate"])
        certificate = cls(
            genesis=fields.bytes("genesis", low=1, high=STATEMENT_BYTES_MAX),
            proof=fields.bytes("proof", low=1, high=PROOF_FILE_BYTES_MAX),
            core=fields.bytes("core", low=1, high=CORE_BYTES_MAX),
            signature=fields.bytes("sig", length=FAST_SIGNATURE_BYTES),
            seen=None
            if fields.value("seen") is None
            else fields.bytes("seen", low=1, high=NOTE_BYTES_MAX),
            admissions=tuple(
                map(_admission, fields.array("statements", high=CERTIFICATE_STATEMENTS_MAX))
            ),
            receipts=tuple(map(_receipt, fields.array("receipts", high=CERTIFICATE_RECEIPTS_MAX))),
            stamps=tuple(map(_stamp, fields.array("stamps", high=WITNESSES_MAX))),
            names=tuple(map(_name, fields.array("names", high=RECIPIENTS_MAX))),
            opening=None if fields.value("open") is None else _opening(fields),
        )
        places = [one.index.to_bytes(8, "big") for one in certificate.admissions]
        check_ascending(places, "certificate's statements")
        check_ascending([one.signed.payload for one in certificate.receipts], "receipts")
        check_ascending([one.witness.encode() for one in certificate.stamps], "stamps")
        check_ascending([desk for desk, _ in certificate.names], "names")
        return certificate


_NAMES: Final = {
    "v",
    "t",
    "genesis",
    "proof",
    "core",
    "sig",
    "seen",
    "statements",
    "receipts",
    "stamps",
    "names",
    "open",
}


def _admission(item: Value) -> Admission:
    what = "certificate, statement"
    index, payload, signatures, hashes = array_of(item, what, low=4, high=4)
    return Admission(
        integer_of(index, f"{what}, leaf index", high=SIZE_MAX),
        SignedStatement(
            bytes_of(payload, what, low=1, high=STATEMENT_BYTES_MAX), parse_signatures(signatures)
        ),
        tuple(
            bytes_of(hashed, f"{what}, proof", length=HASH_BYTES)
            for hashed in array_of(hashes, f"{what}, proof", high=PROOF_HASHES_MAX)
        ),
    )


def _receipt(item: Value) -> KeptReceipt:
    what = "certificate, receipt"
    proof, payload, signature = array_of(item, what, low=3, high=3)
    signed = Signed(
        bytes_of(payload, what, low=1, high=RECEIPT_BYTES_MAX),
        bytes_of(signature, f"{what}, signature", length=FAST_SIGNATURE_BYTES),
    )
    return KeptReceipt(bytes_of(proof, f"{what}, proof", low=1, high=PROOF_FILE_BYTES_MAX), signed)


def _stamp(item: Value) -> Stamp:
    return Stamp.of(item, "certificate")


def _name(item: Value) -> tuple[DeskId, str]:
    desk, name = array_of(item, "certificate, name", low=2, high=2)
    return (
        DeskId(bytes_of(desk, "certificate, desk", length=ID_BYTES)),
        text_of(name, "certificate, name", bytes_max=NAME_BYTES_MAX),
    )


def _opening(fields: Fields) -> Opening:
    body, key = fields.array("open", low=2, high=2)
    return Opening(
        bytes_of(body, "certificate, body", low=1, high=BODY_BYTES_MAX),
        bytes_of(key, "certificate, body key", length=KEY_BYTES),
    )
