"""Counts a fetched folder in a process of its own and prints the digest.

    python -m support.count_folder FOLDER PROFILE < the three seeds of the device, in hex

So a test can count under another locale, time zone and hash seed, with no relay anywhere.
"""

import asyncio
import sys
from contextlib import closing
from pathlib import Path

from comity_client.audit_archive import Archive
from comity_client.keystore import DeviceKeys
from comity_client.profile import STATE_FILE, read_profile
from comity_client.relay_answers import Boxes
from comity_client.secretariat import statistics_of
from comity_client.state import open_state
from comity_protocol.counting import digest_of
from comity_protocol.keys import FastKey, FullKey, SealKey


def main(folder: str, profile_folder: str) -> None:
    """Count and print."""
    fast, full, seal = (bytes.fromhex(line) for line in sys.stdin.read().split())
    keys = DeviceKeys(FastKey(fast), FullKey(full), SealKey(seal))
    profile = read_profile(Path(profile_folder))
    pins = {
        "genesis_hash": profile.deployment.genesis_hash,
        "desk": profile.desk,
        "device": profile.device,
    }
    with closing(open_state(Path(profile_folder) / STATE_FILE, **pins)) as state:
        boxes = Boxes(*state.boxes())
    counted = asyncio.run(statistics_of(Archive(Path(folder)), profile, keys, boxes, lambda: 0))
    sys.stdout.write(f"{digest_of(counted).hex()} {len(counted.rows)}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
