"""A witness with a given key: ``witness_program.py FOLDER NAME LOG_KEY``.

The key's seed comes in the environment and the memory is in the folder. Every relay that is
measured begins its log anew, so each has a folder, and so a witness, of its own.
"""

import asyncio
import os
import sys
import time
from pathlib import Path

from aiohttp import web
from nacl.signing import SigningKey

from comity_client.witness import Witness, serve_witness
from comity_client.witness_state import WitnessKey, WitnessState
from comity_protocol.signed_note import VerifierKey


async def _main(folder: Path, name: str, log_key: str) -> None:
    key = WitnessKey(name, SigningKey(bytes.fromhex(os.environ["WITNESS_SEED"])))
    memory = folder / "witness.sqlite"
    begin = WitnessState.open if memory.exists() else WitnessState.create
    state = begin(memory, key.verifier_key)
    logs = [VerifierKey.parse(log_key)]
    runner = web.AppRunner(serve_witness(Witness(state, key, logs, lambda: int(time.time()))))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    print(f"http://127.0.0.1:{port}", flush=True)
    await asyncio.Event().wait()


asyncio.run(_main(Path(sys.argv[1]), *sys.argv[2:4]))
