"""P11: what desks erase is gone, and everything that was proven stays proven.

All desks of a mixed workload erase all that they have at the relay. Then what a stranger fetched
before, what anybody fetches now, every receipt and every figure of the secretariat are as before.
That no file, dump, write-ahead log or client holds what was erased is shown by the tests that
docs/PROMISES.md names.

Found by: a holder who kept a copy by ``comity audit verify``; nothing is to be found.
"""

from itertools import groupby
from pathlib import Path
from typing import Final

import pytest

from comity_client.audit_archive import Archive
from comity_client.audit_desk import items_of
from comity_client.audit_findings import Finding
from comity_client.audit_verify import Audit, Objects
from comity_client.secretariat import statistics
from comity_protocol.identifiers import DeskId
from comity_protocol.receipts import Signed
from promises.test_p08_figures_are_complete import Office, fetched, office
from support.notices import erase, give
from support.workload import Deed, write_script

EXCHANGES: Final = 8
EXCHANGES_LONG: Final = 48
IDS_MAX: Final = 100


async def erase_everything(here: Office) -> int:
    """Let every desk erase every act of its own at the relay; gives how many copies went."""
    script, gone = here.script, 0
    deeds = [deed for deed in script.deeds if deed.act is not None]

    def pair_of(deed: Deed) -> tuple[DeskId, ...]:
        return tuple(sorted((deed.by, deed.to)))

    await here.relay.ask("GET", "/v1/nonce")
    for desks, group in groupby(sorted(deeds, key=pair_of), key=pair_of):
        ids = sorted({deed.envelope for deed in group})
        for desk in desks:
            admin = script.world.active(desk)[0]
            for start in range(0, len(ids), IDS_MAX):
                some = ids[start : start + IDS_MAX]
                answer = await give(here.relay, admin, erase(here.relay, admin, some))
                assert answer.status == 200, answer.body
                gone += len(some)
    await here.relay.seal()
    return gone


async def bodies_left(here: Office) -> int:
    """Count the bodies that the relay still gives to anybody."""
    left = 0
    for desk in here.script.desks:
        member, after = here.script.world.active(desk)[0], 0
        for _ in range(100):
            path = f"/v1/mailbox?after={after}&limit=50"
            items = (await here.relay.as_device(member, "GET", path)).value["items"]
            if not items:
                break
            left += sum(bool(item[4]) for item in items)
            after = items[-1][0]
    return left


def audited(folder: Path) -> list[Finding]:
    """Audit a folder with all receipts that it holds."""
    found: list[Finding] = []
    pages = [
        items_of(path.read_bytes()) for path in sorted((folder / "desk" / "receipts").iterdir())
    ]
    receipts = {
        str(index): Signed(payload, signature)  # type: ignore[arg-type]  # verified by the audit
        for page in pages
        for index, payload, signature in page
    }
    Audit(Archive(folder), found.append, Objects(receipts=receipts)).run(None)
    return found


async def erase_and_compare(tmp_path: Path, exchanges: int) -> dict[str, int]:
    """Erase everything of so many exchanges; gives what was compared."""
    async with office(write_script(exchanges), tmp_path / "relay") as here:
        await fetched(here, tmp_path / "before")
        assert await bodies_left(here) == 2 * here.script.acts
        gone = await erase_everything(here)
        left = await bodies_left(here)
        await here.desk.fetch()
        after = await statistics(here.desk)
        await fetched(here, tmp_path / "before")
        await fetched(here, tmp_path / "after")
    assert after.rows == here.counted.rows
    assert after.unaccounted == here.counted.unaccounted
    assert audited(tmp_path / "before") == audited(tmp_path / "after") == []
    return {"copies erased": gone, "bodies left": left, "rows": len(after.rows)}


async def test_after_everything_was_erased_every_proof_and_figure_is_as_before(
    tmp_path: Path,
) -> None:
    """[H-3] [H-5] [N-1] The short form: 8 exchanges."""
    found = await erase_and_compare(tmp_path, EXCHANGES)

    assert found == {"copies erased": 42, "bodies left": 0, "rows": 7}


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_after_forty_eight_exchanges_were_erased_every_figure_is_as_before(
    tmp_path: Path,
) -> None:
    """[H-3] [H-5] [N-1] The long form."""
    found = await erase_and_compare(tmp_path, EXCHANGES_LONG)

    assert found == {"copies erased": 252, "bodies left": 0, "rows": 45}
