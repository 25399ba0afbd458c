"""Writes answers."""

from aiohttp import web

from comity_protocol.encoding import Value, serialize
from comity_protocol.receipts import Signed
from comity_protocol.wire import MEDIA_TYPE


def binary(value: Value) -> web.Response:
    """Answer with a value in the protocol's encoding."""
    return web.Response(body=serialize(value), content_type=MEDIA_TYPE)


def promise(signed: Signed) -> web.Response:
    """Answer with a promise."""
    return web.Response(body=signed.serialize(), content_type=MEDIA_TYPE)


def text(content: str | bytes, *, content_type: str = "text/plain") -> web.Response:
    """Answer with UTF-8 text."""
    body = content.encode() if isinstance(content, str) else content
    return web.Response(body=body, content_type=content_type, charset="utf-8")
