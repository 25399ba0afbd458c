"""Signed notes are read in one form only: [L-4].

The notes and keys are those of C2SP signed-note and of Go's golang.org/x/mod/sumdb/note.
"""

from base64 import b64decode, b64encode

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from nacl.signing import SigningKey

from comity_protocol.errors import LimitError, MalformedError, VerificationError
from comity_protocol.limits import NOTE_BYTES_MAX, NOTE_SIGNATURES_MAX
from comity_protocol.signed_note import (
    KeyType,
    Note,
    SignatureLine,
    VerifierKey,
    decode_base64,
    parse_decimal,
    parse_note,
    parse_signature_lines,
    serialize_note,
    verify_ed25519,
)

SPEC_KEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
SPEC_NOTE = (
    "This is an example message.\n\n"
    "— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXm"
    "RKuwHjG1Yu72IneyaQM=\n"
)
GO_TEXT = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
)
PETER_SEED = b64decode("AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz")[1:]
PETER_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
PETER_LINE = (
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpR"
    "Zb6KE6RyyBwJnAM=\n"
)
ENOCH_KEY = "EnochRoot+af0cfe78+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop"
ENOCH_LINE = (
    "— EnochRoot rwz+eBzmZa0SO3NbfRGzPCpDckykFXSdeX+MNtCOXm2/5n2tiOHp+vAF1aGrQ5ovTG01oOTGwnWLox33"
    "WWd1RvMc+QQ=\n"
)
# A note whose text has an empty line and letters beyond ASCII.
POEM = (
    "Ognuno sta solo sul cuor della terra\ntrafitto da un raggio di sole:\n\ned è subito sera.\n\n"
    "— quasimodo.example/salvatore NnugSzTjtVAewIS+Z/iJhUPeFDkO/5QQ2i5ddnGITLlC+EhfLW9oJKONrMouFSQU"
    "0xMcXxj99ihAQwaqP3ZekRwNtIc=\n"
)


def line(name: str, data: bytes) -> str:
    return f"— {name} {b64encode(data).decode()}\n"


# What others wrote.


@pytest.mark.parametrize(
    ("key", "note"),
    [
        (SPEC_KEY, SPEC_NOTE),
        (PETER_KEY, f"{GO_TEXT}\n{PETER_LINE}"),
        (PETER_KEY, f"{GO_TEXT}\n{PETER_LINE}{ENOCH_LINE}"),
        (ENOCH_KEY, f"{GO_TEXT}\n{PETER_LINE}{ENOCH_LINE}"),
    ],
    ids=["C2SP", "Go, one signature", "Go, first of two", "Go, second of two"],
)
def test_notes_of_others_are_read_and_verified(key: str, note: str) -> None:
    verifier, parsed = VerifierKey.parse(key), parse_note(note.encode())
    found = parsed.line_by(verifier)

    assert verifier.serialize() == key
    assert serialize_note(parsed) == note.encode()
    assert found is not None
    verify_ed25519(verifier, parsed.text.encode(), found.signature)


def test_a_note_is_signed_byte_for_byte_as_go_signs_it() -> None:
    key = SigningKey(PETER_SEED)
    verifier = VerifierKey("PeterNeumann", KeyType.ED25519, bytes(key.verify_key))
    signature = key.sign(GO_TEXT.encode()).signature
    note = Note(GO_TEXT, (SignatureLine(verifier.name, verifier.key_id, signature),))

    assert verifier.serialize() == PETER_KEY
    assert serialize_note(note).decode() == f"{GO_TEXT}\n{PETER_LINE}"


def test_the_text_ends_at_the_last_empty_line() -> None:
    parsed = parse_note(POEM.encode())

    assert parsed.text.endswith(":\n\ned è subito sera.\n")
    assert [one.name for one in parsed.signatures] == ["quasimodo.example/salvatore"]


def test_a_line_of_the_same_name_or_the_same_id_alone_is_another_keys() -> None:
    key = VerifierKey.parse(PETER_KEY)
    other_id, other_name = line("PeterNeumann", bytes(68)), line("Peter", key.key_id + bytes(64))

    assert parse_note(f"{GO_TEXT}\n{other_id}{other_name}".encode()).line_by(key) is None


# [L-4] One form only.

KEY_BYTES = b"\x01" + bytes(SigningKey(bytes(32)).verify_key)

NOTE = f"text\n\n{PETER_LINE}"
EM_SPACE = line("a\u2003b", bytes(68))

HOSTILE_NOTES: dict[str, tuple[str | bytes, str]] = {
    "nothing": ("", "does not end in a newline"),
    "text alone": ("text\n", "no empty line"),
    "no signature": ("text\n\n", "do not end in a newline"),
    "no final newline": (NOTE[:-1], "does not end in a newline"),
    "trailing line": (f"{NOTE}more\n", "does not begin with a dash"),
    "trailing empty line": (f"{NOTE}\n", "do not end in a newline"),
    "carriage return": (NOTE.replace("\n", "\r\n"), "control characters"),
    "tab in the text": (NOTE.replace("te", "t\te"), "control characters"),
    "null in the text": (NOTE.replace("te", "t\0e"), "control characters"),
    "not UTF-8": (NOTE.encode().replace(b"te", b"t\xe9"), "not UTF-8"),
    "surrogate": (NOTE.encode().replace(b"te", b"t\xed\xa0\x80"), "not UTF-8"),
    "hyphen for the dash": (NOTE.replace("—", "-"), "does not begin with a dash"),
    "no space after the dash": (NOTE.replace("— ", "—"), "a dash and a space"),
    "two spaces": (NOTE.replace("n x", "n  x"), "signature is not base64"),
    "no name": (f"text\n\n{line('', bytes(68))}", "key name is empty"),
    "plus in the name": (f"text\n\n{line('a+b', bytes(68))}", "a space or a plus"),
    "em space in the name": (f"text\n\n{EM_SPACE}", "a space or a plus"),
    "no signature bytes": (f"text\n\n{line('a', bytes(4))}", "signature is 4 bytes"),
    "empty signature": (f"text\n\n{line('a', b'')}", "not canonical base64"),
    "one key twice": (f"{NOTE}{PETER_LINE}", "two signatures of one key"),
    "no padding": (NOTE.replace("=", ""), "not base64"),
    "padding too long": (NOTE.replace("=", "====="), "base64"),
    "stray bits": (NOTE.replace("nAM=", "nAN="), "not canonical base64"),
    "URL alphabet": (NOTE.replace("/", "_"), "not base64"),
    "newline in base64": (NOTE.replace("S9UG", "S9\nUG"), "does not begin with a dash|base64"),
    "not ASCII in base64": (NOTE.replace("S9UG", "S9ÜG"), "not base64"),
}


@pytest.mark.parametrize("name", HOSTILE_NOTES)
def test_a_note_in_another_form_is_refused(name: str) -> None:
    """[L-4]"""
    note, message = HOSTILE_NOTES[name]

    with pytest.raises(MalformedError, match=message):
        parse_note(note.encode() if isinstance(note, str) else note)


def test_a_note_that_is_too_long_is_refused() -> None:
    head = f"\n\n{PETER_LINE}".encode()
    fitting = b"t" * (NOTE_BYTES_MAX - len(head)) + head

    assert len(parse_note(fitting).signatures) == 1
    with pytest.raises(LimitError, match="note is 131,073 bytes, expected at most 131,072"):
        parse_note(b"t" + fitting)


def test_a_note_with_too_many_signatures_is_refused() -> None:
    lines = [line(f"key{number}", bytes(68)) for number in range(NOTE_SIGNATURES_MAX + 1)]

    assert len(parse_signature_lines("".join(lines[1:]))) == NOTE_SIGNATURES_MAX
    with pytest.raises(LimitError, match="note has 65 signatures, expected at most 64"):
        parse_signature_lines("".join(lines))


def test_the_answer_of_nobody_is_not_a_list_of_signatures() -> None:
    with pytest.raises(MalformedError, match="do not end in a newline"):
        parse_signature_lines("")


@given(st.binary(max_size=200))
@example(POEM.encode())
@example(SPEC_NOTE.encode())
def test_reading_any_bytes_refuses_or_gives_what_would_be_written(data: bytes) -> None:
    """[L-4]"""
    try:
        parsed = parse_note(data)
    except (MalformedError, LimitError):
        return
    assert serialize_note(parsed) == data


@given(st.data())
def test_a_note_changed_at_one_place_is_refused_or_written_as_changed(data: st.DataObject) -> None:
    """[L-4]"""
    note = bytearray(f"{GO_TEXT}\n{PETER_LINE}{ENOCH_LINE}".encode())
    place = data.draw(st.integers(0, len(note) - 1))
    note[place] = data.draw(st.sampled_from([*b"\n\r =+/A0\x80\xe2", note[place] ^ 1]))
    try:
        parsed = parse_note(bytes(note))
    except MalformedError:
        return
    assert serialize_note(parsed) == bytes(note)


@given(
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=40),
    st.lists(st.binary(min_size=5, max_size=80), min_size=1, max_size=4),
)
def test_a_note_is_read_back_as_it_was_written(text: str, signatures: list[bytes]) -> None:
    lines = tuple(
        SignatureLine(f"key{number}", data[:4], data[4:]) for number, data in enumerate(signatures)
    )
    note = Note(f"{text}\n", lines)

    assert parse_note(serialize_note(note)) == note


@pytest.mark.parametrize(
    "note",
    [
        Note("no newline", (SignatureLine("a", bytes(4), b"s"),)),
        Note("control \r\n", (SignatureLine("a", bytes(4), b"s"),)),
        Note("nobody signed\n", ()),
    ],
    ids=["no newline", "control", "no signature"],
)
def test_what_could_not_be_read_back_is_not_written(note: Note) -> None:
    with pytest.raises(ValueError, match="note needs a text of whole lines and a signature"):
        serialize_note(note)


# Keys.

HOSTILE_KEYS: dict[str, tuple[str, str]] = {
    "nothing": ("", "no key id"),
    "name alone": ("PeterNeumann", "no key id"),
    "no name": (PETER_KEY.replace("PeterNeumann", ""), "key name is empty"),
    "another name": (PETER_KEY.replace("Peter", "Petra"), "key id that does not fit"),
    "key id in capitals": (PETER_KEY.replace("c74f20a3", "C74F20A3"), "no key id of 8"),
    "another key id": (PETER_KEY.replace("c74f20a3", "c74f20a4"), "key id that does not fit"),
    "no key": (PETER_KEY[:22], "not canonical base64"),
    "trailing newline": (PETER_KEY + "\n", "base64"),
    "key cut": (PETER_KEY[:-4], "public key is 29 bytes"),
    # Both are from the tests of Go: the key id fits, the key does not.
    "key too long": (
        "PeterNeumann+cc469956+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TWBADKEY==",
        "base64|public key is",
    ),
    "unknown type": (
        "PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "101 is not a valid KeyType",
    ),
}


@pytest.mark.parametrize("name", HOSTILE_KEYS)
def test_a_verifier_key_in_another_form_is_refused(name: str) -> None:
    """[L-4]"""
    text, message = HOSTILE_KEYS[name]

    with pytest.raises(MalformedError, match=message):
        VerifierKey.parse(text)


def test_no_part_of_a_verifier_key_is_a_verifier_key() -> None:
    for start in range(len(PETER_KEY)):
        for end in range(start, len(PETER_KEY) + (start > 0)):
            with pytest.raises(MalformedError):
                VerifierKey.parse(PETER_KEY[start:end])


@pytest.mark.parametrize("seed", range(8))
def test_a_verifier_key_is_read_back_as_it_was_written(seed: int) -> None:
    public_key = bytes(SigningKey(bytes([seed]) * 32).verify_key)
    for kind in (KeyType.ED25519, KeyType.COSIGNATURE_V1):
        key = VerifierKey("witness.example/w", kind, public_key)
        assert VerifierKey.parse(key.serialize()) == key


@pytest.mark.parametrize(
    "public_key",
    [
        bytes(32),
        b"\x01" + bytes(31),
        b"\xec" + b"\xff" * 30 + b"\x7f",
        b"\xed" + b"\xff" * 30 + b"\x7f",
        b"\xff" * 32,
        bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa"),
    ],
    ids=["order 4", "order 1", "order 2", "not canonical", "no point", "order 8"],
)
def test_a_public_key_about_which_verifiers_disagree_is_refused(public_key: bytes) -> None:
    with pytest.raises(ValueError, match="low order or not canonical"):
        VerifierKey("relay.example/log", KeyType.ED25519, public_key)


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\u2003b", "a\nb", "a\x07b"])
def test_a_text_that_cannot_name_a_key_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="key name"):
        VerifierKey(name, KeyType.ED25519, KEY_BYTES[1:])


def test_a_public_key_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="public key is 33 bytes, expected 32"):
        VerifierKey("a", KeyType.ED25519, KEY_BYTES)


def test_a_signature_of_another_key_text_or_length_does_not_verify() -> None:
    key = VerifierKey.parse(PETER_KEY)
    signature = SigningKey(PETER_SEED).sign(b"text").signature

    verify_ed25519(key, b"text", signature)
    for other, text, wrong, message in [
        (VerifierKey.parse(ENOCH_KEY), b"text", signature, "by EnochRoot does not verify"),
        (key, b"texT", signature, "by PeterNeumann does not verify"),
        (key, b"text", signature[::-1], "by PeterNeumann does not verify"),
        (key, b"text", signature[1:], "by PeterNeumann is 63 bytes, expected 64"),
        (key, b"text", signature + b"x", "by PeterNeumann is 65 bytes, expected 64"),
    ]:
        with pytest.raises(VerificationError, match=message):
            verify_ed25519(other, text, wrong)


# Numbers and base64.


@pytest.mark.parametrize("text", ["0", "1", "10", "9223372036854775807"])
def test_a_canonical_number_is_read(text: str) -> None:
    assert str(parse_decimal(text, "size")) == text


HOSTILE_NUMBERS = ["", "00", "01", "+1", "-1", " 1", "1 ", "1\n", "1_0", "1e3", "0x1", "\u0661"]
HOSTILE_NUMBERS += ["9223372036854775808", "9" * 19, "1" * 5_000]


@pytest.mark.parametrize("text", HOSTILE_NUMBERS, ids=lambda text: repr(text[:20]))
def test_a_number_in_another_form_is_refused(text: str) -> None:
    """[L-4]"""
    with pytest.raises(MalformedError, match="size is not a whole number in canonical form"):
        parse_decimal(text, "size")


@given(st.binary(min_size=1, max_size=40))
def test_base64_is_read_in_the_form_it_is_written(data: bytes) -> None:
    assert decode_base64(b64encode(data).decode(), "hash") == data
