"""The command ``comity-relay``; ``commands`` has what it does.

A failure is one sentence that says what to do, and exit code 1 (2 for wrong arguments).
"""

import importlib
import importlib.util
import sys
import time
from typing import Final

import click

from comity_protocol.errors import ComityError

_NEEDED: Final = ("sqlalchemy", "asyncpg", "prometheus_client")


def main() -> None:
    """Run the command."""
    if missing := [name for name in _NEEDED if importlib.util.find_spec(name) is None]:
        sys.exit(
            f"comity-relay needs {', '.join(missing)}; install the relay, in the folder of the"
            " source, with  pip install '.[server]'"
        )
    # Not before: without the extra, importing it would fail with a traceback.
    commands = importlib.import_module("comity_server.commands")
    try:
        commands.command.main(prog_name="comity-relay", standalone_mode=False, obj=time.time)
    except ComityError as error:
        sys.exit(f"comity-relay: {error}; {error.remedy}")
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(1)
    except importlib.import_module("sqlalchemy.exc").SQLAlchemyError as error:
        sys.exit(
            f"comity-relay: the database cannot be used: {getattr(error, 'orig', None) or error};"
            " if a backup was put back, its -wal and -shm files must be gone too"
            " (docs/OPERATIONS.md, section 6)"
        )
    except OSError as error:
        sys.exit(f"comity-relay: {error.strerror or error}; check the address and the folder")


if __name__ == "__main__":
    main()
