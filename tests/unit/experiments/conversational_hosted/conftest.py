"""A server that speaks the fine-tuning API, with its key in the environment."""

import pytest
from hosted_server import KEY, VARIABLE, FakeService


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv(VARIABLE, KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    service = FakeService()
    yield service
    service.close()
