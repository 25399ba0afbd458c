"""Verifiers that are not ours judge as ours does, and refuse what was tampered with.

Each tool has a tamper test of its own: a verifier that believes everything would pass all others.
Their answers are recorded as they are. Where a tool believes what it should not, it stands in
``TOO_TRUSTING`` with the mutation, and the test fails once the tool has mended it.
"""

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import metamorphic_log
import pytest
import tamperlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tlog_scales import signing, tlog
from tlog_scales.backend import LocalBackend
from tlog_scales.reader import TilesReader
from tlog_scales.writer import TilesWriter

from comity_client.audit_archive import Archive
from comity_client.audit_findings import Finding
from comity_client.audit_tree import TreeCheck
from comity_protocol.checkpoint import open_checkpoint, verify_anchor, verify_quorum
from comity_protocol.errors import ComityError
from comity_protocol.merkle import consistency_proof, inclusion_proof, leaf_hash
from comity_protocol.signed_note import KeyType, VerifierKey
from support.paper_log import PaperLog, entry
from support.verifiers import (
    FOREIGN,
    Claim,
    Dice,
    Growth,
    Inclusion,
    build_reference,
    mutations,
    ours,
)
from support.world import World

SIZES = [1, 2, 3, 7, 8, 255, 256, 257, 511, 700]

TOO_TRUSTING: dict[str, set[str]] = {}
"""By tool, the mutations that it believes and we refuse."""


@pytest.fixture(scope="module")
def log() -> PaperLog:
    return PaperLog(World.found(has_anchors=True), 700)


def claims(log: PaperLog, dice: Dice) -> Iterator[Claim]:
    """True claims about trees of all sizes, without end."""
    while True:
        size = dice.below(log.size) + 1
        index, old = dice.below(size), dice.below(size) + 1
        yield Inclusion(
            log.hashes[0][index],
            index,
            size,
            log.root(size),
            inclusion_proof(index, size, log.read),
        )
        proof = consistency_proof(old, size, log.read)
        yield Growth(old, log.root(old), size, log.root(size), proof)


def compare(log: PaperLog, count: int) -> dict[str, set[str]]:
    """Give, by tool, the mutations on which it says something else than we do."""
    dice, tried = Dice(1), 0
    apart: dict[str, set[str]] = {}
    for claim in claims(log, dice):
        assert ours(claim)
        for name, believes in FOREIGN.items():
            assert believes(claim), name
        for kind, altered in mutations(claim, dice):
            tried += 1
            for name, believes in FOREIGN.items():
                if believes(altered) != ours(altered):
                    what = type(claim).__name__.lower()
                    apart.setdefault(name, set()).add(f"{what}: {kind}")
        if tried >= count:
            return apart
    raise AssertionError


def test_500_mutations_are_judged_alike_by_all(log: PaperLog) -> None:
    assert compare(log, 500) == TOO_TRUSTING


@pytest.mark.long
@pytest.mark.timeout(600)
def test_10_000_mutations_are_judged_alike_by_all(log: PaperLog) -> None:
    assert compare(log, 10_000) == TOO_TRUSTING


@pytest.mark.parametrize("name", FOREIGN)
def test_a_tool_refuses_what_was_tampered_with(name: str, log: PaperLog) -> None:
    """Every bit of leaf, root and proof of one claim of each kind."""
    proof = inclusion_proof(300, 700, log.read)
    good = Inclusion(log.hashes[0][300], 300, 700, log.root(700), proof)
    grown = Growth(300, log.root(300), 700, log.root(700), consistency_proof(300, 700, log.read))
    believes = FOREIGN[name]
    assert believes(good)
    assert believes(grown)
    for bit in range(0, 256, 17):
        for at in range(len(proof)):
            bad = [*proof]
            bad[at] = flip(bad[at], bit)
            assert not believes(Inclusion(good.leaf, 300, 700, good.root, tuple(bad)))
        assert not believes(Inclusion(flip(good.leaf, bit), 300, 700, good.root, proof))
        assert not believes(Growth(300, flip(grown.old_root, bit), 700, grown.root, grown.proof))
        assert not believes(Growth(300, grown.old_root, 700, flip(grown.root, bit), grown.proof))


def flip(data: bytes, bit: int) -> bytes:
    return (int.from_bytes(data, "big") ^ 1 << bit).to_bytes(len(data), "big")


def test_rust_believes_our_checkpoints_and_proofs(log: PaperLog) -> None:
    """[L-3] [L-4] metamorphic-log does not know cosignatures and passes over their lines."""
    vkey = log.world.genesis.log.serialize()
    note = log.note().decode()
    head = metamorphic_log.checkpoint_verify(note, [vkey])
    assert (head.origin, head.size, head.root) == (log.world.genesis.origin, 700, log.root(700))
    for index in (0, 255, 256, 699):
        proof = list(inclusion_proof(index, 700, log.read))
        metamorphic_log.checkpoint_verify_inclusion(
            note, [vkey], index, log.hashes[0][index], proof
        )
    proof = list(consistency_proof(300, 700, log.read))
    older = log.note(300).decode()
    metamorphic_log.checkpoint_verify_consistency(older, note, [vkey], proof)

    for bad in (note.replace("700", "701"), note.replace("comity", "comitx"), note[1:]):
        with pytest.raises(metamorphic_log.VerifyError):
            metamorphic_log.checkpoint_verify(bad, [vkey])


def test_our_anchors_are_believed_by_others(log: PaperLog) -> None:
    """[L-10] ML-DSA-44 cosignatures, made by us and by them."""
    anchors = log.world.genesis.anchors
    assert anchors is not None
    checkpoint = tlog.Checkpoint.from_text(log.anchor(700).decode())
    keys = [signing.Vkey.from_string(key.serialize()) for key in anchors.quorum.witnesses]

    verified = signing.VkeySet(*keys).verify(checkpoint.signatures, checkpoint)
    assert {key.name for key, _ in verified} == {key.name for key in anchors.quorum.witnesses}
    assert not believed(signing.VkeySet(*keys), replace(checkpoint, size=699))


def believed(keys: signing.VkeySet, checkpoint: tlog.Checkpoint) -> bool:
    try:
        return bool(keys.verify(checkpoint.signatures, checkpoint))
    except Exception:  # noqa: BLE001 - whatever it raises, it does not believe
        return False


def test_our_folder_is_read_and_proven_from_by_others(log: PaperLog, tmp_path: Path) -> None:
    """[L-2] What tlog-scales computes from our tiles is what we believe."""
    log.write(tmp_path)
    reader = TilesReader(LocalBackend(tmp_path))
    checkpoint = reader.get_checkpoint()
    reader.set_size(checkpoint.size)

    assert reader.calculate_root_hash() == log.root(700)
    for index in (0, 1, 255, 256, 511, 512, 699):
        assert reader.get_entry(index) == log.entries[index]
        proof = tuple(reader.get_inclusion_proof(index, 700).node_hashes)
        assert ours(Inclusion(leaf_hash(log.entries[index]), index, 700, log.root(700), proof))
    for old in (1, 255, 256, 699):
        proof = tuple(reader.get_consistency_proof(old, 700).node_hashes)
        assert ours(Growth(old, log.root(old), 700, log.root(700), proof))


@pytest.mark.parametrize("name", ["tile/0/000", "tile/0/002.p/188", "tile/1/000.p/2"])
def test_others_are_led_astray_by_a_tampered_tile_and_do_not_reach_the_root(
    name: str, log: PaperLog, tmp_path: Path
) -> None:
    """tlog-scales trusts tiles and compares nothing but what it needs for the proof that is asked:

    with a tampered tile of entries' hashes it still computes the root, from the tile above. What it
    proves from the tampered tile leads nowhere, and its own check refuses it.
    """
    log.write(tmp_path)
    data = bytearray((tmp_path / name).read_bytes())
    data[32] ^= 1
    (tmp_path / name).write_bytes(data)
    reader = TilesReader(LocalBackend(tmp_path))
    reader.set_size(700)
    index = {"tile/0/000": 0, "tile/0/002.p/188": 512, "tile/1/000.p/2": 0}[name]
    proof = reader.get_inclusion_proof(index, 700)

    assert (reader.calculate_root_hash() == log.root(700)) == (name == "tile/0/000")
    with pytest.raises(tlog.InclusionProofInvalid):
        proof.check(leaf_hash(log.entries[index]), log.root(700))
    found: list[Finding] = []
    assert not TreeCheck(Archive(tmp_path), 700, log.root(700), found.append).run()
    assert [one.where for one in found] == [name]


def test_a_log_that_another_program_wrote_is_verified(tmp_path: Path) -> None:
    """[V-3] Tiles, entries, checkpoint and proofs by tlog-scales."""
    origin, folder = "foreign.example/log", tmp_path / "log"
    key = Ed25519PrivateKey.from_private_bytes(bytes([9]) * 32)
    signer = signing.PlainEd25519Signer(origin, key)
    writer = TilesWriter.create(folder, origin)
    for size in (300, 700):
        for number in range(300 if size == 700 else 0, size):
            writer.add_leaf(entry(number))
        writer.commit([signer])
    own = PaperLog(World.found(), 700)
    own.entries[:] = [entry(number) for number in range(700)]

    head = open_checkpoint((folder / "checkpoint").read_bytes(), log_key_of(origin, key))
    assert (head.size, head.root) == (700, own.root(700))
    found: list[Finding] = []
    assert TreeCheck(Archive(folder), 700, head.root, found.append).run(), found


def log_key_of(origin: str, key: Ed25519PrivateKey) -> VerifierKey:
    return VerifierKey(origin, KeyType.ED25519, key.public_key().public_bytes_raw())


def test_the_proofs_of_another_program_are_believed() -> None:
    """[L-1] [L-2] Trees, roots and proofs by tamperlog."""
    hashes = [tamperlog.hash_leaf(entry(number)) for number in range(130)]
    assert hashes[0] == leaf_hash(entry(0))
    for size in (1, 2, 3, 64, 65, 130):
        root = tamperlog.merkle_root(hashes[:size])
        for index in {0, size // 2, size - 1}:
            proof = tuple(tamperlog.inclusion_proof(index, hashes[:size]))
            assert ours(Inclusion(hashes[index], index, size, root, proof))
        for old in {1, size // 2 + 1, size}:
            proof = tuple(tamperlog.consistency_proof(old, hashes[:size]))
            assert ours(Growth(old, tamperlog.merkle_root(hashes[:old]), size, root, proof))


def test_cosignatures_of_another_program_make_an_anchor(log: PaperLog) -> None:
    """[L-10] Our quorum of ML-DSA-44, cosigned by tlog-scales."""
    anchors = log.world.genesis.anchors
    assert anchors is not None
    signers: list[signing.CheckpointSigner] = [
        signing.MLDSA44CosignatureSigner(name, key.seed)
        for name, key in log.world.anchor_keys.items()
    ]
    theirs = tlog.Checkpoint.make_signed(log.world.genesis.origin, 700, log.root(700), signers)
    note = theirs.serialize().encode()

    head = verify_anchor(note, log.world.genesis.origin, anchors.quorum).checkpoint
    assert (head.size, head.root) == (700, log.root(700))
    with pytest.raises(ComityError):
        verify_quorum(note, log.world.genesis.log, log.world.genesis.quorum)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_reference_in_go_believes_our_tiles_and_refuses_tampered_ones(tmp_path: Path) -> None:
    """[L-1] [L-2] golang.org/x/mod/sumdb; versions before 0.40 believed some tampered tiles."""
    size = 65_536 + 600
    log = PaperLog(World.found(), size)
    folder = tmp_path / "log"
    log.write(folder)
    (tmp_path / "go").mkdir()
    program = build_reference(tmp_path / "go")
    vkey = log.world.genesis.log.serialize()

    def says() -> str:
        done = subprocess.run(
            [program, folder, vkey], capture_output=True, text=True, check=False, timeout=60
        )
        return done.stdout.strip()

    assert says() == f"believed: {size}"
    for name in GO_FILES:
        path = folder / name
        data = path.read_bytes()
        for at in {3, len(data) // 2, len(data) - 1}:
            path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
            assert says().startswith("refused"), (name, at)
        path.write_bytes(data)
    note = (folder / "checkpoint").read_bytes()
    for at in range(note.index(b"\n\n")):
        (folder / "checkpoint").write_bytes(note[:at] + bytes([note[at] ^ 1]) + note[at + 1 :])
        assert says().startswith("refused"), at


GO_FILES = [
    "tile/0/000",
    "tile/0/257",
    "tile/0/258.p/88",
    "tile/1/000",
    "tile/1/001.p/2",
    "tile/2/000.p/1",
    "tile/entries/000",
    "tile/entries/255",
    "tile/entries/258.p/88",
]
