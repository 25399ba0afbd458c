"""Repairs the folder of an audited log: takes away what is proven wrong and fetches it again.

What a file must hold is known from the files around it and the witnessed root, so a repair believes
a source no more than a fetch does.
"""

from comity_client.audit_archive import STATEMENTS, Archive
from comity_client.audit_fetch import fetch
from comity_client.audit_findings import Finding, Grade
from comity_client.audit_source import Source
from comity_client.audit_verify import Audit


def damage(archive: Archive) -> list[Finding]:
    """Give what is damaged or missing, and no other findings.

    Raises:
        ArchiveError, MalformedError, VerificationError: The genesis or the newest checkpoint is
            missing or damaged, so that nothing can be said of the rest.
    """
    found: list[Finding] = []
    Audit(archive, found.append).run(None)
    return [one for one in found if one.grade is Grade.DAMAGE]


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
        if name.startswith("tile/") or name == STATEMENTS:
            archive.remove(name)
    await fetch(archive, source, None, report=lambda _finding: None)
    return names
