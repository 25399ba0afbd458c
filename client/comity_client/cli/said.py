"""What was said of envelopes later: holds, erasures by the other desk, restores of the relay."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from comity_protocol.identifiers import DeskId, EnvelopeId

if TYPE_CHECKING:
    from comity_client.desk import Desk
    from comity_client.state import State


@dataclass(frozen=True, slots=True)
class Said:
    """Of the envelopes of one exchange.

    Attributes:
        holds: Which desk holds something of it, and on which basis.
        erased: Which other desk erased how many of its copies, on which basis and when.
    """

    holds: tuple[tuple[DeskId, str], ...]
    erased: tuple[tuple[DeskId, int, str, int], ...]

    def lines(self, name: Callable[[DeskId], str]) -> list[str]:
        """Say it in words."""
        from comity_client.cli.online import moment

        return [
            *(f"on hold    by {name(desk)}, basis {basis}" for desk, basis in self.holds),
            *(
                f"erased     {count} of its copies by {name(desk)} on {moment(at)[:10]},"
                f" basis {basis}"
                for desk, count, basis, at in self.erased
            ),
        ]

    def document(self) -> dict[str, object]:
        """Give it as a document."""
        return {
            "holds": [{"desk": desk.hex(), "basis": basis} for desk, basis in self.holds],
            "erased_elsewhere": [
                {"desk": desk.hex(), "envelopes": count, "basis": basis, "at": at}
                for desk, count, basis, at in self.erased
            ],
        }


def said_of(desk: "Desk", envelopes: Collection[EnvelopeId]) -> Said:
    """Give what was said of some envelopes, as it stands now."""
    from comity_client.noticed import fold_notices
    from comity_protocol.notices import Erase, Hold

    noticed, notices = fold_notices(desk.state), desk.notices()
    holders = {holder for one in envelopes for holder in noticed.held_by(one)}
    holds, erased = {}, []
    for kept in notices:
        notice = kept.notice
        if isinstance(notice, Hold) and notice.author.desk in holders:
            if set(notice.envelopes) & set(envelopes):
                holds[notice.author.desk] = notice.basis.value
        elif isinstance(notice, Erase) and notice.author.desk != desk.profile.desk:
            by = notice.author.desk
            gone = [
                one for one in notice.envelopes if one in envelopes and (one, by) in noticed.erased
            ]
            if gone:
                erased.append((by, len(gone), notice.basis.value, kept.sealed_at))
    return Said(tuple(sorted(holds.items())), tuple(erased))


def restored_lines(state: "State", since: int = 0) -> list[str]:
    """Say in plain words that the relay's database was restored, and what to do.

    Args:
        state: What is known.
        since: Restores that were sealed before are left out, UTC seconds.
    """
    from comity_client.cli.online import moment
    from comity_client.noticed import kept_notices
    from comity_protocol.notices import Restored

    lines = []
    for kept in kept_notices(state):
        notice = kept.notice
        if not isinstance(notice, Restored) or kept.sealed_at < since:
            continue
        back = notice.size - notice.had
        lines.append(
            f"the relay was restored on {moment(kept.sealed_at)[:10]}: it had lost {back} entries,"
            f" and {notice.lost} were not brought back"
        )
        if notice.lost:
            lines.append(
                "  run `comity sync` on every device of your desk; what stays without a receipt,"
                " send again or telephone"
            )
            lines.append(
                "  what is lost was sent from devices that were offline during the repair; who had"
                " not fetched it yet does not get it, so ask desks that were closed then"
            )
    return lines
