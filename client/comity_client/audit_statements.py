"""The statements of an audited log: fetched from a mirror, and kept in the folder.

They are kept without sealed boxes, in the order of the log, and only as far as the entries of the
folder say the same. By which rules they hold is looked at in ``audit_verify``.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Final

from comity_client.audit_archive import STATEMENTS, Archive
from comity_client.audit_findings import Finding, Kind, Report
from comity_client.audit_source import PAGES_MAX, Source, SourceError
from comity_client.audit_tree import read_entries
from comity_protocol.encoding import parse, serialize
from comity_protocol.fields import array_of
from comity_protocol.leaves import is_statement_leaf, statement_leaf
from comity_protocol.statements import SignedStatement

STATEMENTS_BYTES_MAX: Final = 512 * 1024 * 1024
"""About 60,000 statements of a deployment, each with its signatures."""

STATEMENTS_MAX: Final = 1_000_000
STATEMENTS_PAGE_BYTES_MAX: Final = 64 * 1024 * 1024


async def fetch_statements(archive: Archive, source: Source, size: int, report: Report) -> None:
    """Fetch the statements from a mirror, which serves them to everybody as it replayed them.

    Args:
        archive: The folder, with all entries up to ``size``.
        source: A mirror; a relay gives statements to its members alone.
        size: Entries of the log, which cannot hold more statements.
        report: Takes findings.

    Raises:
        SourceError: The source gives more than any log of this size has.
    """
    known = read_statements(archive) or []
    new: list[SignedStatement] = []
    held = 0
    async for one in served_statements(source, len(known)):
        new.append(one)
        held += len(one.payload)
        if len(known) + len(new) > size or held > STATEMENTS_BYTES_MAX:
            raise SourceError(f"{source.url} has more statements than its log has entries")
    keep_statements(archive, known, new, size, report, source.url)


async def served_statements(
    source: Source, after: int, *, pages_max: int = PAGES_MAX
) -> AsyncIterator[SignedStatement]:
    """Page through the statements that a mirror serves; they are not believed.

    Args:
        source: A mirror; a relay serves none without a token.
        after: How many of them to leave out.
        pages_max: After which nothing more is asked.
    """
    for _ in range(pages_max):
        data = await source.get(f"statements?after={after}", STATEMENTS_PAGE_BYTES_MAX)
        found = [] if data is None else parse_statement_list(data)
        for one in found:
            yield one
        after += len(found)
        if not found or after > STATEMENTS_MAX:
            return


def parse_statement_list(data: bytes) -> list[SignedStatement]:
    """Read a list of signed statements in the order of the log, the genesis first.

    Raises:
        MalformedError: It is something else.
    """
    items = array_of(parse(data), "statements", high=STATEMENTS_MAX)
    return [SignedStatement.parse(serialize(item)) for item in items]


def read_statements(archive: Archive) -> list[SignedStatement] | None:
    """Read the statements of the folder; None when it has none.

    Raises:
        ArchiveError, MalformedError: The file is damaged.
    """
    data = archive.read(STATEMENTS, STATEMENTS_BYTES_MAX)
    return None if data is None else parse_statement_list(data)


def keep_statements(
    archive: Archive,
    known: Sequence[SignedStatement],
    new: Sequence[SignedStatement],
    size: int,
    report: Report,
    where: str,
) -> None:
    """Write the statements of the folder with new ones at their end, without sealed boxes.

    Only what the log holds at the next place is kept. What is newer than the log of this folder is
    left for the next fetch.

    Args:
        archive: The folder, with all entries up to ``size``.
        known: Those of the folder.
        new: What a source gave after them.
        size: Entries of the log.
        report: Takes findings.
        where: The source.
    """
    if not new:
        return
    entries = [entry for entry in read_entries(archive, size) if is_statement_leaf(entry)]
    kept = list(known)
    for one, entry in zip(new, entries[len(known) :], strict=False):
        if statement_leaf(one.payload) != entry:
            text = f"statement {len(kept)} that the source gives is not the one of the log"
            report(Finding(kind=Kind.SOURCE, text=text, where=where))
            break
        kept.append(SignedStatement(one.payload, one.signatures))
    if len(kept) > len(known):
        items = [parse(SignedStatement(one.payload, one.signatures).serialize()) for one in kept]
        archive.replace(STATEMENTS, serialize(items), durably=True)
