"""What a hostile relay answers: the true relay behind a liar that alters its answers.

Every field of every answer is altered, one at a time; then there are lies that need more thought.
A liar has the keys of the relay and of the log.
"""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import ClientSession, web

from comity_protocol.encoding import parse, serialize
from comity_protocol.keys import FastKey
from comity_protocol.receipts import Promise, Signed, sign_promise
from support.operator_world import Past

_KEPT_HEADERS: Final = ("Content-Type", "Comity-Nonce", "Retry-After")
_SENT_HEADERS: Final = ("Authorization", "Content-Type")


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as the liar sees it.

    Attributes:
        path: Without its query.
        status: Of the true answer.
    """

    method: str
    path: str
    status: int


Lie = Callable[[Asked, bytes], bytes]
"""Gives the answer instead of the true one."""


@asynccontextmanager
async def lying(url: str, lie: Lie) -> AsyncIterator[str]:
    """Stand before a relay; gives the liar's address."""
    async with ClientSession(auto_decompress=False) as session:

        async def answer(request: web.Request) -> web.Response:
            headers = {
                name: request.headers[name] for name in _SENT_HEADERS if name in request.headers
            }
            body = await request.read()
            async with session.request(
                request.method, url + request.raw_path, data=body or None, headers=headers
            ) as response:
                true = await response.read()
                asked = Asked(request.method, request.path, response.status)
                kept = {
                    name: response.headers[name]
                    for name in _KEPT_HEADERS
                    if name in response.headers
                }
                told = lie(asked, true) if response.status == 200 else true
                return web.Response(status=response.status, body=told, headers=kept)

        app = web.Application(client_max_size=1 << 24)
        app.router.add_route("*", "/{path:.*}", answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            host, port = runner.addresses[0][:2]
            yield f"http://{host}:{port}"
        finally:
            await runner.cleanup()


def altered(value: Any) -> Any:  # noqa: ANN401 - any value of the encoding
    """Alter a value a little, keeping its type."""
    match value:
        case bytes() if value:
            middle = len(value) // 2
            return value[:middle] + bytes([value[middle] ^ 1]) + value[middle + 1 :]
        case bytes():
            return b"\x01"
        case bool():
            return not value
        case int():
            return value + 1
        case str():
            return value + "x"
        case None:
            return b"\x01"
        case list() if value:
            return [*value[:-1], altered(value[-1])]
        case list():
            return [bytes(32)]
        case _:
            raise AssertionError(value)


def _only(method: str, path: str, lie: Callable[[bytes], bytes]) -> Lie:
    def tell(asked: Asked, body: bytes) -> bytes:
        is_meant = asked.method == method and asked.path.startswith(path)
        return lie(body) if is_meant else body

    return tell


def in_field(path: str, place: int, how: Callable[[Any], Any], which: int) -> Lie:
    """Alter one field of one item of a page."""

    def lie(body: bytes) -> bytes:
        page: Any = parse(body)
        if len(page["items"]) > abs(which):
            page["items"][which][place] = how(page["items"][which][place])
        return serialize(page)

    return _only("GET", path, lie)


def of_items(path: str, how: Callable[[list[Any]], list[Any]]) -> Lie:
    """Alter the list of items of a page."""

    def lie(body: bytes) -> bytes:
        page: Any = parse(body)
        page["items"] = how(page["items"])
        return serialize(page)

    return _only("GET", path, lie)


def of_member(path: str, name: str, how: Callable[[Any], Any]) -> Lie:
    """Alter one member of an answer."""

    def lie(body: bytes) -> bytes:
        page: Any = parse(body)
        page[name] = how(page[name])
        return serialize(page)

    return _only("GET", path, lie)


def of_bytes(path: str, method: str = "GET") -> Lie:
    """Flip a bit in an answer that is not in the protocol's encoding."""
    return _only(method, path, altered)


FIELDS: Final[Mapping[str, Sequence[str]]] = {
    "/v1/mailbox": (
        "counter", "leaf index", "core", "signature", "body", "audit", "wrap", "proof",
    ),
    "/v1/receipts": ("leaf index", "payload", "signature"),
    "/v1/notices": ("leaf index", "payload", "signature"),
    "/v1/statements": ("ordinal", "leaf index", "payload", "signatures", "proof"),
}  # fmt: skip

Told = tuple[str, str, str, Callable[[Past], Lie]]
"""Name, family, what is altered, and the lie."""


def tell_all() -> Iterator[Told]:
    """Give every lie."""
    for path, fields in FIELDS.items():
        page = path.rpartition("/")[2]
        for place, field in enumerate(fields):
            what = f"{field} of an item of {page}"
            for which, word in ((0, "first"), (-1, "last")):
                lie = in_field(path, place, altered, which)
                yield f"answer: {what}, {word}, altered", "change", what, _as_is(lie)
            lie = in_field(path, place, lambda value: value, 0)
            yield f"answer: {what} that of another item", "swap", what, _as_is(_other(path, place))
        for name, family, how in _LISTS:
            yield f"answer: {name} {page}", family, page, _as_is(of_items(path, how))
    yield from _members()
    yield from _promises()


def _as_is(lie: Lie) -> Callable[[Past], Lie]:
    return lambda _: lie


def _other(path: str, place: int) -> Lie:
    def how(items: list[Any]) -> list[Any]:
        others = [item[place] for item in items[1:] if item[place] != items[0][place]]
        if others:
            items[0][place] = others[0]
        return items

    return of_items(path, how)


_LISTS: Final[Sequence[tuple[str, str, Callable[[list[Any]], list[Any]]]]] = (
    ("first item left out of", "withheld tail", lambda items: items[1:]),
    ("last item left out of", "withheld tail", lambda items: items[:-1]),
    ("nothing given of", "withheld tail", lambda _: []),
    ("order turned in", "swap", lambda items: items[::-1]),
    ("first item doubled in", "insert", lambda items: items[:1] + items),
)


def _members() -> Iterator[Told]:
    for path, name in (
        ("/v1/statements", "note"),
        ("/v1/boxes", "boxes"),
        ("/v1/boxes", "previous"),
    ):
        what = f"{name} in {path.rpartition('/')[2]}"
        lie = of_member(path, name, altered if name == "note" else _in_pairs)
        yield f"answer: {what} altered", "change", what, _as_is(lie)
    for path in ("/tile/0/000", "/tile/0/001", "/tile/1/000", "/tile/entries/000"):
        lie = of_bytes(path)
        yield f"answer: bit flipped in {path}", "change", path, _as_is(lie)
    for path in ("/v1/genesis", "/v1/covering", "/v1/checkpoints", "/checkpoint", "/v1/leaves"):
        yield f"answer: bit flipped in {path}", "change", path, _as_is(of_bytes(path))


def _in_pairs(pairs: list[Any]) -> list[Any]:
    return [[epoch, altered(box)] for epoch, box in pairs]


def _promises() -> Iterator[Told]:
    for path in ("/v1/envelopes", "/v1/receipts"):
        what = f"promise for {path.rpartition('/')[2]}"
        yield (
            f"answer: {what} for something else",
            "forged",
            what,
            _promising(path, lambda promise: Promise(bytes(32), promise.at)),
        )
        yield (
            f"answer: {what} with a bit flipped",
            "change",
            what,
            _as_is(_only("POST", path, altered)),
        )
        yield (
            f"answer: {what} signed by another key",
            "forged",
            what,
            _promising(path, lambda promise: promise, FastKey.generate()),
        )


def _promising(
    path: str, how: Callable[[Promise], Promise], key: FastKey | None = None
) -> Callable[[Past], Lie]:
    def make(past: Past) -> Lie:
        def lie(body: bytes) -> bytes:
            promise = Promise.parse(Signed.parse(body).payload)
            return sign_promise(key or past.world.relay_key, how(promise)).serialize()

        return _only("POST", path, lie)

    return make
