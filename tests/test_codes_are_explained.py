"""Every numbered code has its meaning in docs/CODES.md, and nothing else has."""

import re
from pathlib import Path

from comity_protocol import codes

_ROW = re.compile(r"^\| ([NM]\d\d) \| (\S.*) \|$", re.MULTILINE)


def test_every_numbered_code_is_explained_once() -> None:
    """[A-4] An officer refuses on a ground, and two programs agree on it, by its meaning."""
    text = (Path(__file__).parents[1] / "docs" / "CODES.md").read_text("utf-8")

    explained = [code for code, _ in _ROW.findall(text)]

    assert sorted(explained) == sorted(codes.REFUSALS | codes.MEASURES)
