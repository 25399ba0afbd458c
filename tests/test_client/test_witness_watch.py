"""A witness that meets a cosignature of its own above its memory never signs again: [W-8].

The way there: somebody puts the folder of a witness back from a backup. Its memory and its key fit
each other, and only the published checkpoints show that the key has signed more.
"""

import asyncio
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest
from nacl.signing import SigningKey

from comity_client.transport import OfflineError, RelayRefusedError
from comity_client.witness import Witness
from comity_client.witness_folder import (
    RETIRED_FILE,
    WitnessFolder,
    WitnessRetiredError,
    WitnessRunningError,
)
from comity_client.witness_rule import Answer
from comity_client.witness_watch import RetireError, Watch
from comity_protocol.checkpoint import add_signatures, sign_checkpoint
from comity_protocol.errors import VerificationError
from comity_protocol.merkle import Frontier, consistency_proof, leaf_hash
from comity_protocol.signed_note import (
    KeyType,
    SignatureLine,
    VerifierKey,
    parse_signature_lines,
)
from comity_protocol.witnessing import AddCheckpoint

ORIGIN: Final = "relay.example/log"
NAME: Final = "witness.example/w1"
NOW: Final = 1_800_000_000
LOG_KEY: Final = SigningKey(b"L" * 32)
LOG: Final = VerifierKey(ORIGIN, KeyType.ED25519, bytes(LOG_KEY.verify_key))
LEAVES: Final = [leaf_hash(b"%d" % number) for number in range(20)]


@dataclass
class Published:
    """The relay's newest checkpoint, or why it is not shown."""

    note: bytes = b""
    error: Exception | None = None
    looks: int = 0
    used: list[bytes] = field(default_factory=list)
    was_used: asyncio.Event = field(default_factory=asyncio.Event)

    async def checkpoint(self) -> bytes:
        self.looks += 1
        if self.error is not None:
            raise self.error
        return self.note

    async def use(self, note: bytes) -> None:
        self.used.append(note)
        self.was_used.set()
        raise VerificationError("not of a quorum")


@dataclass
class Watching:
    """A witness that watches."""

    folder: WitnessFolder
    witness: Witness
    watch: Watch
    now: list[int]

    async def cosign(self, old: int, new: int, *, is_anchor: bool = False) -> Answer:
        request = AddCheckpoint(
            old_size=old,
            hashes=consistency_proof(old, new, lambda _, start, n: LEAVES[start : start + n]),
            note=note(new),
        )
        path = "/add-checkpoint?anchor" if is_anchor else "/add-checkpoint"
        return await self.witness.answer(path, request.serialize())

    async def published(self, old: int, new: int, *, is_anchor: bool = False) -> bytes:
        answer = await self.cosign(old, new, is_anchor=is_anchor)
        assert answer.status == 200, answer
        return add_signatures(note(new), parse_signature_lines(answer.body.decode()))


def note(size: int, word: str = "") -> bytes:
    leaves = LEAVES[:size] if not word else [leaf_hash(word.encode())] * size
    root = Frontier().extend(leaves).root
    return sign_checkpoint(origin=ORIGIN, size=size, root=root, key=LOG_KEY)


def not_yet() -> RelayRefusedError:
    kind = next(kind for kind in RelayRefusedError.__subclasses__() if kind.code == "not-yet")
    return kind("no checkpoint", status=404, retry_after=1, trace_id="")


@contextmanager
def watching(data: Path, source: Published, now: int = NOW) -> Iterator[Watching]:
    with closing(WitnessFolder.open(data, NAME)) as folder:
        clock = [now]
        watch = Watch(source, folder.state, folder.key, [LOG], source.use)
        witness = Witness(folder.state, folder.key, [LOG], lambda: clock[0], watch=watch)
        yield Watching(folder, witness, watch, clock)


@pytest.mark.parametrize("is_anchor", [False, True])
async def test_a_folder_from_a_backup_is_found_out_before_it_signs_anything(
    tmp_path: Path, is_anchor: bool
) -> None:
    """[W-8]"""
    source = Published(error=not_yet())
    with watching(tmp_path / "w", source) as witness:
        await witness.cosign(0, 3)
        shutil.copytree(tmp_path / "w", tmp_path / "backup")
        source.note, source.error = await witness.published(3, 9, is_anchor=is_anchor), None
    with watching(tmp_path / "backup", source, NOW + 1) as witness:
        answer = await witness.cosign(3, 5)

        assert answer.status == 503
        assert b"put back from a backup" in answer.body
        with pytest.raises(RetireError, match="at size 9 and time 1800000000, and it remembers"):
            await witness.watch.run()


async def test_a_folder_from_a_backup_of_a_quiet_log_is_found_out_by_the_time(
    tmp_path: Path,
) -> None:
    """[W-8] The size is the same, and the other cosignature is later."""
    source = Published(error=not_yet())
    with watching(tmp_path / "w", source) as witness:
        await witness.cosign(0, 3)
        shutil.copytree(tmp_path / "w", tmp_path / "backup")
        witness.now[0] += 600
        source.note, source.error = await witness.published(3, 3), None
    with watching(tmp_path / "backup", source, NOW + 1) as witness:
        assert (await witness.cosign(3, 3)).status == 503


async def test_a_copied_key_that_signed_another_past_is_found_out(tmp_path: Path) -> None:
    """[W-8] The same size and time, another root."""
    source = Published(error=not_yet())
    with watching(tmp_path / "w", source):
        pass
    shutil.copytree(tmp_path / "w", tmp_path / "copy")
    with watching(tmp_path / "w", source) as witness:
        await witness.cosign(0, 3)
    with watching(tmp_path / "copy", source) as other:
        request = AddCheckpoint(old_size=0, hashes=(), note=note(3, "other"))
        answer = await other.witness.answer("/add-checkpoint", request.serialize())
        source.note = add_signatures(note(3, "other"), parse_signature_lines(answer.body.decode()))
        source.error = None
    with watching(tmp_path / "w", source) as witness, pytest.raises(RetireError):
        await witness.watch.run()


async def test_a_witness_that_is_as_it_left_off_goes_on(tmp_path: Path) -> None:
    source = Published(error=not_yet())
    with watching(tmp_path, source) as witness:
        await witness.cosign(0, 3)
        source.note, source.error = await witness.published(3, 9), None
    with watching(tmp_path, source, NOW + 1) as witness:
        assert (await witness.cosign(9, 12)).status == 200
        # What the relay shows is older than the memory now, as it is for a moment each time.
        assert (await witness.cosign(12, 13)).status == 200
        assert source.looks == 2


async def test_nothing_is_cosigned_before_the_first_look(tmp_path: Path) -> None:
    """[W-8]"""
    source = Published(error=OfflineError("relay cannot be reached"))
    with watching(tmp_path, source) as witness:
        assert (await witness.cosign(0, 3)).status == 503
        source.note, source.error = b"nonsense", None
        assert (await witness.cosign(0, 3)).status == 503
        source.note = note(3)
        assert (await witness.cosign(0, 3)).status == 200


async def test_notes_of_other_logs_and_of_others_keys_retire_nobody(tmp_path: Path) -> None:
    source = Published(error=not_yet())
    with watching(tmp_path / "other", source) as other:
        foreign = await other.published(0, 9)
    with watching(tmp_path / "w", source) as witness:
        # Under this name with another key: the key id differs only by chance.
        line = parse_signature_lines(foreign.decode().rpartition("\n\n")[2])[1]
        own = witness.folder.key.verifier_key
        forged = add_signatures(note(9), [SignatureLine(own.name, own.key_id, line.signature)])
        elsewhere = sign_checkpoint(origin="other.example/log", size=9, root=LEAVES[0], key=LOG_KEY)
        for harmless in (note(9), foreign, forged, elsewhere, b"nonsense"):
            witness.watch.meet(harmless)
        assert (await witness.cosign(0, 9)).status == 200


@pytest.mark.parametrize("has_relay", [True, False])
async def test_a_witnessed_checkpoint_that_is_offered_says_as_much_as_a_published_one(
    tmp_path: Path, has_relay: bool
) -> None:
    """[W-8] A relay that starts anew shows the witnesses the newest one that they cosigned."""
    source = Published(error=not_yet())
    with watching(tmp_path / "w", source) as witness:
        await witness.cosign(0, 3)
        shutil.copytree(tmp_path / "w", tmp_path / "backup")
        published = await witness.published(3, 9)
    with closing(WitnessFolder.open(tmp_path / "backup", NAME)) as folder:
        watch = Watch(source if has_relay else None, folder.state, folder.key, [LOG])
        witness_ = Witness(folder.state, folder.key, [LOG], lambda: NOW, watch=watch)
        offer = AddCheckpoint(old_size=0, hashes=(), note=published)
        answer = await witness_.answer("/add-checkpoint", offer.serialize())

        assert (answer.status, b"backup" in answer.body) == (503, True)
        with pytest.raises(RetireError):
            await watch.run()
        clean = AddCheckpoint(old_size=3, hashes=(), note=note(3))
        assert (await witness_.answer("/add-checkpoint", clean.serialize())).status == 503


async def test_it_looks_again_after_each_cosignature(tmp_path: Path) -> None:
    """[W-8]"""
    source = Published(error=not_yet())
    with watching(tmp_path, source) as witness:
        task = asyncio.create_task(witness.watch.run(settle_seconds=0))
        await witness.cosign(0, 3)
        source.note, source.error = await witness.published(3, 9), None
        async with asyncio.timeout(5):
            await source.was_used.wait()
        task.cancel()

    # What cannot be followed is reported, and it goes on.
    assert source.used == [source.note]


# What follows: the key is never used again, and only one process has it.


def test_a_retired_witness_never_starts_again(tmp_path: Path) -> None:
    """[W-8]"""
    with closing(WitnessFolder.open(tmp_path, NAME)) as folder:
        folder.retire("because")

    for _ in range(2):
        with pytest.raises(WitnessRetiredError, match="see the file retired"):
            WitnessFolder.open(tmp_path, NAME)
    assert (tmp_path / RETIRED_FILE).read_text() == "because\n"


def test_a_folder_is_opened_once_at_a_time(tmp_path: Path) -> None:
    """[W-4] Two processes would be two memories of one key in the moment of a crash."""
    folder = WitnessFolder.open(tmp_path, NAME)
    with pytest.raises(WitnessRunningError, match="runs already"):
        WitnessFolder.open(tmp_path, NAME)
    folder.close()
    WitnessFolder.open(tmp_path, NAME).close()
