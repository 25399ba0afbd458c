"""Log lines as JSON, one object a line: ids and codes only.

A line must be safe to show to any party, so a caller passes an event name and fields that
are ids, codes, counts or sizes. Message formatting is not used: there is no free text to leak into.
"""

import json
import logging
from datetime import UTC, datetime
from typing import Final

from aiohttp.http_exceptions import HttpProcessingError

_LOGGER: Final = logging.getLogger("comity.relay")

Field = str | int | float | bool | None


class JSONFormatter(logging.Formatter):
    """Writes a record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Give the line; only the type of an exception is shown, since its text may quote input."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Field] = {
            "at": at,
            "level": record.levelname.lower(),
            "event": record.msg if record.name == _LOGGER.name else record.name,
        }
        line |= getattr(record, "fields", {})
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = type(record.exc_info[1]).__name__
            line["where"] = _where(record.exc_info[1])
        return json.dumps(line, ensure_ascii=True, separators=(",", ":"))


def configure(level: int = logging.INFO) -> None:
    """Send all log lines of the process to standard error as JSON."""
    handler = logging.StreamHandler()
    handler.setFormatter(JSONFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
    logging.getLogger("aiohttp.server").addFilter(_is_ours)


def event(name: str, /, **fields: Field) -> None:
    """Log that something happened.

    Args:
        name: What, as a stable code such as ``checkpoint-published``.
        fields: Ids in hexadecimal, codes, counts or sizes; never text of people.
    """
    _LOGGER.info(name, extra={"fields": fields})


def alarm(name: str, /, error: BaseException | None = None, **fields: Field) -> None:
    """Log something that an operator must look at; docs/OPERATIONS.md says what to do."""
    _LOGGER.error(name, exc_info=error, extra={"fields": fields})


def _is_ours(record: logging.LogRecord) -> bool:
    """Whether the web server's line is about a fault here.

    Anyone who can open a connection can send what is not HTTP, or hang up, as often as they like.
    It must not fill the disk, nor hide in a flood of lines what an operator has to look at.
    """
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, HttpProcessingError | ConnectionError)


def _where(error: BaseException) -> str:
    """Give file and line of the innermost frame, which says nothing of the data."""
    frame = error.__traceback__
    if frame is None:
        return ""
    while frame.tb_next is not None:
        frame = frame.tb_next
    code = frame.tb_frame.f_code
    return f"{code.co_filename.rpartition('/')[2]}:{frame.tb_lineno}"
