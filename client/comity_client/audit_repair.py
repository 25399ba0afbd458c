"""Repairs the folder of an audited log: takes away what is proven wrong and fetches it again.

What a file must hold is known from the files around it and the witnessed root, so a repair believes
a source no more than a fetch does.
"""

from typing import Final

from comity_client.audit_archive import CHECKPOINT, GENESIS, STATEMENTS, Archive, ArchiveError
from comity_client.audit_fetch import fetch, read_checkpoint, read_genesis
from comity_client.audit_findings import Finding, Grade, Kind
from comity_client.audit_source import Source
from comity_client.audit_verify import Audit
from comity_protocol.errors import VerificationError

_STATED: Final = frozenset({Kind.INVALID_STATEMENT, Kind.WITHHELD_STATEMENT})
"""Found when a signature in this copy is damaged, or a statement of it is gone."""


def damage(archive: Archive) -> list[Finding]:
    """Give what is damaged or missing, and no other findings.

    Raises:
        ArchiveError, MalformedError, VerificationError: The genesis is missing or damaged, so that
            nothing can be said of the rest.
    """
    genesis = read_genesis(archive, None)
    if genesis is None:
        raise ArchiveError(f"{archive.folder} has no {GENESIS}; fetch the log with --genesis")
    try:
        said = "" if read_checkpoint(archive, genesis) else "file is missing"
    except VerificationError as error:
        said = str(error)
    if said:
        return [Finding(kind=Kind.DAMAGED_FILE, text=said, where=CHECKPOINT)]
    found: list[Finding] = []
    Audit(archive, found.append).run(None)
    return [_as_damage(one) for one in found if one.grade is Grade.DAMAGE or one.kind in _STATED]


async def repair(archive: Archive, found: list[Finding], source: Source) -> list[str]:
    """Take damaged files away and fetch them again; gives their names.

    Args:
        archive: The folder.
        found: What ``damage`` gave.
        source: Where from; need not be the one that the folder came from.

    Raises:
        OfflineError, SourceError: The source does not have them.
    """
    names = sorted({one.where for one in found})
    for name in names:
        if name.startswith("tile/") or name in (STATEMENTS, CHECKPOINT):
            archive.remove(name)
    await fetch(archive, source, None, report=lambda _finding: None)
    return names


def _as_damage(one: Finding) -> Finding:
    """Give a statement that cannot be believed as damage of the file of statements."""
    if one.kind not in _STATED:
        return one
    return Finding(kind=Kind.DAMAGED_FILE, text=one.text, where=STATEMENTS)
