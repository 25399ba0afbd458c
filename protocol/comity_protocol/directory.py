"""Everyone's view of all desks, as the fold of all statements in leaf order.

Rules:

* [D-1] The genesis is the one that was pinned at enrolment.
* [D-2] Statements are folded in leaf order, each leaf once; an older one is a replay or rollback.
* [D-3] A device belongs to one desk, for ever.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from comity_protocol.chain import Desk, Device, apply
from comity_protocol.errors import ComityError, VerificationError
from comity_protocol.genesis import Genesis, verify_genesis
from comity_protocol.identifiers import DeskId, DeviceId, short
from comity_protocol.statements import SignedStatement, parse_statement


class UnknownDeskError(ComityError):
    """A desk or device that the directory, as far as it is known, does not have."""

    code = "unknown-desk"
    remedy = "synchronise and try again; if it persists, ask the desk's State whether it joined"


@dataclass(frozen=True, slots=True)
class Directory:
    """All desks after a prefix of the log.

    Attributes:
        genesis: The deployment's, verified.
        desks: Every desk by id.
        index: Leaf index of the newest statement folded in.
        devices: The desk of every device that ever was.
    """

    genesis: Genesis
    desks: Mapping[DeskId, Desk]
    index: int
    devices: Mapping[DeviceId, DeskId]

    @classmethod
    def begin(cls, signed: SignedStatement, pinned: bytes) -> "Directory":
        """Start from the genesis, which is leaf 0.

        Args:
            signed: The genesis as the relay gave it.
            pinned: Its 32-byte hash, from enrolment.

        Raises:
            VerificationError: It is another deployment's, or is not properly signed.
        """
        # SPEC [D-1]: the genesis is the one that was pinned at enrolment.
        if signed.hash != pinned:
            raise VerificationError(
                "this relay serves another deployment than the one you enrolled in [D-1];"
                " check its address with your administrator"
            )
        genesis = verify_genesis(signed)
        return cls(genesis, MappingProxyType({}), 0, MappingProxyType({}))

    def apply(self, signed: SignedStatement, index: int) -> "Directory":
        """Fold in the statement at a leaf index; see ``chain.apply`` for what is refused."""
        # SPEC [D-2]: statements are folded in leaf order, each leaf once.
        if index <= self.index:
            raise VerificationError(
                f"statement at leaf {index} comes after leaf {self.index};"
                " refusing replay or rollback [D-2]"
            )
        id_ = parse_statement(signed.payload).link.desk
        before = self.desks.get(id_)
        desk = apply(before, signed, genesis=self.genesis, index=index)
        devices = self.devices
        if before is None or desk.devices.keys() != before.devices.keys():
            new = desk.devices.keys() - (before.devices.keys() if before else set())
            # SPEC [D-3]: a device belongs to one desk, for ever.
            if taken := new & devices.keys():
                raise VerificationError(
                    f"device {short(min(taken))} belongs to another desk already [D-3]"
                )
            devices = MappingProxyType({**devices, **dict.fromkeys(new, id_)})
        return replace(
            self, desks=MappingProxyType({**self.desks, id_: desk}), index=index, devices=devices
        )

    def desk(self, id_: DeskId) -> Desk:
        """Give a desk.

        Raises:
            UnknownDeskError: The directory has none of this id.
        """
        try:
            return self.desks[id_]
        except KeyError:
            raise UnknownDeskError(f"desk {short(id_)} is not in the directory") from None

    def device(self, id_: DeviceId) -> tuple[Desk, Device]:
        """Give a device, dead or alive, and its desk.

        Raises:
            UnknownDeskError: The directory has no device of this id.
        """
        try:
            desk = self.desks[self.devices[id_]]
        except KeyError:
            raise UnknownDeskError(f"device {short(id_)} is not in the directory") from None
        return desk, desk.devices[id_]
