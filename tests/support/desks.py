"""Desks of a world as the client library runs them, each in a folder of its own."""

from collections.abc import Callable
from pathlib import Path

from comity_client.desk import Desk
from comity_client.drafts import Draft, DraftHandling, DraftItem, DraftPerson
from comity_client.keystore import DeviceKeys
from comity_client.profile import STATE_FILE, Deployment, Profile, write_profile
from comity_client.state import create_state
from support.world import Member, World

LEAD = Draft(text="a vehicle was seen at the border", language="en", offences=("TIP",))

REQUEST = Draft(
    reference="XA-2026-0001",
    language="en",
    basis=("UNTOC18",),
    offences=("TIP",),
    urgency="U3",
    urgency_reason="LIFE",
    authority="Office of the Prosecutor of XA",
    proceeding="investigation 1/26, trafficking in persons, public prosecutor",
    facts="two women were moved across the border in March",
    items=(DraftItem("M05", "search of the flat"),),
    persons=(DraftPerson("VICTIM", "unknown"),),
    purpose="evidence in investigation 1/26",
    victims=2,
    children="NO",
    handling=DraftHandling("THIS_INVESTIGATION", "YES", "AUTHORITY"),
)


async def no_sleep(_: float) -> None:
    """Wait no longer than it takes others to run."""


def enrol(folder: Path, world: World, member: Member, url: str) -> Path:
    """Make the profile of a member of the world, without a key store, which is slow."""
    genesis_hash = world.statements[0][1].hash
    write_profile(folder, Profile(Deployment(url, genesis_hash), member.desk, member.id))
    create_state(
        folder / STATE_FILE, genesis_hash=genesis_hash, desk=member.desk, device=member.id
    ).close()
    return folder


def open_desk(folder: Path, member: Member, now: Callable[[], float]) -> Desk:
    """Open an enrolled member's desk."""
    keys = DeviceKeys(member.fast, member.full, member.seal)
    return Desk.open(folder, keys, now=lambda: int(now()))
