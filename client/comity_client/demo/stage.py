"""Sets the stage: real relay and witness processes, States founded, desks enrolled.

Everything lies in one temporary folder and listens on 127.0.0.1. Keys, signatures and statements
are made as a ministry makes them, only that one machine holds all of them; that is what makes it a
demonstration and not a deployment.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from comity_client.ceremonies import Enrolment, found, new_root, start_desk
from comity_client.desk import Desk
from comity_client.keystore import Cost, CustodianKey, DeviceKeys
from comity_client.local import relay_once, settle, start_relay, start_witnesses
from comity_client.profile import Deployment, Profile
from comity_client.transport import RelayClient
from comity_client.witness_file import WitnessFile, flat_policies
from comity_protocol.genesis import Genesis, parse_genesis
from comity_protocol.identifiers import DeskId, OfficerId
from comity_protocol.keys import random_bytes
from comity_protocol.limits import STRETCH_MEMORY_BYTES_MIN, STRETCH_OPS_MIN
from comity_protocol.signed_note import VerifierKey
from comity_protocol.statements import Authority, Policy, Role, SignedStatement

ORIGIN: Final = "demo.example/comity"
WITNESSES: Final = 3
QUORUM: Final = 2
SECRETARIAT: Final = "XS"
DESKS: Final = (
    (SECRETARIAT, Authority.SECRETARIAT),
    ("XA", Authority.PROSECUTION),
    ("XB", Authority.CENTRAL_AUTHORITY),
    ("XC", Authority.CENTRAL_AUTHORITY),
    ("XD", Authority.POLICE),
)
_CUSTODIANS: Final = 3
_THRESHOLD: Final = 2
_FLOOR: Final = Cost(STRETCH_OPS_MIN, STRETCH_MEMORY_BYTES_MIN)
"""Key stores of a demonstration live for a minute: the floor is enough, and fast."""


@dataclass(frozen=True, slots=True)
class Stage:
    """Everything that runs.

    Attributes:
        folder: Holds all files; deleted at the end unless it was chosen by the user.
        url: Address of the relay.
        genesis: The deployment's.
        desks: Open desks by party code, the secretariat included.
        data: The relay's folder: database, keys, signer state.
    """

    folder: Path
    url: str
    genesis: Genesis
    desks: dict[str, Desk]
    data: Path

    @property
    def codes(self) -> dict[DeskId, str]:
        """Party code of each desk."""
        return {desk.profile.desk: code for code, desk in self.desks.items()}


@asynccontextmanager
async def set_up(folder: Path, now: Callable[[], int]) -> AsyncIterator[Stage]:
    """Start witnesses and relay, found the deployment, open the desks; undo it all at the end."""
    data = folder / "relay"
    async with AsyncExitStack() as stack:
        processes = stack.enter_context(ExitStack())
        keys = relay_once(data, "keys", "--origin", ORIGIN)
        names = {
            f"witness{number}": f"witness{number}.example" for number in range(1, WITNESSES + 1)
        }
        witnesses = start_witnesses(processes, folder, names, keys["vkey"])
        custodians = {
            code: tuple(CustodianKey.generate() for _ in range(_CUSTODIANS)) for code, _ in DESKS
        }
        signed = _found(keys, witnesses, custodians)
        genesis_file = folder / "genesis"
        genesis_file.write_bytes(signed.serialize())
        relay_once(data, "init", "--genesis", str(genesis_file))
        relay = start_relay(processes, data, 0, [witness["address"] for witness in witnesses])
        genesis = parse_genesis(signed.payload)
        enrolment = await _enrol(folder, Deployment(relay, signed.hash), genesis, custodians)
        desks = {
            code: await stack.enter_async_context(Desk.open(home, keys, now=now))
            for code, (home, keys) in enrolment.items()
        }
        for desk in desks.values():
            await settle(desk, len(desks))
        yield Stage(folder, relay, genesis, desks, data)


def _found(
    keys: dict[str, str],
    witnesses: list[dict[str, str]],
    custodians: dict[str, tuple[CustodianKey, ...]],
) -> SignedStatement:
    log = VerifierKey.parse(keys["vkey"])
    policy, anchors = flat_policies(log, [WitnessFile.of(one) for one in witnesses], QUORUM)
    ceremony = found(
        policy=policy,
        anchors=anchors,
        relay_key=bytes.fromhex(keys["relay"]),
        roots=[
            new_root(code, _THRESHOLD, [key.full.public for key in keys_])
            for code, keys_ in custodians.items()
        ],
    )
    for keys_ in custodians.values():
        for key in keys_[:_THRESHOLD]:
            ceremony = ceremony.sign(key.full)
    (signed,) = ceremony.finish()
    return signed


async def _enrol(
    folder: Path,
    deployment: Deployment,
    genesis: Genesis,
    custodians: dict[str, tuple[CustodianKey, ...]],
) -> dict[str, tuple[Path, DeviceKeys]]:
    """Create each desk with its first device and publish its statements; gives the profiles."""
    ids = {code: DeskId(random_bytes(16)) for code, _ in DESKS}
    names = {id_: code for code, id_ in ids.items()}
    audited = Policy(auditors_file=(ids[SECRETARIAT],), auditors_lead=(ids[SECRETARIAT],))
    profiles = {}
    async with RelayClient(deployment.url) as client:
        for code, authority in DESKS:
            keys = DeviceKeys.generate()
            ceremony = start_desk(
                genesis,
                _enrolment(genesis, ids[code], keys),
                party=code,
                authority=authority,
                policy=Policy() if code == SECRETARIAT else audited,
                key=keys.full,
            )
            for custodian in custodians[code][:_THRESHOLD]:
                ceremony = ceremony.sign(custodian.full)
            for statement in ceremony.finish():
                await client.post_statement(statement)
            profile = Profile(deployment, ids[code], keys.device, names)
            home = folder / code
            home.mkdir(mode=0o700)
            Desk.create(home, profile, keys, random_bytes(16).hex(), cost=_FLOOR)
            profiles[code] = (home, keys)
    return profiles


def _enrolment(genesis: Genesis, desk: DeskId, keys: DeviceKeys) -> Enrolment:
    return Enrolment(
        deployment=genesis.deployment,
        desk=desk,
        officer=OfficerId(random_bytes(16)),
        role=Role.ADMIN,
        fast=keys.fast.public,
        full=keys.full.public,
        seal=keys.seal.public,
    )
