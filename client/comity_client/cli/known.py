"""What this device knows without its keys: the desks, their names, and its own state file.

Nothing here needs a passphrase or the network.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from comity_client.cli.shell import NotFoundError, Shell
from comity_client.profile import STATE_FILE, Profile
from comity_client.state import State, open_state
from comity_protocol.chain import Desk
from comity_protocol.directory import UnknownDeskError
from comity_protocol.genesis import Genesis, parse_genesis
from comity_protocol.identifiers import DeskId, short
from comity_protocol.statements import SignedStatement

DIGITS_MIN: Final = 8
"""Digits of a desk's id that stand for it; with fewer, a State's code such as DE would be one."""


@dataclass(frozen=True, slots=True)
class Known:
    """Profile, state file and desks as last synchronised."""

    profile: Profile
    state: State
    desks: dict[DeskId, Desk]

    @classmethod
    @contextmanager
    def open(cls, shell: Shell) -> Iterator["Known"]:
        """Open the state file of the shell's profile."""
        profile = shell.read_profile()
        state = open_state(
            shell.folder / STATE_FILE,
            genesis_hash=profile.deployment.genesis_hash,
            desk=profile.desk,
            device=profile.device,
        )
        try:
            yield cls(profile, state, {desk.id: desk for desk in state.desks()})
        finally:
            state.close()

    @property
    def genesis(self) -> Genesis | None:
        """The deployment's genesis; None before the first synchronisation."""
        signed = self.state.genesis()
        return None if signed is None else parse_genesis(SignedStatement.parse(signed).payload)

    def desk(self, id_: DeskId) -> Desk:
        """Give a desk.

        Raises:
            UnknownDeskError: It is not in the directory as last synchronised.
        """
        if id_ not in self.desks:
            raise UnknownDeskError(f"desk {short(id_)} is not in the directory")
        return self.desks[id_]

    def find(self, text: str) -> DeskId:
        """Give the desk that somebody means; see ``find_desk``."""
        return find_desk(text, self.profile, self.desks)

    def name(self, id_: DeskId) -> str:
        """Give what to call a desk on a screen."""
        return name_of(id_, self.profile, self.desks)

    def describe(self, desk: Desk) -> tuple[dict[str, object], list[str]]:
        """Give a desk as a document and as lines."""
        epoch, policy = desk.epoch, desk.policy
        devices = [
            {
                "device": device.id.hex(),
                "officer": device.officer.hex(),
                "role": device.role.value,
                "active": device.removed_index is None,
            }
            for device in desk.devices.values()
        ]
        document: dict[str, object] = {
            "desk": desk.id.hex(),
            "name": self.profile.names.get(desk.id),
            "party": desk.party,
            "authority": desk.authority.value,
            "statements": desk.seq + 1,
            "epoch": epoch.number if epoch else None,
            "sealable": desk.is_sealable,
            "devices": devices,
            "policy": {
                "add_admins": policy.add_admins,
                "epoch_days": policy.epoch_days,
                "fresh_hours": policy.fresh_hours,
                "history_days": policy.history_days,
                "auditors_file": [id_.hex() for id_ in policy.auditors_file],
                "auditors_lead": [id_.hex() for id_ in policy.auditors_lead],
            },
        }
        lines = [
            f"{self.name(desk.id)}",
            f"  desk      {desk.id.hex()}",
            f"  is        {desk.authority.value} of {desk.party}",
            f"  epoch     {epoch.number if epoch else 'none yet: nobody can write to it'}",
            *(
                f"  device    {device.id.hex()} {device.role.value}"
                f"{'' if device.removed_index is None else ' (removed)'}"
                for device in desk.devices.values()
            ),
            f"  admits    by {policy.add_admins} admins, or the custodians",
        ]
        auditors = sorted({*policy.auditors_file, *policy.auditors_lead})
        lines += [f"  auditor   {self.name(id_)}" for id_ in auditors]
        return document, lines


def find_desk(text: str, profile: Profile, desks: dict[DeskId, Desk]) -> DeskId:
    """Give the desk that somebody means by a name.

    In this order: the officer's own name for it; ``PARTY`` or ``PARTY/authority`` when exactly one
    desk fits, which the State's custodians vouch for; the id or its unique first digits, eight or
    more, so that a code that is mistyped or not there never means another State's desk.

    Raises:
        NotFoundError: No desk fits, or several do; the message lists them.
    """
    named = [id_ for id_, name in profile.names.items() if name.casefold() == text.casefold()]
    if len(named) == 1:
        return named[0]
    party, _, authority = text.partition("/")
    found = [
        desk.id
        for desk in desks.values()
        if desk.party == party.upper()
        and authority in ("", desk.authority.value)
        and desk.id != profile.desk
    ]
    if not found and len(text) >= DIGITS_MIN:
        found = [id_ for id_ in desks if id_.hex().startswith(text.lower())]
    if len(found) == 1:
        return found[0]
    if not found:
        raise NotFoundError(f"no desk is called {text!r}; see `comity contacts`")
    several = ", ".join(
        f"{desks[id_].party}/{desks[id_].authority.value} {short(id_)}" for id_ in sorted(found)
    )
    raise NotFoundError(
        f"{len(found)} desks fit {text!r}: {several}; write PARTY/authority, or eight digits of its"
        " id, as in `comity contacts`"
    )


def name_of(id_: DeskId, profile: Profile, desks: dict[DeskId, Desk]) -> str:
    """Give what to call a desk: the officer's name for it, or party, type and first digits."""
    if id_ in profile.names:
        return profile.names[id_]
    desk = desks.get(id_)
    return f"{desk.party}/{desk.authority.value} {short(id_)}" if desk else short(id_)
