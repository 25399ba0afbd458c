"""The tree is that of RFC 6962, and only true proofs hold: [L-1] [L-2] [L-6].

The oracle is the definition of RFC 6962 section 2.1, word for word and recursive. The vectors are
those of the Certificate Transparency reference implementation.
"""

import os
from collections.abc import Callable, Sequence
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity_protocol.errors import MalformedError, VerificationError
from comity_protocol.merkle import (
    EMPTY_ROOT,
    SIZE_MAX,
    Frontier,
    Growth,
    ProofPlan,
    Read,
    TileHash,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    plan_consistency,
    plan_inclusion,
    plan_root,
    prove,
    verify_consistency,
    verify_inclusion,
)

# Every size up to this one is tried with every index and every older size.
SIZES_ALL_MAX = 130 if os.environ.get("COMITY_LONG") == "1" else 34
# Sizes around the borders of tiles.
SIZES_OF_TILES = [255, 256, 257, 300, 511, 512, 513, 767, 769]

INPUTS = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657"]
INPUTS += ["606162636465666768696a6b6c6d6e6f"]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
# A node of that tree by its first leaf and its end.
NODES = {
    (0, 1): "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    (1, 2): "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
    (0, 2): "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    (2, 4): "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
    (4, 5): "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    (4, 6): "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
    (6, 8): "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
    (0, 4): "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    (4, 8): "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
}
INCLUSION = [
    (0, 1, []),
    (0, 2, [(1, 2)]),
    (1, 2, [(0, 1)]),
    (2, 3, [(0, 2)]),
    (1, 5, [(0, 1), (2, 4), (4, 5)]),
    (0, 8, [(1, 2), (2, 4), (4, 8)]),
    (5, 8, [(4, 5), (6, 8), (0, 4)]),
]
CONSISTENCY = [
    (1, 1, []),
    (1, 8, [(1, 2), (2, 4), (4, 8)]),
    (2, 5, [(2, 4), (4, 5)]),
    (6, 8, [(4, 6), (6, 8), (0, 4)]),
]

Hashes = list[bytes]
HASH = leaf_hash(b"some leaf")


def defined_root(leaves: Hashes) -> bytes:
    """MTH(D[n]) of RFC 6962 section 2.1."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = defined_split(len(leaves))
    return sha256(b"\x01" + defined_root(leaves[:k]) + defined_root(leaves[k:])).digest()


def defined_path(m: int, leaves: Hashes) -> Hashes:
    """PATH(m, D[n]) of RFC 6962 section 2.1.1."""
    if len(leaves) == 1:
        return []
    k = defined_split(len(leaves))
    if m < k:
        return [*defined_path(m, leaves[:k]), defined_root(leaves[k:])]
    return [*defined_path(m - k, leaves[k:]), defined_root(leaves[:k])]


def defined_subproof(m: int, leaves: Hashes, *, whole: bool) -> Hashes:
    """SUBPROOF(m, D[n], b) of RFC 6962 section 2.1.2."""
    if m == len(leaves):
        return [] if whole else [defined_root(leaves)]
    k = defined_split(len(leaves))
    if m <= k:
        return [*defined_subproof(m, leaves[:k], whole=whole), defined_root(leaves[k:])]
    return [*defined_subproof(m - k, leaves[k:], whole=False), defined_root(leaves[:k])]


def defined_split(n: int) -> int:
    """The largest power of two smaller than n."""
    k = 1
    while 2 * k < n:
        k *= 2
    return k


def leaves_of(count: int) -> Hashes:
    return [leaf_hash(b"leaf %d" % index) for index in range(count)]


def reader(leaves: Hashes) -> Callable[[int, int, int], Hashes]:
    """Serve tile hashes as a database would that only holds what growing the tree gave it."""
    stored = {(0, index): hashed for index, hashed in enumerate(leaves)}
    for tile in Frontier().grow(leaves).tile_hashes:
        stored[tile.level, tile.index] = tile.hash

    def read(level: int, start: int, count: int) -> Hashes:
        return [stored[level, index] for index in range(start, start + count)]

    return read


LEAVES = leaves_of(800)
READ = reader(LEAVES)
REFERENCE = [leaf_hash(bytes.fromhex(data)) for data in INPUTS]


# [L-1] Leaves and nodes are hashed as RFC 6962.


@pytest.mark.parametrize("size", range(9))
def test_roots_are_those_of_the_reference_implementation(size: int) -> None:
    assert Frontier().extend(REFERENCE[:size]).root.hex() == ROOTS[size]


@pytest.mark.parametrize(("index", "size", "nodes"), INCLUSION)
def test_inclusion_proofs_are_those_of_the_reference_implementation(
    index: int, size: int, nodes: list[tuple[int, int]]
) -> None:
    proof = inclusion_proof(index, size, reader(REFERENCE))

    assert [hashed.hex() for hashed in proof] == [NODES[node] for node in nodes]
    verify_inclusion(REFERENCE[index], index, size, bytes.fromhex(ROOTS[size]), proof)


@pytest.mark.parametrize(("old", "new", "nodes"), CONSISTENCY)
def test_consistency_proofs_are_those_of_the_reference_implementation(
    old: int, new: int, nodes: list[tuple[int, int]]
) -> None:
    proof = consistency_proof(old, new, reader(REFERENCE))

    assert [hashed.hex() for hashed in proof] == [NODES[node] for node in nodes]
    verify_consistency(old, bytes.fromhex(ROOTS[old]), new, bytes.fromhex(ROOTS[new]), proof)


def test_a_leaf_and_a_node_of_the_same_bytes_have_different_hashes() -> None:
    left, right = LEAVES[:2]

    assert leaf_hash(left + right) != node_hash(left, right)
    assert leaf_hash(left + right) == sha256(b"\x00" + left + right).digest()


@pytest.mark.parametrize("size", [*range(SIZES_ALL_MAX + 1), *SIZES_OF_TILES])
def test_every_proof_is_the_one_that_the_definition_gives(size: int) -> None:
    leaves = LEAVES[:size]
    root = defined_root(leaves)
    picked = range(size) if size <= SIZES_ALL_MAX else [0, 1, size // 2, 254, size - 2, size - 1]

    for index in picked:
        proof = inclusion_proof(index, size, READ)
        assert list(proof) == defined_path(index, leaves)
        verify_inclusion(leaves[index], index, size, root, proof)
    for old in (*picked, size):
        proof = consistency_proof(old, size, READ)
        assert list(proof) == (defined_subproof(old, leaves, whole=True) if old else [])
        verify_consistency(old, defined_root(leaves[:old]), size, root, proof)


@pytest.mark.long
def test_every_proof_holds_in_a_tree_of_three_tile_levels() -> None:
    size = 70_000
    leaves = leaves_of(size)
    read, root = reader(leaves), Frontier().extend(leaves).root

    for index in (*range(0, size, 997), size - 1):
        verify_inclusion(leaves[index], index, size, root, inclusion_proof(index, size, read))
    for old in (1, 255, 256, 65_535, 65_536, 65_537, 69_999):
        old_root = Frontier().extend(leaves[:old]).root
        verify_consistency(old, old_root, size, root, consistency_proof(old, size, read))


# Growing.


@given(st.lists(st.integers(0, 300), max_size=4))
def test_a_frontier_grows_alike_in_any_portions(portions: list[int]) -> None:
    total = min(sum(portions), len(LEAVES))
    frontier = Frontier()
    for portion in portions:
        frontier = frontier.extend(LEAVES[frontier.size : frontier.size + portion])

    assert frontier == Frontier().extend(LEAVES[:total])


def test_appending_one_leaf_is_extending_by_one() -> None:
    assert Frontier().append(HASH) == Frontier(1, (HASH,))


def test_growing_tells_each_tile_hash_once_and_in_order() -> None:
    # 512 leaves complete two subtrees of 256.
    first = Frontier().grow(LEAVES[:300])
    second = first.frontier.grow(LEAVES[300:512])

    assert first == Growth(
        frontier=Frontier().extend(LEAVES[:300]),
        tile_hashes=(TileHash(level=1, index=0, hash=defined_root(LEAVES[:256])),),
    )
    assert second.tile_hashes == (TileHash(level=1, index=1, hash=defined_root(LEAVES[256:512])),)


def test_the_65536th_leaf_completes_a_hash_of_two_levels() -> None:
    full = Frontier(65_535, tuple(leaf_hash(b"%d" % height) for height in range(16)))

    grown = full.append(HASH)

    assert grown.size == 65_536
    assert [(tile.level, tile.index) for tile in full.grow([HASH]).tile_hashes] == [
        (1, 255),
        (2, 0),
    ]


@given(st.integers(0, 800))
def test_a_frontier_is_read_back_as_it_was_written(size: int) -> None:
    frontier = Frontier().extend(LEAVES[:size])

    assert Frontier.parse(frontier.serialize()) == frontier


@given(st.binary(max_size=120))
def test_reading_a_frontier_refuses_or_gives_what_would_be_written(data: bytes) -> None:
    try:
        frontier = Frontier.parse(data)
    except MalformedError:
        return
    assert frontier.serialize() == data


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes(7),
        bytes(9),
        bytes(7) + b"\x01" + bytes(31),
        bytes(7) + b"\x01" + bytes(33),
        b"\x80" + bytes(7) + HASH,
    ],
    ids=["nothing", "short size", "trailing byte", "short hash", "long hash", "size of 2**63"],
)
def test_a_frontier_that_cannot_be_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedError, match="frontier is"):
        Frontier.parse(data)


@pytest.mark.parametrize(
    ("size", "hashes", "message"),
    [
        (-1, (), "tree size is -1"),
        (SIZE_MAX + 1, (HASH,), "tree size is"),
        (3, (HASH,), "frontier has 1 hashes, expected 2"),
        (1, (HASH[1:],), "hash is 31 bytes"),
    ],
)
def test_a_frontier_cannot_hold_what_is_not_a_tree(
    size: int, hashes: tuple[bytes, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Frontier(size, hashes)


def test_a_tree_does_not_outgrow_its_largest_size() -> None:
    full = Frontier(SIZE_MAX, (HASH,) * 63)

    with pytest.raises(ValueError, match="tree size is 9223372036854775808"):
        full.append(HASH)


def test_a_hash_of_another_length_does_not_become_a_leaf() -> None:
    with pytest.raises(ValueError, match="hash is 33 bytes"):
        Frontier().append(HASH + b"x")


# Plans.


def test_a_plan_reads_each_tile_once_and_never_beyond_the_tree() -> None:
    # The figures of C2SP tlog-tiles for 70,000 leaves: the last tiles are 112, 17 and 1 wide.
    reads = plan_inclusion(69_999, 70_000).reads

    assert reads == (
        Read(level=0, start=69_888, count=111),
        Read(level=1, start=256, count=17),
        Read(level=2, start=0, count=1),
    )


@given(st.integers(1, SIZE_MAX), st.data())
def test_a_proof_in_a_tree_of_any_size_needs_few_reads(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))

    for plan in (plan_inclusion(index, size), plan_consistency(index, size)):
        assert len(plan.reads) <= 2 * (size.bit_length() // 8 + 1)
        assert len(plan.ranges) <= size.bit_length() + 1
        for read in plan.reads:
            assert 1 <= read.count <= 256
            assert read.start // 256 == (read.start + read.count - 1) // 256
            assert (read.start + read.count) << (8 * read.level) <= size


@pytest.mark.parametrize("size", [1, 2, 3, 5, 64, 100, 255, 256, 257, 300])
def test_the_root_of_a_smaller_tree_is_read_from_the_tiles_of_a_larger(size: int) -> None:
    leaves = [leaf_hash(bytes([number & 255, number >> 8])) for number in range(300)]
    above = [defined_root(leaves[:256])]
    plan = plan_root(size)
    levels = [leaves, above]
    hashes = [levels[read.level][read.start : read.start + read.count] for read in plan.reads]

    assert prove(plan, hashes) == (defined_root(leaves[:size]),)


@pytest.mark.parametrize(
    ("plan", "arguments"),
    [
        (plan_inclusion, (-1, 5)),
        (plan_inclusion, (5, 5)),
        (plan_inclusion, (0, 0)),
        (plan_inclusion, (0, SIZE_MAX + 1)),
        (plan_root, (0,)),
        (plan_root, (SIZE_MAX + 1,)),
        (plan_consistency, (-1, 5)),
        (plan_consistency, (6, 5)),
        (plan_consistency, (5, SIZE_MAX + 1)),
    ],
)
def test_a_plan_outside_the_tree_is_the_callers_mistake(
    plan: Callable[..., ProofPlan], arguments: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match=r"leaf index is|tree size"):
        plan(*arguments)


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ([], "0 runs of hashes given, expected 1"),
        ([LEAVES[:7]], "7 hashes given, expected 8"),
        ([[*LEAVES[:7], b""]], "hash is 0 bytes"),
    ],
)
def test_hashes_that_were_not_asked_for_make_no_proof(
    runs: Sequence[Sequence[bytes]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        prove(plan_inclusion(4, 8), runs)


# [L-2] A proof that is too short, too long or for an index outside the tree is refused.


@given(st.integers(2, 700), st.data())
def test_what_is_known_of_a_proof_is_neither_read_nor_proven_again(
    size: int, data: st.DataObject
) -> None:
    plan = plan_inclusion(data.draw(st.integers(0, size - 1)), size)
    known = set(data.draw(st.lists(st.sampled_from(plan.ranges))))
    rest = plan.without(known)

    given = dict(zip(plan.ranges, prove(plan, read_all(plan)), strict=True))
    assert rest.ranges == tuple(one for one in plan.ranges if one not in known)
    assert prove(rest, read_all(rest)) == tuple(given[one] for one in rest.ranges)
    assert len(rest.reads) <= len(plan.reads)


def read_all(plan: ProofPlan) -> list[Hashes]:
    return [READ(read.level, read.start, read.count) for read in plan.reads]


@given(st.integers(1, 300), st.data())
def test_a_changed_inclusion_proof_does_not_hold(size: int, data: st.DataObject) -> None:
    """[L-2]"""
    index = data.draw(st.integers(0, size - 1))
    root = Frontier().extend(LEAVES[:size]).root
    proof = inclusion_proof(index, size, READ)
    verify_inclusion(LEAVES[index], index, size, root, proof)

    wrong = [
        (LEAVES[index], index, size, root, (*proof, HASH)),
        (LEAVES[index], index, size, root, (HASH, *proof)),
        (HASH, index, size, root, proof),
        (LEAVES[index], index, size, HASH, proof),
    ]
    if proof:
        position, bit = data.draw(st.integers(0, len(proof) - 1)), data.draw(st.integers(0, 255))
        flipped = flip(proof[position], bit)
        changed = (*proof[:position], flipped, *proof[position + 1 :])
        wrong += [
            (LEAVES[index], index, size, root, changed),
            (LEAVES[index], index, size, root, proof[:-1]),
            (LEAVES[index], index, size, root, proof[1:]),
            (LEAVES[index], index ^ 1, size, root, proof),
        ]
    for arguments in wrong:
        with pytest.raises(VerificationError):
            verify_inclusion(*arguments)


@given(st.integers(1, 300), st.data())
def test_a_changed_consistency_proof_does_not_hold(new: int, data: st.DataObject) -> None:
    """[L-2]"""
    old = data.draw(st.integers(1, new))
    old_root, root = (Frontier().extend(LEAVES[:size]).root for size in (old, new))
    proof = consistency_proof(old, new, READ)
    verify_consistency(old, old_root, new, root, proof)

    wrong = [
        (old, old_root, new, root, (*proof, HASH)),
        (old, old_root, new, root, (HASH, *proof)),
        (old, HASH, new, root, proof),
        (old, old_root, new, HASH, proof),
    ]
    if proof:
        position, bit = data.draw(st.integers(0, len(proof) - 1)), data.draw(st.integers(0, 255))
        flipped = flip(proof[position], bit)
        changed = (*proof[:position], flipped, *proof[position + 1 :])
        wrong += [
            (old, old_root, new, root, changed),
            (old, old_root, new, root, proof[:-1]),
            (old, old_root, new, root, proof[1:]),
            (old, old_root, new, root, ()),
        ]
    for arguments in wrong:
        with pytest.raises(VerificationError):
            verify_consistency(*arguments)


@pytest.mark.parametrize(("index", "size"), [(-1, 4), (4, 4), (0, 0), (5, 4), (0, SIZE_MAX + 1)])
def test_an_index_outside_the_tree_is_refused(index: int, size: int) -> None:
    """[L-2]"""
    with pytest.raises(VerificationError, match="leaf index is"):
        verify_inclusion(HASH, index, size, HASH, ())


@pytest.mark.parametrize("sizes", [(3, 2), (-1, 2), (0, SIZE_MAX + 1)])
def test_a_size_that_goes_back_is_refused(sizes: tuple[int, int]) -> None:
    """[L-6]"""
    old, new = sizes
    with pytest.raises(VerificationError, match="expected it not to shrink"):
        verify_consistency(old, HASH, new, HASH, ())


def test_two_roots_of_one_size_are_a_fork() -> None:
    """[L-6]"""
    with pytest.raises(VerificationError, match="two roots for tree size 3; the log has forked"):
        verify_consistency(3, LEAVES[0], 3, LEAVES[1], ())


@pytest.mark.parametrize("size", [0, 5])
def test_every_tree_continues_the_empty_one_without_proof(size: int) -> None:
    root = defined_root(LEAVES[:size])

    verify_consistency(0, EMPTY_ROOT, size, root, ())
    with pytest.raises(VerificationError, match="has 1 hashes, expected none"):
        verify_consistency(0, EMPTY_ROOT, size, root, (HASH,))


@pytest.mark.parametrize(("old", "new"), [((0, HASH), (5, HASH)), ((0, EMPTY_ROOT), (0, HASH))])
def test_the_empty_tree_has_one_root(old: tuple[int, bytes], new: tuple[int, bytes]) -> None:
    """[L-6]"""
    with pytest.raises(VerificationError, match="empty tree is not the hash of nothing"):
        verify_consistency(*old, *new, ())


def test_proofs_with_hashes_of_another_length_are_refused() -> None:
    """[L-2]"""
    with pytest.raises(VerificationError, match="not 32 bytes"):
        verify_inclusion(LEAVES[0], 0, 2, HASH, (HASH[1:],))
    with pytest.raises(VerificationError, match="not 32 bytes"):
        verify_consistency(1, LEAVES[0], 2, HASH, (HASH + b"x",))


def flip(hashed: bytes, bit: int) -> bytes:
    return (int.from_bytes(hashed, "big") ^ (1 << bit)).to_bytes(32, "big")
