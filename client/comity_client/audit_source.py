"""Where a log is fetched from: a relay, a mirror, or any server of C2SP tlog-tiles.

A source is not believed. Each of its answers has a bound in bytes and in time; redirects and
compression are refused, so that neither an endless answer nor a bomb costs more than its bound.
"""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from comity_client.transport import OfflineError
from comity_protocol.errors import VerificationError

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession

ANSWER_SECONDS_MAX: Final = 30
"""For one answer from its first to its last byte; the largest that is usual has 17 KiB."""

TRIES_MAX: Final = 3
BACK_OFF_SECONDS: Final = 0.5
AT_ONCE_MAX: Final = 8
"""Requests that one fetch has under way: enough for a long line, no load for a small mirror."""

_OK: Final = 200
_NOT_FOUND: Final = frozenset({404, 410})
_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")

PAGES_MAX: Final = 10_000
"""Of one list, after which a source is asked for no more."""

Sleep = Callable[[float], Awaitable[None]]


class SourceError(VerificationError):
    """A source gave something that does not lead to the root it showed."""

    remedy = "nothing of it was written; fetch from another source, and tell the operator"


class SourceSilentError(OfflineError):
    """A source does not answer."""

    remedy = "what was fetched is kept; run the same again later, or take another source"


class Source:
    """One server; use as ``async with Source(url) as source``."""

    def __init__(
        self,
        url: str,
        *,
        seconds_max: float = ANSWER_SECONDS_MAX,
        sleep: Sleep = asyncio.sleep,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Take the address; nothing is opened yet.

        Raises:
            ValueError: It is neither https nor on this machine, or has a query.
        """
        parts = urlsplit(url)
        is_local = parts.scheme == "http" and parts.hostname in _LOOPBACK
        if not parts.hostname or not (parts.scheme == "https" or is_local):
            raise ValueError(f"address is {url!r}, expected https://HOST or http://127.0.0.1")
        if parts.query or parts.fragment or parts.username:
            raise ValueError("address has more than host, port and path")
        self.url: Final = url.rstrip("/")
        self._seconds_max: Final = seconds_max
        self._sleep: Final = sleep
        self._tls: Final = tls
        self._session: ClientSession | None = None

    async def __aenter__(self) -> "Source":
        """Open the connections, which costs nothing before the first request."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def get(self, path: str, bytes_max: int) -> bytes | None:
        """Fetch a file; None when the source does not have it.

        Raises:
            OfflineError: It does not answer, too slowly, with more than ``bytes_max`` bytes, or
                with an error, three times.
        """
        for attempt in range(TRIES_MAX):
            try:
                return await self._try(path, bytes_max)
            except OfflineError:
                if attempt == TRIES_MAX - 1:
                    raise
            await self._sleep(BACK_OFF_SECONDS * (attempt + 1))
        raise AssertionError

    async def _try(self, path: str, bytes_max: int) -> bytes | None:
        from aiohttp import ClientError, ClientTimeout  # noqa: PLC0415  # slow; offline needs none
        from yarl import URL  # noqa: PLC0415

        # SPEC [B-11]: every wait, answer and number of tries has a bound.
        timeout = ClientTimeout(total=self._seconds_max)
        try:
            async with self._open().get(
                URL(f"{self.url}/{path}", encoded=True),
                headers={"Accept-Encoding": "identity"},
                timeout=timeout,
                allow_redirects=False,
            ) as response:
                if response.status in _NOT_FOUND:
                    return None
                if response.status != _OK:
                    raise SourceSilentError(f"{self.url} answered {response.status} for {path}")
                return await _read(response, bytes_max, path)
        except (ClientError, TimeoutError, OSError) as error:
            raise SourceSilentError(
                f"{self.url} cannot be reached for {path}: {type(error).__name__}"
            ) from error

    def _open(self) -> "ClientSession":
        if self._session is None:
            from aiohttp import ClientSession, DummyCookieJar, TCPConnector  # noqa: PLC0415  # slow

            self._session = ClientSession(
                connector=TCPConnector(ssl=self._tls or True, limit=AT_ONCE_MAX),
                auto_decompress=False,
                cookie_jar=DummyCookieJar(),
            )
        return self._session


async def _read(response: "ClientResponse", bytes_max: int, path: str) -> bytes:
    chunks: list[bytes] = []
    size = 0
    async for chunk in response.content.iter_any():
        size += len(chunk)
        if size > bytes_max:
            raise SourceSilentError(f"answer for {path} is larger than {bytes_max:,} bytes")
        chunks.append(chunk)
    return b"".join(chunks)
