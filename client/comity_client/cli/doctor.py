"""``comity doctor``: what is well, what is not, and what to do, in plain words."""

import asyncio
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final

import click

from comity_client.cli.dates import span
from comity_client.cli.shell import PassphraseNeededError, Shell, Verb
from comity_protocol.errors import ComityError

if TYPE_CHECKING:
    from comity_client.cli.known import Known
    from comity_client.keystore import DeviceKeys
    from comity_client.state import Newest
    from comity_protocol.chain import Desk

_HOUR: Final = 3_600
_DAY: Final = 24 * _HOUR
_CLOCK_SECONDS_MAX: Final = 300
"""A clock that differs by more makes tokens and judgements of freshness wrong."""

_STALLED_SECONDS: Final = 1_800
"""A relay publishes a checkpoint at least every ten minutes; three are missing."""

_PUBLISHED_PAGES: Final = 20
"""Pages of published checkpoints read for outages, some seconds; the next call reads on."""

_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_COLOURS: Final = {"ok": "green", "warn": "yellow", "fail": "red"}


class Level(Enum):
    """How a check went."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """One line.

    Attributes:
        name: Stable word.
        text: What was found.
        todo: What to do; empty when all is well.
        is_broken: Whether something does not verify, which decides the exit code.
    """

    name: str
    level: Level
    text: str
    todo: str = ""
    is_broken: bool = False


@click.command(cls=Verb)
@click.pass_obj
def doctor(shell: Shell) -> int:
    """Check profile, keys, clock, relay, witnesses and desk; say what to do."""
    from comity_client.cli.exits import Exit

    checks = list(_checks(shell))
    lines = []
    for check in checks:
        word = click.style(f"{check.level.value:<4}", fg=_COLOURS[check.level.value])
        lines.append(f"{word}  {check.name:<11} {check.text}")
        if check.todo:
            lines.append(f"      {'':<11} -> {check.todo}")
    document: dict[str, object] = {
        "checks": [
            {
                "name": check.name,
                "level": check.level.value,
                "text": check.text,
                "todo": check.todo,
            }
            for check in checks
        ]
    }
    shell.give("doctor", document, lines)
    failed = [check for check in checks if check.level is Level.FAIL]
    if any(check.is_broken for check in failed):
        return Exit.UNVERIFIED
    return Exit.FAILED if failed else Exit.OK


def _checks(shell: Shell) -> Iterator[Check]:
    try:
        profile = shell.read_profile()
    except ComityError as error:
        yield Check("profile", Level.FAIL, str(error), error.remedy)
        return
    yield Check("profile", Level.OK, f"{shell.folder}, device {profile.device.hex()}")
    yield _permissions(shell)
    keys, check = _key_store(shell)
    yield check
    yield _relay(shell, keys)
    try:
        yield from _kept(shell, keys)
    except ComityError as error:
        yield Check("state", Level.FAIL, str(error), error.remedy)


def _permissions(shell: Shell) -> Check:
    """[B-9]: profile, key store and state are the owner's alone."""
    from comity_client.profile import KEYS_FILE, PROFILE_FILE, STATE_FILE

    paths = [shell.folder, *(shell.folder / name for name in (PROFILE_FILE, KEYS_FILE, STATE_FILE))]
    loose = [path for path in paths if path.exists() and path.stat().st_mode & _OTHERS]
    if loose:
        names = ", ".join(str(path) for path in loose)
        todo = f"chmod go-rwx {' '.join(str(path) for path in loose)}; then think who read it"
        return Check("permissions", Level.FAIL, f"others may read {names}", todo)
    return Check("permissions", Level.OK, "only you can read the profile")


def _key_store(shell: Shell) -> "tuple[DeviceKeys | None, Check]":
    try:
        keys = shell.device_keys()
    except PassphraseNeededError as error:
        return None, Check("key store", Level.WARN, f"not checked: {error}", error.remedy)
    except ComityError as error:
        return None, Check("key store", Level.FAIL, str(error), error.remedy)
    if keys.device != shell.read_profile().device:
        return None, Check(
            "key store",
            Level.FAIL,
            "the key store is of another device than the profile",
            "put the two back together from your backup, or enrol this device anew",
            is_broken=True,
        )
    return keys, Check("key store", Level.OK, "opens with this passphrase")


def _relay(shell: Shell, keys: "DeviceKeys | None") -> Check:
    if shell.is_offline:
        return Check("relay", Level.WARN, "not asked, as you wished with --offline")
    url = shell.read_profile().deployment.url
    if keys is None:
        return Check("relay", Level.WARN, f"{url} not asked: no keys to ask with")
    from comity_client.desk import Desk

    async def sync() -> None:
        async with Desk.open(shell.folder, keys, now=shell.now) as desk:
            await desk.sync()
            await desk.dating.read_published(_PUBLISHED_PAGES)

    try:
        with shell.step("asking the relay"):
            asyncio.run(sync())
    except ComityError as error:
        level = Level.WARN if error.code == "offline" else Level.FAIL
        return Check("relay", level, f"{url}: {error}", error.remedy)
    return Check("relay", Level.OK, f"{url} answers, and serves the deployment you enrolled in")


def _kept(shell: Shell, keys: "DeviceKeys | None") -> Iterator[Check]:
    """Check what the state file holds, which the relay was just asked to renew."""
    from comity_client.cli.known import Known

    with Known.open(shell) as known:
        newest = known.state.newest()
        own = known.desks.get(known.profile.desk)
        if newest is None or own is None:
            yield Check(
                "desk",
                Level.WARN,
                "your desk is not in the directory as last synchronised",
                "wait until custodians and admins have signed, then run `comity sync`",
            )
            return
        yield _clock(newest, shell.now())
        yield _skews(known, newest)
        yield _outages(known)
        yield _restores(known, shell.now())
        yield _freshness(newest, own, shell.now())
        yield _quorum(known, newest)
        yield _own_entry(known, own, keys)
        yield _epoch(known, own, newest)
        yield _box(known, own, keys)
        yield _outbox(known)
        yield _alarms(known)


def _clock(newest: "Newest", now: int) -> Check:
    ahead = newest.sealed_at - now
    if ahead > _CLOCK_SECONDS_MAX:
        return Check(
            "clock",
            Level.FAIL,
            f"this machine is {span(ahead)} behind the witnesses",
            "set the clock, best with automatic time",
        )
    return Check("clock", Level.OK, "not behind the witnesses")


def _skews(known: "Known", newest: "Newest") -> Check:
    """[M-5]: how far each clock is from the witnesses' time is shown, and never counted."""
    from comity_client.cli.skews import read_skews

    apart = read_skews(known, newest)
    text = ", ".join(f"{name} {seconds:+} s" for name, seconds in apart.items())
    worst = max((abs(seconds) for seconds in apart.values()), default=0)
    if worst > _CLOCK_SECONDS_MAX:
        todo = "tell who runs it to set the clock; no time of any act depends on it"
        return Check("clocks", Level.WARN, f"{text}; shown, never counted", todo)
    return Check("clocks", Level.OK, f"{text or 'nothing to compare'}; shown, never counted")


def _outages(known: "Known") -> Check:
    """[M-4]: from the sealed times of published checkpoints, alike by everyone."""
    from comity_client.brackets import READ_UNTIL, read_calendar
    from comity_client.cli.dates import span
    from comity_client.cli.online import moment
    from comity_protocol.times import outages

    until = known.state.mark(READ_UNTIL)
    if until is None:
        return Check("outages", Level.OK, "the published checkpoints were not read yet")
    found = outages(read_calendar(known.state, until).all)
    if not found:
        return Check("outages", Level.OK, f"none until {moment(until)}")
    last = found[-1]
    text = (
        f"{len(found)} until {moment(until)}; the last from {moment(last.start)} for"
        f" {span(last.seconds)}; they stop no clock"
    )
    return Check("outages", Level.OK, text)


def _restores(known: "Known", now: int) -> Check:
    from comity_client.cli.said import restored_lines
    from comity_client.refill import REPAIRING_SINCE, is_overdue

    lines = restored_lines(known.state)
    since = known.state.mark(REPAIRING_SINCE)
    if since is not None:
        from comity_client.cli.online import moment

        text = f"the relay says since {moment(since)} that it is being repaired"
        if is_overdue(since, now):
            todo = "that is longer than it may take; telephone the operator, and use `comity stamp`"
            return Check("restores", Level.FAIL, text, todo)
        return Check("restores", Level.WARN, text, "run `comity sync` again in some minutes")
    if lines:
        return Check("restores", Level.WARN, lines[0], "run `comity sync` on every device")
    return Check("restores", Level.OK, "the relay never said that it was restored")


def _freshness(newest: "Newest", own: "Desk", now: int) -> Check:
    age = max(0, now - newest.sealed_at)
    text = f"newest checkpoint is {span(age)} old, {newest.size} entries"
    if age > own.policy.fresh_hours * _HOUR:
        return Check(
            "checkpoint",
            Level.FAIL,
            f"{text}; your desk's limit is {own.policy.fresh_hours} hours",
            "run `comity sync`; if it stays, ask the operator whether the relay reaches witnesses",
        )
    if age > _STALLED_SECONDS:
        todo = "run `comity sync`; if it stays, check this machine's clock and tell the operator"
        return Check("checkpoint", Level.WARN, text, todo)
    return Check("checkpoint", Level.OK, text)


def _quorum(known: "Known", newest: "Newest") -> Check:
    from comity_client.words import needed
    from comity_protocol.checkpoint import cosignatures
    from comity_protocol.genesis import parse_genesis
    from comity_protocol.statements import SignedStatement

    signed = known.state.genesis()
    if signed is None:
        return Check("witnesses", Level.WARN, "no genesis yet", "run `comity sync`")
    quorum = parse_genesis(SignedStatement.parse(signed).payload).quorum
    seen = {one.witness for one in cosignatures(newest.note, quorum.witnesses)}
    text = (
        f"{len(seen)} of {len(quorum.witnesses)} cosigned the newest checkpoint,"
        f" {needed(quorum)} needed"
    )
    if not quorum.is_met(seen):
        todo = "do not send; tell the operator and your administrator"
        return Check("witnesses", Level.FAIL, text, todo, is_broken=True)
    if missing := sorted({key.name for key in quorum.witnesses} - seen):
        return Check("witnesses", Level.WARN, text, f"tell who runs {', '.join(missing)}")
    return Check("witnesses", Level.OK, text)


def _own_entry(known: "Known", own: "Desk", keys: "DeviceKeys | None") -> Check:
    """Compare the directory's entry of this device with its keys: nobody speaks in its name."""
    device = own.devices.get(known.profile.device)
    if device is None:
        todo = "have it admitted: `comity device admit`, or wait and run `comity sync`"
        return Check("own entry", Level.FAIL, "this device is not in its desk", todo)
    if device.removed_index is not None:
        todo = "ask your desk's admin; a new device is made with `comity device new`"
        return Check("own entry", Level.FAIL, "this device was removed from its desk", todo)
    if keys is None:
        return Check("own entry", Level.WARN, "not compared: the key store was not opened")
    stated = (device.fast, device.full, device.seal)
    if stated != (keys.fast.public, keys.full.public, keys.seal.public):
        return Check(
            "own entry",
            Level.FAIL,
            "the directory has other keys for this device than it holds",
            "do not send; tell your administrator at once",
            is_broken=True,
        )
    return Check("own entry", Level.OK, f"{device.role.value}, with the keys that it holds")


def _epoch(known: "Known", own: "Desk", newest: "Newest") -> Check:
    if own.epoch is None:
        todo = "run `comity desk start`: until then nobody can write to you"
        return Check("epoch", Level.FAIL, "your desk has no epoch", todo)
    if not own.is_sealable:
        todo = "run `comity epoch turn`"
        return Check("epoch", Level.FAIL, "somebody who is gone holds the desk's keys", todo)
    # The log gives an epoch's position, not its time; when this device first saw it bounds its age.
    name = f"epoch {own.epoch.number} seen at"
    seen_at = known.state.mark(name)
    if seen_at is None:
        seen_at = newest.sealed_at
        known.state.set_mark(name, seen_at)
    days = max(0, newest.sealed_at - seen_at) // _DAY
    text = f"epoch {own.epoch.number}, known here for {days} of {own.policy.epoch_days} days"
    if days > own.policy.epoch_days:
        return Check("epoch", Level.WARN, text, "run `comity epoch turn`")
    return Check("epoch", Level.OK, text)


def _box(known: "Known", own: "Desk", keys: "DeviceKeys | None") -> Check:
    if keys is None or own.epoch is None:
        return Check("desk keys", Level.WARN, "not checked")
    from comity_client.seeds import Seeds

    try:
        Seeds(known.state, keys).newest(own)
    except ComityError as error:
        broken = error.code == "verification-failed"
        return Check("desk keys", Level.FAIL, str(error), error.remedy, is_broken=broken)
    return Check("desk keys", Level.OK, f"this device reads epoch {own.epoch.number}")


def _outbox(known: "Known") -> Check:
    rows = known.state.connection.execute("SELECT stage, count(*) FROM outbox GROUP BY stage")
    counts = dict(rows.fetchall())
    queued, rejected = counts.get("queued", 0), counts.get("rejected", 0)
    if rejected:
        text = f"{rejected} refused by the relay"
        return Check("outbox", Level.WARN, text, "see `comity outbox`, and write them anew")
    if queued:
        return Check("outbox", Level.WARN, f"{queued} on this machine only", "run `comity sync`")
    return Check("outbox", Level.OK, "nothing waits")


def _alarms(known: "Known") -> Check:
    alarms = known.state.alarms()
    if not alarms:
        return Check("alarms", Level.OK, "none")
    text = f"{len(alarms)}; the newest: {alarms[-1].kind}: {alarms[-1].text}"
    todo = "export the evidence with `comity alarm export`; tell your administrator"
    return Check("alarms", Level.FAIL, text, todo, is_broken=True)
