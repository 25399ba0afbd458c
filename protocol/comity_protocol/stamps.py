"""Direct stamps: a witness's word that it saw a hash at a time, without the relay.

When a relay refuses or stalls, a desk has witnesses stamp the hash of its envelope's core and
states the stamps in a notice later. A quorum of them dates the act, so that no relay can make a
desk late. A witness learns a hash and nothing else.

    request  [deployment, what]
    payload  {v: 1, t: "stamp", deployment, what, at}
    answer   [payload, fast signature of the witness key, kind stamp]

Rules:

* [M-2] The earliest proof counts: sealed, or stamped by a quorum of witnesses.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from nacl.signing import SigningKey

from comity_protocol.checkpoint import COSIGNED_TIME_MAX
from comity_protocol.encoding import Value, parse, serialize
from comity_protocol.errors import MalformedError, VerificationError
from comity_protocol.fields import Fields, array_of, bytes_of, integer_of, text_of
from comity_protocol.identifiers import ID_BYTES, DeploymentId
from comity_protocol.keys import FAST_SIGNATURE_BYTES, Context, FastKey, verify_fast
from comity_protocol.limits import NAME_BYTES_MAX, STAMP_BYTES_MAX
from comity_protocol.merkle import HASH_BYTES
from comity_protocol.quorum import Quorum
from comity_protocol.receipts import Signed
from comity_protocol.signed_note import VerifierKey


@dataclass(frozen=True, slots=True)
class StampRequest:
    """What a desk asks a witness to stamp.

    Attributes:
        deployment: The deployment, which the witness must be one of.
        what: 32 bytes that say nothing to a witness: the hash of a core.
    """

    deployment: DeploymentId
    what: bytes

    def serialize(self) -> bytes:
        """Give the body of the request."""
        return serialize([self.deployment, self.what])

    @classmethod
    def parse(cls, data: bytes) -> "StampRequest":
        """Read the body of a request.

        Raises:
            MalformedError: It is too long or something else.
        """
        _check_size(data, "stamp request")
        deployment, what = array_of(parse(data), "stamp request", low=2, high=2)
        return cls(
            DeploymentId(bytes_of(deployment, "stamp request, deployment", length=ID_BYTES)),
            bytes_of(what, "stamp request, what", length=HASH_BYTES),
        )


@dataclass(frozen=True, slots=True, order=True)
class Stamp:
    """That a witness saw a hash, and when. What it saw stands beside it, and is not repeated.

    Attributes:
        witness: Name of the witness's key in the policy.
        at: The witness's clock, seconds since 1970 UTC.
        signature: 64 bytes, not verified until ``verify_stamp``.
    """

    witness: str
    at: int
    signature: bytes

    def to_value(self) -> list[Value]:
        """Give what stands for it in a notice or a certificate."""
        return [self.witness, self.at, self.signature]

    @classmethod
    def of(cls, item: Value, what: str) -> "Stamp":
        """Read what ``to_value`` gives; it is not verified yet.

        Args:
            item: From a notice or a certificate.
            what: Of which the item is a stamp, for messages.

        Raises:
            MalformedError: It is something else, or its time is none that a calendar can show.
        """
        witness, at, signature = array_of(item, f"{what}, stamp", low=3, high=3)
        return cls(
            text_of(witness, f"{what}, witness", bytes_max=NAME_BYTES_MAX),
            integer_of(at, f"{what}, at", high=COSIGNED_TIME_MAX),
            bytes_of(signature, f"{what}, signature", length=FAST_SIGNATURE_BYTES),
        )


def stamp_payload(deployment: DeploymentId, what: bytes, at: int) -> bytes:
    """Give the bytes that a witness signs."""
    return serialize({"v": 1, "t": "stamp", "deployment": deployment, "what": what, "at": at})


def sign_stamp(key: SigningKey, deployment: DeploymentId, what: bytes, at: int) -> Signed:
    """Stamp a hash as a witness.

    Args:
        key: The witness's key.
        deployment: One that the witness serves; the caller has checked it.
        what: 32 bytes.
        at: The witness's clock, which the caller has compared with its last cosignature.

    Raises:
        ValueError: The time is none that a calendar can show.
    """
    if not 0 <= at <= COSIGNED_TIME_MAX:
        raise ValueError(f"time is {at}, expected 0 to {COSIGNED_TIME_MAX} seconds")
    payload = stamp_payload(deployment, what, at)
    return Signed(payload, FastKey(bytes(key)).sign(Context.STAMP, payload))


def open_stamp(
    signed: Signed, deployment: DeploymentId, what: bytes, witness: VerifierKey
) -> Stamp:
    """Read a witness's answer and check that it stamped what was asked.

    Raises:
        MalformedError: It is not a stamp.
        VerificationError: It is for something else or not by this witness.
    """
    _check_size(signed.payload, "stamp")
    names = {"v", "t", "deployment", "what", "at"}
    fields = Fields.of(parse(signed.payload), "stamp", names)
    fields.integer("v", low=1, high=1)
    fields.text("t", choices=["stamp"])
    fields.bytes("deployment", length=ID_BYTES)
    fields.bytes("what", length=HASH_BYTES)
    stamp = Stamp(witness.name, fields.integer("at", high=COSIGNED_TIME_MAX), signed.signature)
    if signed.payload != stamp_payload(deployment, what, stamp.at):
        raise VerificationError(f"{witness.name} stamped something else than it was asked")
    verify_stamp(stamp, deployment, what, witness)
    return stamp


def verify_stamp(stamp: Stamp, deployment: DeploymentId, what: bytes, witness: VerifierKey) -> None:
    """Check a stamp.

    Args:
        stamp: As received.
        deployment: The deployment that it must be for.
        what: The hash that must have been stamped.
        witness: The key that the policy has under the stamp's name.

    Stops: a stamp moved to another act, another deployment, another time or another witness.

    Raises:
        VerificationError: It is not this witness's stamp of this.
    """
    if stamp.witness != witness.name:
        raise VerificationError(f"stamp names another witness than {witness.name}")
    payload = stamp_payload(deployment, what, stamp.at)
    verify_fast(witness.public_key, Context.STAMP, payload, stamp.signature)


def stamped_at(
    stamps: Iterable[Stamp], deployment: DeploymentId, what: bytes, quorum: Quorum
) -> int | None:
    """Date a hash by the stamps that hold; None while they are no quorum.

    Stamps of strangers and stamps that do not verify count as not there, so that one bad witness
    cannot take the others' word away. More stamps never make it later, and fewer liars than the
    quorum tolerates cannot move it outside the honest clocks.

    Args:
        stamps: In any order; of one witness the earliest counts.
        deployment: The deployment.
        what: Hash of the core.
        quorum: Of the genesis.

    Source: PROTOCOL [M-2].
    """
    witnesses = {key.name: key for key in quorum.witnesses}
    times: dict[str, int] = {}
    for stamp in stamps:
        if stamp.witness not in witnesses or times.get(stamp.witness, stamp.at + 1) <= stamp.at:
            continue
        try:
            verify_stamp(stamp, deployment, what, witnesses[stamp.witness])
        except VerificationError:
            continue
        times[stamp.witness] = stamp.at
    # SPEC [M-2]: stamped by a quorum of witnesses, by the rule of a checkpoint's sealed time.
    return quorum.time_of(times)


def _check_size(data: bytes, what: str) -> None:
    if len(data) > STAMP_BYTES_MAX:
        raise MalformedError(f"{what} is {len(data):,} bytes, expected at most {STAMP_BYTES_MAX}")
