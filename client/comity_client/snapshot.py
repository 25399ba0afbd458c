"""A desk as folded, written for the own disk only, so that a chain is verified once.

This is no wire format: it is trusted because the file that holds it is the officer's own, like the
key store beside it.
"""

from types import MappingProxyType
from typing import Final

from comity_protocol.chain import Desk, Device, Epoch
from comity_protocol.encoding import Value, parse, serialize
from comity_protocol.fields import INTEGER_MAX, Fields, array_of, bytes_of, integer_of, text_of
from comity_protocol.identifiers import ID_BYTES, DeskId, DeviceId, OfficerId
from comity_protocol.keys import FAST_PUBLIC_BYTES, FULL_PUBLIC_BYTES, SEAL_PUBLIC_BYTES
from comity_protocol.limits import CHAIN_STATEMENTS_MAX, DEVICES_MAX, NAME_BYTES_MAX
from comity_protocol.merkle import HASH_BYTES
from comity_protocol.statements import Authority, EpochKeys, Policy, Role

_FIELDS: Final = ("id", "party", "authority", "policy", "seq", "head", "devices", "epochs")


def write_desk(desk: Desk) -> bytes:
    """Write a desk."""
    policy = desk.policy
    return serialize(
        {
            "id": desk.id,
            "party": desk.party,
            "authority": desk.authority.value,
            "policy": [
                policy.add_admins,
                policy.epoch_days,
                policy.fresh_hours,
                policy.history_days,
                list(policy.auditors_file),
                list(policy.auditors_lead),
            ],
            "seq": desk.seq,
            "head": desk.head,
            "devices": [_write_device(device) for device in desk.devices.values()],
            "epochs": [_write_epoch(epoch) for epoch in desk.epochs],
        }
    )


def parse_desk(data: bytes) -> Desk:
    """Read a desk that ``write_desk`` wrote."""
    fields = Fields.of(parse(data), "kept desk", _FIELDS)
    devices = [_device(item) for item in fields.array("devices", high=CHAIN_STATEMENTS_MAX)]
    return Desk(
        id=DeskId(fields.bytes("id", length=ID_BYTES)),
        party=fields.text("party", bytes_max=NAME_BYTES_MAX),
        authority=Authority(fields.text("authority", bytes_max=NAME_BYTES_MAX)),
        policy=_policy(fields.value("policy")),
        seq=fields.integer("seq"),
        head=fields.bytes("head", length=HASH_BYTES),
        devices=MappingProxyType({device.id: device for device in devices}),
        epochs=tuple(_epoch(item) for item in fields.array("epochs", high=CHAIN_STATEMENTS_MAX)),
    )


def _write_device(device: Device) -> list[Value]:
    return [
        device.id,
        device.fast,
        device.full,
        device.seal,
        device.officer,
        device.role.value,
        device.added_index,
        device.removed_index,
    ]


def _device(value: Value) -> Device:
    id_, fast, full, seal, officer, role, added, removed = array_of(value, "device", low=8, high=8)
    return Device(
        id=DeviceId(bytes_of(id_, "device", length=ID_BYTES)),
        fast=bytes_of(fast, "fast key", length=FAST_PUBLIC_BYTES),
        full=bytes_of(full, "full key", length=FULL_PUBLIC_BYTES),
        seal=bytes_of(seal, "sealing key", length=SEAL_PUBLIC_BYTES),
        officer=OfficerId(bytes_of(officer, "officer", length=ID_BYTES)),
        role=Role(text_of(role, "role", bytes_max=NAME_BYTES_MAX)),
        added_index=integer_of(added, "added"),
        removed_index=None if removed is None else integer_of(removed, "removed"),
    )


def _write_epoch(epoch: Epoch) -> list[Value]:
    keys = epoch.keys
    return [epoch.index, keys.number, keys.file, keys.lead, list(keys.members), keys.boxes_hash]


def _epoch(value: Value) -> Epoch:
    index, number, file, lead, members, boxes = array_of(value, "epoch", low=6, high=6)
    keys = EpochKeys(
        number=integer_of(number, "epoch"),
        file=bytes_of(file, "file key", length=SEAL_PUBLIC_BYTES),
        lead=bytes_of(lead, "lead key", length=SEAL_PUBLIC_BYTES),
        members=tuple(
            DeviceId(bytes_of(member, "member", length=ID_BYTES))
            for member in array_of(members, "members", high=DEVICES_MAX)
        ),
        boxes_hash=bytes_of(boxes, "boxes", length=HASH_BYTES),
    )
    return Epoch(keys, integer_of(index, "epoch, index"))


def _policy(value: Value) -> Policy:
    add, days, fresh, history, file, lead = array_of(value, "policy", low=6, high=6)
    return Policy(
        add_admins=integer_of(add, "policy"),
        epoch_days=integer_of(days, "policy"),
        fresh_hours=integer_of(fresh, "policy"),
        history_days=integer_of(history, "policy"),
        auditors_file=_desks(file),
        auditors_lead=_desks(lead),
    )


def _desks(value: Value) -> tuple[DeskId, ...]:
    return tuple(
        DeskId(bytes_of(item, "auditor", length=ID_BYTES))
        for item in array_of(value, "auditors", high=INTEGER_MAX)
    )
