"""When an act was done, in words and in documents; never by anybody's own clock."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from comity_client.brackets import Times
    from comity_client.stamps import Stamped

_UNITS = ((86_400, "day"), (3_600, "hour"), (60, "minute"))


def span(seconds: int) -> str:
    """Write a span as people say it."""
    for size, word in _UNITS:
        if seconds >= size:
            count = seconds // size
            return f"{count} {word}{'s' if count > 1 else ''}"
    return f"{seconds} second{'' if seconds == 1 else 's'}"


def short_words(times: "Times | None") -> str:
    """Say in a few words how exactly the time of an act is proven; empty when nothing is."""
    bracket = times.bracket if times else None
    if times is None or bracket is None:
        return ""
    by = "by stamps, " if _is_stamped(times) else ""
    if times.seen_at is None:
        return f"{by}beginning unknown"
    return f"{by}within {span(bracket.width)}"


def after_words(times: "Times | None") -> str:
    """Say after what an act was written."""
    from comity_client.cli.online import moment

    bracket = times.bracket if times else None
    if times is None or times.seen_at is None or bracket is None:
        return "after what it was written is not known here"
    return f"written after {moment(bracket.not_before)}"


def long_words(times: "Times | None") -> str:
    """Say after what an act was written, and by when it is proven."""
    from comity_client.cli.online import moment

    bracket = times.bracket if times else None
    if times is None or bracket is None:
        return "no time is proven yet"
    had = "stamped it" if _is_stamped(times) else "had it"
    end = f"the witnesses {had} at {moment(bracket.not_after)}"
    return f"{after_words(times)}; {end}"


def times_document(times: "Times | None") -> dict[str, object]:
    """Give the times of an act as a document; null for what is not proven."""
    bracket = times.bracket if times else None
    return {
        "not_before": times.seen_at and bracket.not_before if times and bracket else None,
        "not_after": bracket.not_after if bracket else None,
        "first_sealed_at": times.sealed_at if times else None,
        "stamped_at": times.stamped_at if times else None,
    }


def stamped_lines(stamped: "Sequence[Stamped]", envelope: bytes) -> list[str]:
    """Say what witnesses stamped; of an act that was sealed again, under which id."""
    from comity_client.cli.online import moment

    lines = []
    for one in stamped:
        of = f"{len(one.stamps)} of {one.witnesses} witnesses"
        what = "stamped" if one.envelope == envelope else f"as {one.envelope.hex()[:8]} stamped"
        if one.at is None:
            lines.append(f"{what} by {of}, which are too few to date it")
        else:
            lines.append(f"{what} at {moment(one.at)} by {of}")
        if one.envelope != envelope:
            lines.append("  it was sealed again since; the earlier core is kept as evidence")
    return lines


def stamped_document(stamped: "Sequence[Stamped]") -> list[dict[str, object]]:
    """Give what witnesses stamped as a document."""
    return [
        {
            "envelope": one.envelope.hex(),
            "stamped_at": one.at,
            "witnesses": [stamp.witness for stamp in one.stamps],
            "of": one.witnesses,
        }
        for one in stamped
    ]


def _is_stamped(times: "Times") -> bool:
    return times.stamped_at is not None and (
        times.sealed_at is None or times.stamped_at < times.sealed_at
    )
