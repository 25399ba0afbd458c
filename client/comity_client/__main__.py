"""The command ``comity``: the only place of the client that reads the clock."""

import sys
import time


def main() -> None:
    """Run the command line and leave with its exit code."""
    from comity_client.cli import run  # nothing is imported that is not used

    sys.exit(run(sys.argv[1:], lambda: int(time.time())))


if __name__ == "__main__":
    main()
