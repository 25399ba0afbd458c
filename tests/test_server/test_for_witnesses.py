"""What the relay serves to witnesses and mirrors: entries, statements, published checkpoints.

Entries and checkpoints are for everyone; statements are for members and for the witnesses of the
genesis, who sign their tokens with the key that cosigns: [T-1] [T-3] [R-14].
"""

from typing import Final

from nacl.signing import SigningKey

from comity_protocol.keys import FastKey
from comity_protocol.leaves import LEAF_BYTES, is_statement_leaf, statement_leaf
from comity_protocol.limits import LEAVES_PAGE_MAX
from comity_protocol.merkle import Frontier, leaf_hash
from support.relay import Answer, Relay, Stand, base64url
from support.tokens import sign_as

STATEMENTS: Final = "/v1/statements"


async def as_witness(
    relay: Relay, path: str, key: SigningKey | None = None, /, **changes: str
) -> Answer:
    """Ask with the token of a witness; of the first one of the world unless given."""
    if not relay.nonce:
        await relay.ask("GET", "/v1/nonce")
    signing_key = key or next(iter(relay.world.witness_keys.values()))
    claims = relay.claims("GET", path) | changes
    kid = bytes(signing_key.verify_key).hex()
    token = sign_as(FastKey(bytes(signing_key)), kid, claims)
    return await relay.ask("GET", path, Authorization=f"Comity {token}")


async def test_the_entries_lead_to_the_root_of_the_log(stand: Stand) -> None:
    await stand.relay.send(stand.sender, stand.to)
    answer = await stand.relay.ask("GET", "/v1/leaves/0")
    leaves = [answer.body[at : at + LEAF_BYTES] for at in range(0, len(answer.body), LEAF_BYTES)]

    head = await stand.relay.context.store.head()
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert Frontier().extend(map(leaf_hash, leaves)).root == head.root
    assert head.size <= LEAVES_PAGE_MAX


async def test_entries_may_be_asked_from_anywhere_and_end_with_the_log(stand: Stand) -> None:
    size = (await stand.relay.context.store.head()).size
    whole = (await stand.relay.ask("GET", "/v1/leaves/0")).body

    last = await stand.relay.ask("GET", f"/v1/leaves/{size - 1}")
    beyond = await stand.relay.ask("GET", f"/v1/leaves/{size}")

    assert (last.body, beyond.status, beyond.body) == (whole[-LEAF_BYTES:], 200, b"")
    for path in ("/v1/leaves/00", "/v1/leaves/-1", "/v1/leaves/x", f"/v1/leaves/{2**63}"):
        assert (await stand.relay.ask("GET", path)).status == 404


async def test_a_witness_gets_the_statements_of_all_statement_entries(stand: Stand) -> None:
    path = f"{STATEMENTS}?after=0&uncovered=1"
    answer = await as_witness(stand.relay, path)
    body = (await stand.relay.ask("GET", "/v1/leaves/0")).body
    leaves = [body[at : at + LEAF_BYTES] for at in range(0, len(body), LEAF_BYTES)]

    items = answer.value["items"]
    assert (answer.value["note"], answer.value["size"]) == (b"", 0)
    assert [statement_leaf(item[2]) for item in items] == list(filter(is_statement_leaf, leaves))
    assert all(item[4] == [] for item in items)


async def test_a_witness_may_read_statements_and_nothing_else_that_needs_a_token(
    stand: Stand,
) -> None:
    """[R-14]"""
    assert (await as_witness(stand.relay, STATEMENTS)).status == 200
    for path in ("/v1/mailbox", "/v1/receipts", "/v1/boxes"):
        assert (await as_witness(stand.relay, path)).code == "unauthenticated"


async def test_only_a_witness_of_the_genesis_may_read_statements(stand: Stand) -> None:
    """[T-1]"""
    stranger = SigningKey(b"S" * 32)

    assert (await as_witness(stand.relay, STATEMENTS, stranger)).code == "unauthenticated"


async def test_a_token_that_names_a_witness_is_signed_by_it(stand: Stand) -> None:
    """[T-1]"""
    relay = stand.relay
    await relay.ask("GET", "/v1/nonce")
    kid = bytes(next(iter(relay.world.witness_keys.values())).verify_key).hex()
    token = sign_as(FastKey(b"S" * 32), kid, relay.claims("GET", STATEMENTS))

    answer = await relay.ask("GET", STATEMENTS, Authorization=f"Comity {token}")

    assert answer.code == "unauthenticated"


async def test_a_token_of_a_witness_is_exact_and_taken_once(stand: Stand) -> None:
    """[T-1] [T-2] [T-3]"""
    relay, jti = stand.relay, "a" * 16
    wrong: list[dict[str, str]] = [
        {"aud": "00" * 16},
        {"htu": "/v1/mailbox"},
        {"htm": "POST"},
        {"bh": base64url(bytes(32))},
    ]
    for changes in wrong:
        assert (await as_witness(relay, STATEMENTS, **changes)).code == "unauthenticated"
    assert (await as_witness(relay, STATEMENTS, n="AAAA")).code == "use-nonce"

    assert (await as_witness(relay, STATEMENTS, jti=jti)).status == 200
    assert (await as_witness(relay, STATEMENTS, jti=jti)).code == "replayed-token"


async def test_published_checkpoints_are_listed_page_by_page(stand: Stand) -> None:
    relay = stand.relay
    await relay.send(stand.sender, stand.to)
    await relay.seal()
    everything = [one.note for one in await relay.context.store.checkpoints(-1, 0, 1_000)]

    whole = await relay.ask("GET", "/v1/checkpoints")
    second = await relay.ask("GET", "/v1/checkpoints?after=-1&skip=1&limit=1")

    assert whole.value["items"][: len(everything)] == everything
    assert second.value["items"] == everything[1:2]
    for query in ("after=-2", "limit=0", "limit=201", "skip=-1", "wait=1"):
        assert (await relay.ask("GET", f"/v1/checkpoints?{query}")).code == "bad-request"


async def test_anchors_are_listed_page_by_page(stand: Stand) -> None:
    relay = stand.relay
    for day, size, note in [(7, 5, b"a"), (8, 5, b"b"), (9, 12, b"c")]:
        await relay.context.store.keep_anchor(day, size, note)

    assert (await relay.ask("GET", "/v1/anchors?after=0&limit=2")).value["items"] == [b"a", b"b"]
    assert (await relay.ask("GET", "/v1/anchors?after=5")).value["items"] == [b"c"]
    assert (await relay.ask("GET", "/v1/anchors?limit=17")).code == "bad-request"
