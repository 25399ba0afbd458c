"""Chooses the store by its address; whoever needs a store starts here."""

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from comity_server.store import Store, StoreError
from comity_server.store_postgresql import PostgresqlStore
from comity_server.store_sqlite import SqliteStore


def open_store(address: str) -> Store:
    """Make the store of an address. It touches nothing yet: await its ``open`` next.

    Args:
        address: ``sqlite:///relay.sqlite`` (relative path), ``sqlite:////var/lib/comity/relay``
            (absolute path) or ``postgresql+asyncpg://user@host/database``.

    Raises:
        StoreError: The address is not one of these. It is not repeated, as it may hold a password.
    """
    try:
        url = make_url(address)
    except ArgumentError as error:
        raise StoreError("store address cannot be read, expected sqlite:///path") from error
    if url.drivername == "sqlite":
        return SqliteStore(url)
    if url.drivername == "postgresql+asyncpg":
        return PostgresqlStore(url)
    raise StoreError(
        f"store address begins with {url.drivername}, expected sqlite or postgresql+asyncpg"
    )
