"""Asks a witness for a stamp over HTTP, with the care of the relay's transport.

Rules:

* [B-11] Every wait and answer has a bound; redirects and compression are refused.
"""

from typing import Final

from comity_protocol import wire
from comity_protocol.errors import ComityError

STEP_SECONDS_MAX: Final = 10
ASK_SECONDS_MAX: Final = 20
STAMP_ANSWER_BYTES_MAX: Final = 4_096
_OK: Final = 200


class WitnessSilentError(ComityError):
    """A witness that is not there, or refuses."""

    code = "witness-silent"
    remedy = "ask again later; other witnesses' stamps count without it"


async def ask(url: str, body: bytes) -> bytes:
    """Post a request and give the answer, which is not believed.

    Raises:
        WitnessSilentError: There is none, it is a refusal, or it is too long.
    """
    from aiohttp import (  # noqa: PLC0415  # slow; most calls need none
        ClientError,
        ClientSession,
        ClientTimeout,
        DummyCookieJar,
    )

    # SPEC [B-11]: every wait and answer has a bound.
    timeout = ClientTimeout(
        total=ASK_SECONDS_MAX, sock_connect=STEP_SECONDS_MAX, sock_read=STEP_SECONDS_MAX
    )
    headers = {"Content-Type": wire.MEDIA_TYPE, "Accept-Encoding": "identity"}
    try:
        async with (
            ClientSession(
                timeout=timeout, auto_decompress=False, cookie_jar=DummyCookieJar()
            ) as session,
            session.post(url, data=body, headers=headers, allow_redirects=False) as response,
        ):
            if response.status != _OK:
                raise WitnessSilentError(f"witness answered {response.status}")
            answer = b""
            async for chunk in response.content.iter_any():
                answer += chunk
                if len(answer) > STAMP_ANSWER_BYTES_MAX:
                    raise WitnessSilentError("witness's answer is too long for a stamp")
            return answer
    except (ClientError, TimeoutError, OSError, ValueError) as error:
        raise WitnessSilentError(f"witness cannot be reached: {type(error).__name__}") from error
