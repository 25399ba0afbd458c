"""Reads what another server answers, within a bound: of a witness or a mirror.

Rules:

* [R-15] Every answer has a bound.
"""

from aiohttp import ClientResponse

from comity_protocol.errors import LimitError


async def read_answer(response: ClientResponse, bytes_max: int) -> bytes:
    """Read the whole body; the caller bounds the time.

    Raises:
        LimitError: It is longer than ``bytes_max``.
        ClientError, OSError: The connection ends before the body does.
    """
    body = bytearray()
    # SPEC: one byte more than allowed is enough to know.
    while len(body) <= bytes_max and not response.content.at_eof():
        body += await response.content.read(bytes_max + 1 - len(body))
    if len(body) > bytes_max:
        raise LimitError(f"answer is longer than {bytes_max:,} bytes")
    return bytes(body)
