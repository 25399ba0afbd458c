"""Every bound of the protocol, in one place, each with its unit and its reason.

A name ends in its unit and then its qualifier (``envelope_bytes_max`` becomes
``ENVELOPE_BYTES_MAX``). Nothing here is computed from the world.
"""

from typing import Final

# --- Encoding ---------------------------------------------------------------------------------

# Containers inside containers. The deepest object of the protocol uses 6; a bound keeps a hostile
# object from exhausting the stack of a small machine.
DEPTH_MAX: Final = 8

# --- Keys -------------------------------------------------------------------------------------

# Argon2id passes. 3 is the library's "moderate" figure; fewer would make a stolen laptop cheap to
# search.
STRETCH_OPS_MIN: Final = 3

# More than this would let a planted key file freeze the officer's machine for minutes.
STRETCH_OPS_MAX: Final = 16

# Argon2id memory in bytes. 64 MiB still runs on a 2 GB laptop and fills a graphics card with few
# parallel guesses.
STRETCH_MEMORY_BYTES_MIN: Final = 64 * 1024 * 1024

# A planted key file must not be able to take all memory of the officer's machine.
STRETCH_MEMORY_BYTES_MAX: Final = 1024 * 1024 * 1024

# Parsed public keys kept in memory, for each of the two kinds. A region has about 600 desks, of
# which a process writes to a few at a time; a parsed key takes some tens of kilobytes.
PUBLIC_KEYS_CACHED_MAX: Final = 256
