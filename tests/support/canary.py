"""Words that must not be found, and a search for them in every form that a leak might have."""

import secrets
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

_WORD_BYTES: Final = 12


class Canaries:
    """Words for the fields of one test, all beginning with one random stem.

    Whoever finds the stem has found a word, so one search is enough for all of them.
    """

    def __init__(self) -> None:
        """Draw the stem."""
        self.stem: Final = "Kanari" + secrets.token_hex(_WORD_BYTES)

    def word(self, field: str) -> str:
        """Give the text to plant in a field; it is not ASCII, as names often are not."""
        return f"{self.stem} {field} \u0416\u00e9"

    def forms(self) -> Mapping[str, bytes]:
        """Every form of the stem that is searched for, by name."""
        return forms_of(self.stem.encode()) | {
            "UTF-16 little-endian": self.stem.encode("utf-16-le"),
            "UTF-16 big-endian": self.stem.encode("utf-16-be"),
            "UTF-32": self.stem.encode("utf-32-le"),
            "lower case": self.stem.lower().encode(),
            "upper case": self.stem.upper().encode(),
            "reversed": self.stem[::-1].encode(),
        }


def forms_of(data: bytes) -> dict[str, bytes]:
    """Give bytes as they are, in hexadecimal, and in base64 wherever in a longer text they are."""
    forms = {
        "as it is": data,
        "hexadecimal": data.hex().encode(),
        "HEXADECIMAL": data.hex().upper().encode(),
    }
    for shift in range(3):
        for name, encode in (("base64", b64encode), ("base64url", urlsafe_b64encode)):
            # Without the characters that depend on what stands before and after.
            encoded = encode(bytes(shift) + data).rstrip(b"=")
            forms[f"{name} at {shift}"] = encoded[4 if shift else 0 : -3]
    return forms


def hits(places: Iterable[tuple[str, bytes]], forms: Mapping[str, bytes]) -> list[str]:
    """Search; give where which form was found."""
    return [
        f"{form} in {place}"
        for place, data in places
        for form, what in forms.items()
        if what in data
    ]


def files_below(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Every byte of every file below a folder."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            yield str(path.relative_to(folder)), path.read_bytes()
