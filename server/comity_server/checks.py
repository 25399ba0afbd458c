"""What must hold before the relay accepts an envelope, a receipt or a notice.

Pure functions over bytes, the caller and one view of the directory: they touch no store and run in
a worker thread, because signatures and hashes are most of the work. What needs the store (whether
a checkpoint was published, whether the wraps of a reference are here) is ``relay``'s.

Rules:

* [R-6] A removed device's next request fails.
* [R-8] An envelope whose ``to`` names an epoch that is not the newest is refused, with what is
  missing.
* [R-9] The auditors that both desks' policies demand for the key kind are addressed.
"""

from dataclasses import dataclass

from comity_protocol.chain import Desk
from comity_protocol.core import Core, core_hash
from comity_protocol.directory import Directory
from comity_protocol.envelope import Upload, required_auditors, verify_sender
from comity_protocol.errors import VerificationError
from comity_protocol.identifiers import DeskId, DeviceId
from comity_protocol.keys import FastKey
from comity_protocol.leaves import receipt_hash
from comity_protocol.merkle import SIZE_MAX
from comity_protocol.notices import DeskNotice, Restored, parse_notice, verify_notice
from comity_protocol.receipts import Promise, Receipt, Signed, sign_promise, verify_receipt
from comity_server.problems import Refused


@dataclass(frozen=True, slots=True)
class Caller:
    """The device that made a request, authenticated by its token, and its desk."""

    desk: DeskId
    device: DeviceId


@dataclass(frozen=True, slots=True)
class Posted:
    """An uploaded envelope, its core read once: from ``parse_upload``."""

    upload: Upload
    core: Core


@dataclass(frozen=True, slots=True)
class CheckedEnvelope:
    """An envelope that may be accepted under the directory it was checked against.

    Attributes:
        promise: Already signed, to be given out only after the commit.
    """

    upload: Upload
    core: Core
    hash: bytes
    promise: Signed
    at: int


@dataclass(frozen=True, slots=True)
class CheckedReceipt:
    """A receipt that may be accepted if its envelopes are the desk's."""

    signed: Signed
    receipt: Receipt
    hash: bytes
    promise: Signed
    at: int


Checked = CheckedEnvelope | CheckedReceipt


def check_envelope(
    posted: Posted, caller: Caller, directory: Directory, key: FastKey, at: int
) -> CheckedEnvelope:
    """Check an uploaded envelope.

    1. It is sent by the device that signed it, which is active.
    2. The device's signature holds, and the parts are those that the core names.
    3. Every recipient is sealed to by its newest epoch.
    4. The auditors that both desks demand get their part.

    Args:
        posted: Its parts are those of its core.
        caller: Who brought it.
        directory: The newest view.
        key: The relay's, for the promise.
        at: The relay's clock, UTC seconds.

    Raises:
        ComityError: The envelope is malformed or a signature does not hold.
        Refused: One of the relay's own rules does not hold.
    """
    upload, core = posted.upload, posted.core
    # (1)
    _require_own(core.sender, core.device, caller, directory)
    # (2)
    verify_sender(core, upload.core, upload.signature, directory, index=SIZE_MAX)
    # (3)
    _require_newest_epochs(core, directory)
    # (4)
    _require_auditors(core, directory)
    if core.blobs:
        raise Refused("unknown-blob", f"{len(core.blobs)} attachments are not here")
    what = core_hash(upload.core)
    return CheckedEnvelope(upload, core, what, sign_promise(key, Promise(what, at)), at)


def check_receipt(
    signed: Signed, caller: Caller, directory: Directory, key: FastKey, at: int
) -> CheckedReceipt:
    """Check a receipt; whether its envelopes are the desk's to confirm is asked afterwards.

    Raises:
        ComityError: The receipt is malformed or its signature does not hold.
        Refused: It is not the caller's own.
    """
    receipt = Receipt.parse(signed.payload)
    _require_own(receipt.desk, receipt.device, caller, directory)
    verify_receipt(signed, directory, index=SIZE_MAX)
    what = receipt_hash(signed.payload)
    return CheckedReceipt(signed, receipt, what, sign_promise(key, Promise(what, at)), at)


def check_notice(signed: Signed, caller: Caller, directory: Directory) -> DeskNotice:
    """Check a notice; whether its envelopes are the desk's is asked afterwards.

    Raises:
        ComityError: The notice is malformed, or a signature or stamp does not hold.
        Refused: Its device is not active.
    """
    notice = parse_notice(signed.payload)
    if isinstance(notice, Restored):
        # SPEC [H-1]: `restored` is by the relay key, so nobody else brings it.
        raise VerificationError("a restore is stated by the relay itself [H-1]")
    _require_own(notice.author.desk, notice.author.device, caller, directory)
    # SPEC [H-1]: a device active in its desk, and an admin's where it must be.
    verify_notice(signed, directory, index=SIZE_MAX)
    return notice


def _require_own(desk: DeskId, device: DeviceId, caller: Caller, directory: Directory) -> None:
    if (desk, device) != (caller.desk, caller.device):
        raise VerificationError("it is of another device than the one that sends it")
    # SPEC: a removed device's next request fails.
    if directory.device(device)[1].removed_index is not None:
        raise Refused("not-active", "the device is not active in its desk")


def _require_newest_epochs(core: Core, directory: Directory) -> None:
    stale: list[Desk] = []
    for entry in core.to:
        desk = directory.desk(entry.desk)
        # SPEC: an envelope whose ``to`` names an epoch that is not the newest is refused.
        if desk.epoch is None or desk.epoch.number != entry.epoch:
            stale.append(desk)
    if stale:
        raise Refused(
            "stale-epoch",
            f"{len(stale)} of {len(core.to)} recipients have another newest epoch",
            members={
                "desks": [
                    {"desk": desk.id.hex(), "epoch": desk.epoch.number if desk.epoch else 0}
                    for desk in stale
                ]
            },
        )


def _require_auditors(core: Core, directory: Directory) -> None:
    addressed = {entry.desk: entry.kind for entry in core.to}
    demanded = {
        auditor
        for party in (core.sender, core.counterpart)
        for auditor in required_auditors(directory, party, core.kind)
    }
    # SPEC [R-9]: the auditors that both desks' policies demand for the key kind are addressed. A
    # party that is an auditor too reads everything already.
    missing = demanded - addressed.keys()
    if missing:
        raise Refused(
            "auditor-missing",
            f"{len(missing)} of {len(demanded)} demanded auditors are not addressed",
            members={"desks": [{"desk": desk.hex()} for desk in sorted(missing)]},
        )
