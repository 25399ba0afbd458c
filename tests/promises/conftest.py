"""The pair of desks of the client's tests."""

from test_client.conftest import pair

__all__ = ["pair"]
