"""Exit codes: what a script may rely on. They never change their meaning.

=====  =========================================================================
code   meaning
=====  =========================================================================
0      done
1      failed, for another reason than those below
2      wrong use of the command, or cancelled by the user
3      not found: profile, desk, exchange, envelope, file
4      authentication needed: passphrase, or this device may not act for its desk
5      refused by a rule or a policy; trying again changes nothing
6      offline: nothing is lost, what was to be sent is queued
7      verification failed: a signature, proof or binding does not hold
8      an audited copy is damaged or incomplete; another copy may be whole
9      an audit proves misconduct: of the relay, a witness or a desk
10     an alarm of an audit: the log is late, or its quorum has no spare witness
75     temporary: the same again, later, may work
=====  =========================================================================
"""

from enum import IntEnum
from typing import Final

from comity_protocol.errors import ComityError, MalformedError, OpenError, VerificationError


class Exit(IntEnum):
    """The exit codes of every command."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    AUTHENTICATION = 4
    REFUSED = 5
    OFFLINE = 6
    UNVERIFIED = 7
    DAMAGED = 8
    MISCONDUCT = 9
    ALARM = 10
    TEMPORARY = 75


_BY_CODE: Final = {
    "cancelled": Exit.USAGE,
    "usage": Exit.USAGE,
    "malformed-draft": Exit.USAGE,
    "bad-request": Exit.FAILED,
    "profile": Exit.NOT_FOUND,
    "unknown-desk": Exit.NOT_FOUND,
    "unknown-exchange": Exit.NOT_FOUND,
    "unknown-envelope": Exit.NOT_FOUND,
    "no-such-file": Exit.NOT_FOUND,
    "no-such-name": Exit.NOT_FOUND,
    "not-found": Exit.NOT_FOUND,
    "wrong-passphrase": Exit.AUTHENTICATION,
    "passphrase-needed": Exit.AUTHENTICATION,
    "key-store": Exit.AUTHENTICATION,
    "unauthenticated": Exit.AUTHENTICATION,
    "use-nonce": Exit.AUTHENTICATION,
    "replayed-token": Exit.AUTHENTICATION,
    "not-active": Exit.AUTHENTICATION,
    "act-refused": Exit.REFUSED,
    "weak-passphrase": Exit.REFUSED,
    "ceremony": Exit.REFUSED,
    "limit-exceeded": Exit.REFUSED,
    "auditor-missing": Exit.REFUSED,
    "stale-epoch": Exit.REFUSED,
    "chain-moved": Exit.REFUSED,
    "id-taken": Exit.REFUSED,
    "too-large": Exit.REFUSED,
    "unknown-reference": Exit.REFUSED,
    "unknown-blob": Exit.REFUSED,
    "held": Exit.REFUSED,
    "on-hold": Exit.REFUSED,
    "erased": Exit.NOT_FOUND,
    "under-way": Exit.TEMPORARY,
    "repairing": Exit.TEMPORARY,
    "offline": Exit.OFFLINE,
    "stale-checkpoint": Exit.OFFLINE,
    "not-synchronised": Exit.OFFLINE,
    "archive": Exit.DAMAGED,
    "state": Exit.FAILED,
    "no-key": Exit.AUTHENTICATION,
    "not-yet": Exit.TEMPORARY,
    "unknown-checkpoint": Exit.TEMPORARY,
    "quota": Exit.TEMPORARY,
    "busy": Exit.TEMPORARY,
    "draining": Exit.TEMPORARY,
    "timeout": Exit.TEMPORARY,
    "internal": Exit.TEMPORARY,
}


def exit_of(error: ComityError) -> Exit:
    """Give the exit code of an error, by its wire code and then by its kind."""
    if (found := _BY_CODE.get(error.code)) is not None and type(error) is not ComityError:
        return found
    if isinstance(error, VerificationError | OpenError | MalformedError):
        return Exit.UNVERIFIED
    return Exit.FAILED
