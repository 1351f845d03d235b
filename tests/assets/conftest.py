"""The loopback servers, and the hub's client turned to them."""

from collections.abc import Iterator

import pytest

from .hub_server import Server, serving


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Asked without a proxy, whatever the machine's settings are."""
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    with serving() as state:
        yield state


@pytest.fixture
def hub(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The hub of huggingface_hub in this process, which has read HF_ENDPOINT and HF_HUB_OFFLINE when it was loaded."""
    from huggingface_hub import close_session, constants

    close_session()  # whose proxies are those of an earlier test
    address = server.address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", server.address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address)
    for name in ("HF_HUB_OFFLINE", "HF_HUB_DISABLE_XET", "HF_HUB_DISABLE_TELEMETRY"):  # fetch sets the latter two
        monkeypatch.setattr(constants, name, False)
    yield server
    close_session()
