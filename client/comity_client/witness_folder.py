"""The folder of a witness: its keys, its memory, and what makes sure that there is only one.

    witness.key         the Ed25519 key that cosigns and stamps
    witness.anchor.key  the ML-DSA-44 key for anchors
    witness.sqlite3     the memory that both belong to
    witness.json        the public halves, for whoever founds the deployment; no secret
    retired             there once the keys must not be used again
    lock                held by the one process that runs

Rules:

* [W-4] a witness whose state is lost never cosigns with that key again;
* [W-8] a witness that meets a cosignature of its own above its memory retires its key.

What cannot be seen from here: that the whole folder was put back from a backup. Therefore a witness
is never restored. The genesis fixes the witnesses, so a lost one stays lost; a quorum leaves room
for that. When the log shows it after all, `retire` ends it.
"""

import fcntl
import json
import os
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, ClassVar, Final

from nacl.signing import SigningKey

from comity_client.files import is_private, sync_folder, write_private
from comity_client.witness_state import (
    ANCHOR_FILE,
    KEY_FILE,
    STATE_FILE,
    WitnessKey,
    WitnessState,
    WitnessStateError,
)
from comity_protocol.errors import ComityError, MalformedError
from comity_protocol.keys import AnchorKey
from comity_protocol.signed_note import KeyType, VerifierKey, decode_base64, encode_base64

LOCK_FILE: Final = "lock"
RETIRED_FILE: Final = "retired"
PUBLIC_FILE: Final = "witness.json"

_KEY_PREFIX: Final = "PRIVATE+KEY+"
_KEY_BYTES_MAX: Final = 4_096


class WitnessRunningError(ComityError):
    """Another process holds the folder of this witness."""

    code = "witness-running"
    remedy: ClassVar[str] = "stop the other one first; two at once would be two memories of one key"


class WitnessRetiredError(ComityError):
    """The keys of this witness were used beyond what it remembers, and are not used again."""

    code = "witness-retired"
    remedy: ClassVar[str] = (
        "do not delete the file; tell the relay's operator that this witness is lost: the others of"
        " the quorum go on"
    )


@dataclass(frozen=True, slots=True)
class WitnessFolder:
    """An opened folder: keys and memory that belong together, and nobody else at work in it."""

    data: Path
    key: WitnessKey
    state: WitnessState
    _lock: BinaryIO

    @classmethod
    def open(cls, data: Path, name: str) -> "WitnessFolder":
        """Open the keys and the memory of a witness, or begin them in an empty folder.

        Raises:
            WitnessRunningError: another process has it open.
            WitnessRetiredError: its keys were retired.
            WitnessStateError: one of its files is lost, or they do not belong together.

        Source: PROTOCOL [W-4], [W-8].
        """
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        with ExitStack() as undo:
            lock = undo.enter_context(_hold(data / LOCK_FILE))
            # SPEC [W-8]: a retired key is never used again.
            if (data / RETIRED_FILE).exists():
                raise WitnessRetiredError(f"this witness is retired, see the file {RETIRED_FILE}")
            signing_key, state = _open_memory(data, name)
            undo.callback(state.close)
            key = WitnessKey(name, signing_key, _open_anchor(data / ANCHOR_FILE, name, state))
            undo.pop_all()
            return cls(data, key, state, lock)

    def describe(self, url: str | None) -> dict[str, str]:
        """Give what others pin, and write it into the folder.

        Args:
            url: where others reach it, if anywhere.
        """
        public = {"verifier_key": self.key.verifier_key.serialize()}
        if (anchor := self.key.anchor_verifier_key) is not None:
            public["anchor_key"] = anchor.serialize()
        if url is not None:
            public["url"] = url
        write_private(self.data / PUBLIC_FILE, f"{json.dumps(public, indent=2)}\n".encode())
        return public

    def retire(self, reason: str) -> None:
        """Make sure that these keys are not used again; `reason` is a sentence for people."""
        # SPEC [W-8]: a witness that meets a cosignature of its own above its memory retires.
        write_private(self.data / RETIRED_FILE, f"{reason}\n".encode())

    def close(self) -> None:
        """Close the memory and let another process open the folder."""
        self.state.close()
        self._lock.close()


def _hold(path: Path) -> BinaryIO:
    """Take the lock that a process gives back when it ends, however it ends."""
    file = os.fdopen(os.open(path, os.O_CREAT | os.O_RDWR, 0o600), "r+b")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise WitnessRunningError("this witness runs already, in another process") from error
    return file


def _open_memory(data: Path, name: str) -> tuple[SigningKey, WitnessState]:
    """Open or begin key and memory.

    The memory is made first and the key last: a key on the disk means that there was a memory.
    """
    key_path, state_path = data / KEY_FILE, data / STATE_FILE
    if key_path.exists():
        key = SigningKey(_read_key(key_path, name, KeyType.COSIGNATURE_V1))
        return key, WitnessState.open(state_path, WitnessKey(name, key).verifier_key)
    if state_path.exists():
        # A first start that stopped half-way: the key was never written, so nothing was cosigned.
        WitnessState.open(state_path, None).close()
        state_path.unlink()
    key = SigningKey.generate()
    public = WitnessKey(name, key).verifier_key
    state = WitnessState.create(state_path, public)
    with ExitStack() as undo:
        undo.enter_context(closing(state))
        _write_key(key_path, public, bytes(key))
        undo.pop_all()
    return key, state


def _open_anchor(path: Path, name: str, state: WitnessState) -> AnchorKey:
    """Open or make the key for anchors.

    The file is made first and remembered last: a key that is remembered was on the disk, and one
    that is not remembered has cosigned nothing.
    """
    known = state.anchor()
    if path.exists():
        key = AnchorKey(_read_key(path, name, KeyType.MLDSA44))
    elif known is not None:
        # SPEC [W-4]: a witness that has lost a part of its state does not begin another.
        raise WitnessStateError(f"{STATE_FILE} knows a key for anchors, but {path.name} is missing")
    else:
        key = AnchorKey.generate()
        _write_key(path, VerifierKey(name, KeyType.MLDSA44, key.public), key.seed)
    public = VerifierKey(name, KeyType.MLDSA44, key.public)
    if known is None:
        state.keep_anchor(public)
    elif known != public:
        raise WitnessStateError(f"{STATE_FILE} belongs to another key than {path.name}")
    return key


def _write_key(path: Path, public: VerifierKey, seed: bytes) -> None:
    text = (
        f"{_KEY_PREFIX}{public.name}+{public.key_id.hex()}"
        f"+{encode_base64(bytes([public.type]) + seed)}\n"
    )
    with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    sync_folder(path.parent)


def _read_key(path: Path, name: str, type_: KeyType) -> bytes:
    """Read the seed of a key.

    Raises:
        WitnessStateError: the file is damaged, another witness's, or readable by others.
    """
    with path.open("rb") as file:
        if not is_private(file.fileno()):
            raise WitnessStateError(f"{path.name} can be read by others, expected mode 600")
        text = file.read(_KEY_BYTES_MAX).decode("utf-8", "replace")
    head = f"{_KEY_PREFIX}{name}+"
    if not text.startswith(head) or not text.endswith("\n"):
        raise WitnessStateError(f"{path.name} is not the key of the witness with the name given")
    key_id, _, encoded = text.removeprefix(head).removesuffix("\n").partition("+")
    try:
        material = decode_base64(encoded, path.name)
        public = VerifierKey(name, type_, _public_of(type_, material[1:]))
    except (MalformedError, ValueError) as error:
        raise WitnessStateError(f"{path.name} is damaged") from error
    if material[0] != type_ or public.key_id.hex() != key_id:
        raise WitnessStateError(f"{path.name} is damaged")
    return material[1:]


def _public_of(type_: KeyType, seed: bytes) -> bytes:
    if type_ is KeyType.MLDSA44:
        return AnchorKey(seed).public
    return bytes(SigningKey(seed).verify_key)
