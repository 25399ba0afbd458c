"""The way to the relay over HTTP: one method for each route, bounded in time, size and tries.

Everything sent is idempotent, so what may or may not have arrived is sent again. Nothing received
is believed here; answers are parsed into types and handed on.

Rules:

* [B-11] Every wait, answer and number of tries has a bound; redirects and compression are refused.

On a bad line the enemy is silence: a step without progress ends after 30 seconds and a fresh
connection is tried, rather than waiting on a dead one.
"""

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar, Final
from urllib.parse import urlencode, urlsplit

from comity_client.relay_answers import (
    PAGE_ENVELOPES,
    PAGE_STATEMENTS,
    Arrived,
    Boxes,
    NoticeItem,
    ReceiptItem,
    StatementPage,
    Vacancies,
    parse_boxes,
    parse_entries,
    parse_hashes,
    parse_leaves,
    parse_mailbox,
    parse_notes,
    parse_notices,
    parse_receipts,
    parse_statements,
    parse_vacancies,
)
from comity_client.tokens import TokenMaker
from comity_protocol import wire
from comity_protocol.errors import ComityError
from comity_protocol.merkle import TILE_WIDTH
from comity_protocol.receipts import Signed
from comity_protocol.statements import SignedStatement

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession

STEP_SECONDS_MAX: Final = 30
REQUEST_SECONDS_MAX: Final = 180
WAIT_SECONDS_MAX: Final = 30
TRIES_MAX: Final = 3
BACK_OFF_SECONDS: Final = (0.5, 2.0)
RETRY_AFTER_SECONDS_MAX: Final = 10.0
"""A relay that asks to wait longer is left alone until the next time."""

ANSWER_BYTES_MAX: Final = 64 * 1024 * 1024
_PROBLEM_BYTES_MAX: Final = 65_536
_PASSING: Final = frozenset({"busy", "draining", "timeout", "quota"})
_OK: Final = 200
_TILE_GROUP: Final = 1_000

Sleep = Callable[[float], Awaitable[None]]


class OfflineError(ComityError):
    """The relay cannot be reached, or does not answer in time."""

    code = "offline"
    remedy = "nothing is lost: what you wrote is queued and goes out when the relay answers again"


class RelayRefusedError(ComityError):
    """The relay answered with a problem; each problem code has its own subclass.

    Attributes:
        status: HTTP status.
        retry_after: Seconds after which to try again; None when waiting does not help.
        trace_id: By which the operator finds it.
    """

    code: ClassVar[str] = "relay-refused"
    remedy: ClassVar[str] = "tell the operator the trace id"

    def __init__(
        self, message: str, *, status: int, retry_after: float | None, trace_id: str
    ) -> None:
        """Keep what the relay said; its text is shown, never parsed."""
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after
        self.trace_id = trace_id


_REFUSALS: Final[dict[str, type[RelayRefusedError]]] = {
    code: type("RelayRefusedError", (RelayRefusedError,), {"code": code, "remedy": problem.remedy})
    for code, problem in wire.PROBLEMS.items()
}


class RelayClient:
    """One relay as one device sees it; without keys only what is open to all.

    Use as ``async with RelayClient(url, maker) as relay``.
    """

    def __init__(
        self,
        url: str,
        maker: TokenMaker | None = None,
        *,
        sleep: Sleep = asyncio.sleep,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Take the address and what signs requests; nothing is opened yet."""
        parts = urlsplit(url)
        self._origin: Final = f"{parts.scheme}://{parts.netloc}"
        self._prefix: Final = parts.path
        self._maker: Final = maker
        self._sleep: Final = sleep
        self._tls: Final = tls
        self._nonce = ""
        self._session: ClientSession | None = None

    async def __aenter__(self) -> "RelayClient":
        """Open the connections, which costs nothing before the first request."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connections."""
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    # --- What is open to all ------------------------------------------------------------------

    async def genesis(self) -> SignedStatement:
        """Fetch the genesis, to be compared with the pinned hash."""
        return SignedStatement.parse(await self._get(wire.GENESIS))

    async def statements(self, after: int, limit: int = PAGE_STATEMENTS) -> StatementPage:
        """Fetch statements after an ordinal, with the newest checkpoint."""
        return parse_statements(await self._get(wire.STATEMENTS, after=after, limit=limit))

    async def all_statements(self, after: int) -> tuple[SignedStatement, ...]:
        """Fetch statements after an ordinal, also what no checkpoint covers yet; for a witness."""
        page = parse_statements(
            await self._get(wire.STATEMENTS, after=after, limit=PAGE_STATEMENTS, uncovered=1)
        )
        return tuple(item.signed for item in page.items)

    async def leaves(self, start: int) -> tuple[bytes, ...]:
        """Fetch entries from an index, as many as the relay gives at once."""
        return parse_leaves(await self._get(f"{wire.LEAVES}/{start}"))

    async def covering(self, index: int) -> bytes:
        """Fetch the first checkpoint note that covers a leaf."""
        return await self._get(f"{wire.COVERING}/{index}")

    async def checkpoints(self, after: int, skip: int = 0) -> tuple[bytes, ...]:
        """Fetch published checkpoint notes above a size, leaving out the first ``skip``."""
        return parse_notes(await self._get(wire.CHECKPOINTS, after=after, skip=skip))

    async def checkpoint(self) -> bytes:
        """Fetch the newest checkpoint note."""
        return await self._get(wire.CHECKPOINT)

    async def tile(self, level: int, index: int, width: int) -> tuple[bytes, ...]:
        """Fetch the first ``width`` hashes of a tile of the log."""
        path = f"{wire.TILE}/{level}/{_tile_path(index, width)}"
        return parse_hashes(await self._get(path), width)

    async def entries(self, index: int, width: int) -> tuple[bytes, ...]:
        """Fetch the first ``width`` entries of a bundle of the log."""
        path = f"{wire.TILE}/entries/{_tile_path(index, width)}"
        return parse_entries(await self._get(path), width)

    async def post_statement(self, signed: SignedStatement) -> Signed:
        """Publish a statement; gives the relay's promise, not verified."""
        return Signed.parse(await self._post(wire.STATEMENTS, signed.serialize()))

    # --- What is this device's ----------------------------------------------------------------

    async def boxes(self) -> Boxes:
        """Fetch this device's epoch boxes and its desk's previous seeds, sealed."""
        return parse_boxes(await self._get(wire.BOXES))

    async def post_envelope(self, upload: bytes) -> Signed:
        """Hand over an envelope; gives the relay's promise, not verified."""
        return Signed.parse(await self._post(wire.ENVELOPES, upload))

    async def mailbox(
        self, after: int, *, limit: int = PAGE_ENVELOPES, wait: int = 0
    ) -> tuple[Arrived, ...]:
        """Fetch envelopes after a counter; ``wait`` seconds for the first when there is none."""
        return parse_mailbox(await self._get(wire.MAILBOX, after=after, limit=limit, wait=wait))

    async def post_receipt(self, signed: Signed) -> Signed:
        """Hand over a receipt; gives the relay's promise, not verified."""
        return Signed.parse(await self._post(wire.RECEIPTS, signed.serialize()))

    async def receipts(
        self, after: int, *, limit: int = PAGE_ENVELOPES, wait: int = 0
    ) -> tuple[ReceiptItem, ...]:
        """Fetch receipts for envelopes that this desk sent, after a leaf index."""
        return parse_receipts(await self._get(wire.RECEIPTS, after=after, limit=limit, wait=wait))

    async def post_notice(self, signed: Signed) -> Signed:
        """State a notice; gives the relay's promise, not verified."""
        return Signed.parse(await self._post(wire.NOTICES, signed.serialize()))

    async def notices(
        self, after: int, *, limit: int = PAGE_ENVELOPES, wait: int = 0
    ) -> tuple[NoticeItem, ...]:
        """Fetch notices on envelopes of this desk, after a leaf index."""
        return parse_notices(await self._get(wire.NOTICES, after=after, limit=limit, wait=wait))

    async def vacancies(self, after: int = -1) -> Vacancies:
        """Ask what the relay is missing since it was restored, of entries after a leaf index."""
        return parse_vacancies(await self._get(wire.VACANCIES, after=after))

    # --- Below --------------------------------------------------------------------------------

    async def _get(self, path: str, **query: int) -> bytes:
        wait = query.get("wait", 0)
        if not 0 <= wait <= WAIT_SECONDS_MAX:
            raise ValueError(f"wait is {wait} seconds, expected 0 to {WAIT_SECONDS_MAX}")
        target = f"{path}?{urlencode(query)}" if query else path
        return await self._request("GET", target, b"", STEP_SECONDS_MAX + wait)

    async def _post(self, path: str, body: bytes) -> bytes:
        return await self._request("POST", path, body, STEP_SECONDS_MAX)

    async def _request(self, method: str, target: str, body: bytes, step_seconds: int) -> bytes:
        """Try a few times; a stale nonce is no failure and costs one more round trip."""
        renewed = False
        for attempt in range(TRIES_MAX + 1):
            is_last = attempt >= TRIES_MAX - (not renewed)
            try:
                return await self._try(method, target, body, step_seconds)
            except RelayRefusedError as error:
                if error.code == "use-nonce" and not renewed:
                    renewed = True
                    continue
                pause = error.retry_after or 0.0
                if not _is_passing(error, target) or pause > RETRY_AFTER_SECONDS_MAX or is_last:
                    raise
            except OfflineError:
                pause = 0.0
                if is_last:
                    raise
            await self._sleep(max(pause, BACK_OFF_SECONDS[min(attempt, 1)]))
        raise OfflineError("relay did not answer")

    async def _try(self, method: str, target: str, body: bytes, step_seconds: int) -> bytes:
        from aiohttp import ClientError, ClientTimeout  # noqa: PLC0415  # slow; offline needs none
        from yarl import URL  # noqa: PLC0415

        target = self._prefix + target
        headers = {"Accept-Encoding": "identity"}
        if body:
            headers["Content-Type"] = wire.MEDIA_TYPE
        if self._maker is not None:
            headers[wire.AUTHORIZATION] = self._maker.make(
                method=method, target=target, body=body, nonce=self._nonce
            )
        # SPEC [B-11]: every wait, answer and number of tries has a bound.
        timeout = ClientTimeout(
            total=REQUEST_SECONDS_MAX, sock_connect=STEP_SECONDS_MAX, sock_read=step_seconds
        )
        try:
            async with self._open().request(
                method,
                URL(self._origin + target, encoded=True),
                data=body or None,
                headers=headers,
                timeout=timeout,
                allow_redirects=False,
            ) as response:
                self._nonce = response.headers.get(wire.NONCE_HEADER, self._nonce)
                if response.status != _OK:
                    raise _refusal(response, await _read(response, _PROBLEM_BYTES_MAX))
                return await _read(response, ANSWER_BYTES_MAX)
        except (ClientError, TimeoutError, OSError) as error:
            raise OfflineError(f"relay cannot be reached: {type(error).__name__}") from error

    def _open(self) -> "ClientSession":
        if self._session is None:
            from aiohttp import ClientSession, DummyCookieJar, TCPConnector  # noqa: PLC0415  # slow

            self._session = ClientSession(
                connector=TCPConnector(ssl=self._tls or True, limit=16),
                auto_decompress=False,
                cookie_jar=DummyCookieJar(),
            )
        return self._session


def _is_passing(error: RelayRefusedError, target: str) -> bool:
    """Whether the same request may pass soon.

    Of several workers of a relay one may be a moment behind the checkpoint that another gave.
    """
    return error.code in _PASSING or (
        target.startswith(wire.TILE) and error.code in {"not-found", "not-yet"}
    )


async def _read(response: "ClientResponse", bytes_max: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    async for chunk in response.content.iter_any():
        size += len(chunk)
        if size > bytes_max:
            raise OfflineError(f"relay's answer is larger than {bytes_max:,} bytes")
        chunks.append(chunk)
    return b"".join(chunks)


def _refusal(response: "ClientResponse", body: bytes) -> RelayRefusedError:
    """Read a problem; what cannot be read is the relay's internal problem."""
    try:
        problem = json.loads(body)
    except (ValueError, RecursionError):
        problem = None
    members = problem if isinstance(problem, dict) else {}
    code = members.get("code")
    kind = _REFUSALS.get(code if isinstance(code, str) else "internal", _REFUSALS["internal"])
    detail = members.get("detail")
    text = detail if isinstance(detail, str) and detail.isprintable() else ""
    retry = response.headers.get("Retry-After", "")
    return kind(
        text or f"relay answered {response.status}",
        status=response.status,
        retry_after=float(retry) if retry.isascii() and retry.isdecimal() else None,
        trace_id=str(members.get("trace_id", "")),
    )


def _tile_path(index: int, width: int) -> str:
    """Write a tile's number in groups of three digits, and its width when it is partial."""
    groups = [f"{index % _TILE_GROUP:03}"]
    while index := index // _TILE_GROUP:
        groups.insert(0, f"x{index % _TILE_GROUP:03}")
    partial = "" if width == TILE_WIDTH else f".p/{width}"
    return "/".join(groups) + partial
