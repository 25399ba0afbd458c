"""The closed code lists: what may be said to an auditor, because it names nobody.

Codes travel; words stay with the reader, who sees them in the own language. Sources: UNTOC
art. 18(3) and 18(21), Directive (EU) 2023/977, Budapest Convention, and the domain's usage.
"""

from typing import Final


def _codes(words: str) -> frozenset[str]:
    return frozenset(words.split())


LEGAL_BASES: Final = _codes(
    "UNTOC13 UNTOC16 UNTOC18 UNTOC19 UNTOC27 TIP8 TIP10 SOM8 SOM10 SOM18 UNCAC46 VIENNA88 BUD25"
    " BUD29 BUD31 ETS30 ETS182 CETS197 CETS198 EIO EU977 ECOWAS92 ECOWAS94 CARICOM05 SADC02 HARARE"
    " ASEAN04 IGAD09 RECIPROCITY UNKNOWN"
)
"""Treaty or other basis that a request names."""

OFFENCES: Final = _codes(
    "TIP SOM DRUGS LAUNDERING CORRUPTION CYBER TERRORISM VIOLENT PROPERTY OTHER"
)
"""Coarse offence classes: trafficking in persons, smuggling of migrants, and others."""

URGENCIES: Final = ("U0", "U1", "U2", "U3", "U4")
"""Routine, reasoned deadline, urgent, life or liberty at risk, vessel or observation running."""

URGENCY_REASONS: Final = _codes(
    "LIFE PUBLIC_SAFETY DETENTION_DECISION LOSS_OF_RELEVANCE HEARING_DATE LIMITATION_EXPIRY"
    " DATA_VOLATILE ASSET_FLIGHT RELEASE_DATE"
)
"""Why something is urgent; every urgency above U0 has one."""

MEASURES: Final = frozenset(f"M{number:02}" for number in range(1, 41))
"""What is asked for, one item each: M01 statement of a witness, M05 search, M19 locate a person."""

REFUSALS: Final = frozenset(f"N{number:02}" for number in range(1, 23))
"""Grounds for refusal, N01 not in conformity to N22 wrong authority.

Bank secrecy (UNTOC art. 18(8)) and fiscal matters (18(22)) are no grounds and have no code.
"""

OUTCOMES: Final = _codes("DONE NEGATIVE ALTERNATIVE REFUSED IMPOSSIBLE WITHDRAWN")
"""How one item ended."""

CONSULTATIONS: Final = _codes("REFUSE POSTPONE CONDITION COST CONFIDENTIALITY TRANSLATION")
"""What a consultation is about (UNTOC art. 18(26), 18(28))."""

PURPOSES: Final = _codes(
    "THIS_INVESTIGATION SAME_OFFENCE_TYPE ANY_CRIME_PREVENTION IMMEDIATE_DANGER VICTIM_PROTECTION"
    " HUMANITARIAN_RETURN ANALYSIS_ONLY"
)
EVIDENCE_USES: Final = _codes("NO ASK YES")
ONWARD_USES: Final = _codes("NAMED_PERSONS OFFICE AUTHORITY STATE ASK")
"""The axes of a permission: for what, as evidence, and to whom further (UNTOC art. 18(19))."""

PERSON_ROLES: Final = _codes("SUSPECT WITNESS VICTIM OTHER")
ANSWERS: Final = _codes("YES NO UNKNOWN")
BANDS: Final = ("0", "1", "2-4", "5-9", "10-49", "50+")
"""Bands in which an auditor sees a count of victims: never the number."""

_BAND_TOPS: Final = ((0, "0"), (1, "1"), (4, "2-4"), (9, "5-9"), (49, "10-49"))


def band(count: int) -> str:
    """Give the band of a count."""
    return next((name for top, name in _BAND_TOPS if count <= top), BANDS[-1])
