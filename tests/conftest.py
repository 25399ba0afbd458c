"""Fixtures that every test may use, and how long property tests search.

Set ``COMITY_LONG=1`` (as ``make long`` does) to search for minutes instead of moments.
"""

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from support.certificates import Made, make_certificates
from support.postgres import PostgresServer

settings.register_profile(
    "ci",
    derandomize=True,  # The same examples on every run: a red check is red for everyone.
    max_examples=30,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "long",
    max_examples=2_000,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("long" if os.environ.get("COMITY_LONG") == "1" else "ci")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One PostgreSQL for the whole run. A test may kill it; the next database starts it again."""
    with PostgresServer() as server:
        yield server


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """Address of a fresh, empty database of this test's own, for ``create_async_engine``."""
    postgres_server.start()
    url = postgres_server.create_database()
    yield url
    postgres_server.start()
    postgres_server.drop_database(url)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Certificates of real acts, made once for the whole run over a real relay."""
    return make_certificates(tmp_path_factory.mktemp("certificates"))
