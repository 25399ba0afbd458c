"""The relay's side of a signer that is a process of its own; ``signer_process`` is the other side.

HTTP over a unix socket. The signer answers at once or refuses with a sentence; a relay that cannot
reach it any more goes on accepting and publishes nothing; one that never did promises nothing.
"""

from pathlib import Path
from typing import Final

from aiohttp import ClientError, ClientSession, ClientTimeout, UnixConnector

from comity_protocol.encoding import Value, parse, serialize
from comity_protocol.errors import MalformedError
from comity_protocol.fields import Fields
from comity_protocol.leaves import LEAF_BYTES
from comity_protocol.limits import NOTE_BYTES_MAX
from comity_protocol.merkle import SIZE_MAX
from comity_protocol.wire import MEDIA_TYPE
from comity_server.signer import READ_LEAVES, SignerError, SignerNotClearedError

ANSWER_SECONDS_MAX: Final = 300.0
"""A signer that lost its memory reads the whole log again, at some 100,000 entries a second."""

ERROR_BYTES_MAX: Final = 2_048
_ANSWER_BYTES_MAX: Final = READ_LEAVES * LEAF_BYTES + 1_024
_OK: Final = 200


class SignerClient:
    """A ``LogSigner`` behind a unix socket."""

    def __init__(self, path: Path, session: ClientSession) -> None:
        """Take the socket's path and a session from ``signer_session``."""
        self._path: Final = path
        self._session: Final = session

    async def probe(self) -> bytes:
        """See ``LogSigner.probe``."""
        fields = Fields.of(await self._ask("probe", {}), "signer's answer", {"note"})
        return fields.bytes("note", high=NOTE_BYTES_MAX)

    async def entries(self, start: int) -> list[bytes]:
        """See ``LogSigner.entries``."""
        answer = await self._ask("entries", {"start": start})
        data = Fields.of(answer, "signer's answer", {"entries"}).bytes(
            "entries", high=READ_LEAVES * LEAF_BYTES
        )
        return [data[at : at + LEAF_BYTES] for at in range(0, len(data), LEAF_BYTES)]

    async def clear(self, note: bytes) -> None:
        """See ``LogSigner.clear``."""
        await self._ask("clear", {"note": note})

    async def sign(self) -> tuple[int, bytes]:
        """See ``LogSigner.sign``."""
        fields = Fields.of(await self._ask("sign", {}), "signer's answer", {"size", "note"})
        size = fields.integer("size", low=0, high=SIZE_MAX)
        return size, fields.bytes("note", high=NOTE_BYTES_MAX)

    async def _ask(self, verb: str, question: dict[str, Value]) -> Value:
        try:
            async with self._session.post(
                f"http://signer/{verb}",
                data=serialize(question),
                headers={"Content-Type": MEDIA_TYPE},
            ) as response:
                size = response.content_length or 0
                if size > _ANSWER_BYTES_MAX:
                    raise SignerError(f"signer at {self._path} answered {size:,} bytes")
                body = await response.content.readexactly(size)
                status = response.status
        except (ClientError, TimeoutError, OSError, EOFError) as error:
            raise SignerError(
                f"signer at {self._path} does not answer ({type(error).__name__});"
                " start comity-relay signer and look at its log"
            ) from error
        try:
            value = parse(body)
            if status == _OK:
                return value
            fields = Fields.of(value, "signer's refusal", {"code", "error"})
            code = fields.text("code", bytes_max=ERROR_BYTES_MAX)
            text = fields.text("error", bytes_max=ERROR_BYTES_MAX)
        except MalformedError as error:
            raise SignerError(f"signer at {self._path} answered {status} in no form") from error
        raise SignerNotClearedError(text) if code == "not-cleared" else SignerError(text)


def signer_session(path: Path) -> ClientSession:
    """Open a session whose every request goes to the socket at ``path``."""
    return ClientSession(
        connector=UnixConnector(str(path)), timeout=ClientTimeout(total=ANSWER_SECONDS_MAX)
    )
