"""Signed notes and verifier keys, byte for byte as C2SP signed-note v1 writes them.

A note is text, an empty line, and signature lines:

    example.com/log
    1
    jlpCX9MFT8dEfwEUZS5mYXV9Q2v2A9kXqWhFzp6X3UQ=

    — example.com/log Az3grlgt…

Here live the format and the identity of keys. What the text of a note means, and which signatures
are needed, is decided in `checkpoint`.

Rules:

* [L-4] only canonical numbers and base64 are read, so that one object has one form;
* a note that is read is, written again, the same bytes;
* a key signs a note at most once, so that nobody chooses between two of its signatures;
* the four bytes of a key id only find a signature line; the whole key then verifies it;
* low-order and non-canonical Ed25519 keys are refused, because verifiers disagree about them.
"""

import re
from base64 import b64decode, b64encode
from dataclasses import dataclass
from enum import IntEnum
from hashlib import sha256
from typing import Final

from nacl.bindings import crypto_core_ed25519_is_valid_point
from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from comity_protocol.errors import LimitError, MalformedError, VerificationError
from comity_protocol.keys import ANCHOR_PUBLIC_BYTES, FAST_PUBLIC_BYTES
from comity_protocol.limits import NOTE_BYTES_MAX, NOTE_SIGNATURES_MAX

NUMBER_MAX: Final = 2**63 - 1
KEY_ID_BYTES: Final = 4
ED25519_SIGNATURE_BYTES: Final = 64

_DECIMAL: Final = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)
_CONTROL: Final = re.compile(r"[\x00-\x09\x0b-\x1f]")
_KEY_ID_HEX: Final = re.compile(r"[0-9a-f]{8}", re.ASCII)
_DASH: Final = "\u2014 "


class KeyType(IntEnum):
    """The signature type byte of a key: a log's, a witness's, and a witness's for anchors."""

    ED25519 = 0x01
    COSIGNATURE_V1 = 0x04
    MLDSA44 = 0x06

    @property
    def public_key_bytes(self) -> int:
        """How long a public key of this type is."""
        return ANCHOR_PUBLIC_BYTES if self is KeyType.MLDSA44 else FAST_PUBLIC_BYTES


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A named public key of a log or of a witness.

    Attributes:
        name: a key name without spaces and plus, by habit a URL without its scheme.
        type: how it signs.
        public_key: 32 bytes, a valid point of Ed25519; or 1,312 bytes of ML-DSA-44.

    Raises:
        ValueError: the name or the key cannot be one.
    """

    name: str
    type: KeyType
    public_key: bytes

    def __post_init__(self) -> None:
        require_key_name(self.name)
        if len(self.public_key) != (expected := self.type.public_key_bytes):
            raise ValueError(f"public key is {len(self.public_key)} bytes, expected {expected}")
        if self.type is KeyType.MLDSA44:
            return
        if not crypto_core_ed25519_is_valid_point(self.public_key):
            raise ValueError("public key is of low order or not canonical")

    @property
    def key_id(self) -> bytes:
        """The four bytes that mark this key's signature lines."""
        named = self.name.encode() + b"\n" + bytes([self.type]) + self.public_key
        return sha256(named).digest()[:KEY_ID_BYTES]

    def serialize(self) -> str:
        """Return the text form `name+key id+base64`, as operators hand it to each other."""
        material = encode_base64(bytes([self.type]) + self.public_key)
        return f"{self.name}+{self.key_id.hex()}+{material}"

    @classmethod
    def parse(cls, text: str) -> "VerifierKey":
        """Read the text form.

        Raises:
            MalformedError: it is not exactly what `serialize` writes for some key.
        """
        name, _, rest = text.partition("+")
        key_id, _, material = rest.partition("+")
        if not _KEY_ID_HEX.fullmatch(key_id):
            raise MalformedError("verifier key has no key id of 8 hexadecimal digits")
        data = decode_base64(material, "verifier key")
        try:
            key = cls(name, KeyType(data[0]), data[1:])
        except ValueError as error:
            raise MalformedError(f"verifier key is not usable: {error}") from error
        if key.key_id.hex() != key_id:
            raise MalformedError("verifier key has a key id that does not fit its name and key")
        return key


@dataclass(frozen=True, slots=True)
class SignatureLine:
    """One line of a note: who signed, with which key, and the signature. Not yet verified."""

    name: str
    key_id: bytes
    signature: bytes

    def serialize(self) -> str:
        """Return the line, with its final newline."""
        return f"{_DASH}{self.name} {encode_base64(self.key_id + self.signature)}\n"


@dataclass(frozen=True, slots=True)
class Note:
    """A note as read. Its text must not be believed before a signature has been verified."""

    text: str
    signatures: tuple[SignatureLine, ...]

    def line_by(self, key: VerifierKey) -> SignatureLine | None:
        """Return the line that claims to be by this key, or none."""
        wanted = key.name, key.key_id
        return next((one for one in self.signatures if (one.name, one.key_id) == wanted), None)


def parse_note(data: bytes) -> Note:
    """Read a note, refusing whatever `serialize_note` would not have written.

    Raises:
        LimitError: the note is too long or has too many signatures.
        MalformedError: it breaks the format, or one key signed twice.

    Source: PROTOCOL [L-4]; C2SP signed-note, Format.
    """
    text, gap, lines = decode_text(data, "note").rpartition("\n\n")
    if not gap:
        raise MalformedError("note has no empty line before its signatures")
    return Note(text + "\n", parse_signature_lines(lines))


def serialize_note(note: Note) -> bytes:
    """Return the bytes of a note.

    Raises:
        ValueError: the text could not be read back: no final newline, or control characters.
    """
    if not note.text.endswith("\n") or _CONTROL.search(note.text) or not note.signatures:
        raise ValueError("note needs a text of whole lines and a signature")
    return "".join([note.text, "\n", *(line.serialize() for line in note.signatures)]).encode()


def parse_signature_lines(text: str) -> tuple[SignatureLine, ...]:
    """Read one or more signature lines, each ended by a newline.

    Raises:
        LimitError: there are too many.
        MalformedError: a line breaks the format, or one key signed twice.
    """
    *lines, rest = text.split("\n")
    if rest or not lines:
        raise MalformedError("signature lines do not end in a newline")
    if len(lines) > NOTE_SIGNATURES_MAX:
        raise LimitError(
            f"note has {len(lines)} signatures, expected at most {NOTE_SIGNATURES_MAX}"
        )
    signatures = tuple(_parse_signature_line(line) for line in lines)
    if len({(line.name, line.key_id) for line in signatures}) != len(signatures):
        raise MalformedError("note has two signatures of one key")
    return signatures


def verify_ed25519(key: VerifierKey, message: bytes, signature: bytes) -> None:
    """Check an Ed25519 signature over raw bytes; C2SP fixes them, so no context is added.

    Raises:
        VerificationError: the signature is not by this key over these bytes.
    """
    if len(signature) != ED25519_SIGNATURE_BYTES:
        raise VerificationError(f"signature by {key.name} is {len(signature)} bytes, expected 64")
    try:
        VerifyKey(key.public_key).verify(message, signature)
    except BadSignatureError as error:
        raise VerificationError(f"signature by {key.name} does not verify") from error


def encode_base64(data: bytes) -> str:
    """Encode as RFC 4648 section 4, with padding."""
    return b64encode(data).decode("ascii")


def decode_base64(text: str, what: str) -> bytes:
    """Decode canonical, non-empty base64 with padding.

    Raises:
        MalformedError: another text stands for the same bytes, or for none; `what` names it.

    Source: PROTOCOL [L-4].
    """
    # SPEC [L-4]: only canonical numbers and base64.
    try:
        data = b64decode(text, validate=True)
    except ValueError as error:
        raise MalformedError(f"{what} is not base64") from error
    if not data or encode_base64(data) != text:
        raise MalformedError(f"{what} is not canonical base64")
    return data


def parse_decimal(text: str, what: str) -> int:
    """Read a whole number up to 2**63 - 1 without sign and leading zeros.

    Raises:
        MalformedError: it is written in another way, or too large; `what` names it.

    Source: PROTOCOL [L-4].
    """
    # SPEC [L-4]: only canonical numbers and base64.
    if not _DECIMAL.fullmatch(text) or int(text) > NUMBER_MAX:
        raise MalformedError(f"{what} is not a whole number in canonical form below 2**63")
    return int(text)


def decode_text(data: bytes, what: str) -> str:
    """Decode UTF-8 without control characters other than newline.

    Raises:
        LimitError: there are more than 131,072 bytes; `what` names them.
        MalformedError: the bytes are not such text, or it does not end in a newline.
    """
    if len(data) > NOTE_BYTES_MAX:
        raise LimitError(f"{what} is {len(data):,} bytes, expected at most {NOTE_BYTES_MAX:,}")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedError(f"{what} is not UTF-8") from error
    if _CONTROL.search(text):
        raise MalformedError(f"{what} has control characters")
    if not text.endswith("\n"):
        raise MalformedError(f"{what} does not end in a newline")
    return text


def require_key_name(name: str) -> None:
    """Check that a text can name a key.

    Raises:
        ValueError: it is empty or has a space, a plus or a control character.
    """
    if not name or "+" in name or any(letter.isspace() for letter in name):
        raise ValueError("key name is empty or has a space or a plus")
    if _CONTROL.search(name):
        raise ValueError("key name has control characters")


def _parse_signature_line(line: str) -> SignatureLine:
    if not line.startswith(_DASH):
        raise MalformedError("signature line does not begin with a dash and a space")
    name, _, encoded = line.removeprefix(_DASH).partition(" ")
    try:
        require_key_name(name)
    except ValueError as error:
        raise MalformedError(f"signature line is not usable: {error}") from error
    data = decode_base64(encoded, "signature")
    if len(data) <= KEY_ID_BYTES:
        raise MalformedError(f"signature is {len(data)} bytes, expected a key id and more")
    return SignatureLine(name, data[:KEY_ID_BYTES], data[KEY_ID_BYTES:])
