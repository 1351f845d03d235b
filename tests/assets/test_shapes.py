"""Every asset of the catalogue that a program can fetch, from a server that has it as its publishers do."""

from pathlib import Path
from typing import Any

import pytest

from resalign.assets.fetch import fetch
from resalign.assets.source import RemovedError
from resalign.config.assets import CATALOGUE, CatalogueEntry
from resalign.config.strict import read_yaml
from resalign.diffusion.loaded_pipeline import check_pipeline_folder
from tests.data.pictures import names
from tests.refusals import told

from .hub_server import Server
from .shapes import pinned, serve, write_shape

ENTRIES: dict[str, dict[str, Any]] = {
    name: entry for name, entry in read_yaml(CATALOGUE).items() if "hub" in entry or "url" in entry
}
PIPELINES = ("sd-v1-4", "sd-v1-5", "sd-v2-1", "sd-v2-1-base", "sdxl-base", "sd3-medium")

QUICKLY = [pytest.param(name, marks=[pytest.mark.slow] if name in PIPELINES[1:] else []) for name in ENTRIES]


@pytest.mark.parametrize("name", QUICKLY)
def test_an_asset_is_fetched_in_its_published_shape(tmp_path: Path, hub: Server, name: str) -> None:
    made = write_shape(name, tmp_path / "made")
    entry = CatalogueEntry.parse(serve(hub, pinned(ENTRIES[name], made), made), where=name)
    hashes = fetch(name, entry, tmp_path / "fetched", locks=tmp_path / "locks")
    assert sorted(hashes) == names(made)
    for file in hashes:
        assert (tmp_path / "fetched" / file).read_bytes() == (made / file).read_bytes(), file
    if name in PIPELINES:
        check_pipeline_folder(tmp_path / "fetched")


@pytest.mark.parametrize("name", ENTRIES)
def test_an_asset_that_is_gone_is_named(tmp_path: Path, hub: Server, name: str) -> None:
    nothing = tmp_path / "nothing"
    nothing.mkdir()
    entry = ENTRIES[name] if "hub" in ENTRIES[name] else serve(hub, ENTRIES[name], nothing)
    hub.files.clear()
    asset = CatalogueEntry.parse(entry, where=name)
    message = told(lambda: fetch(name, asset, tmp_path / "asset"), f"asset '{name}' (", "look for", kind=RemovedError)
    assert all(table in message for table in asset.tables)
    assert names(tmp_path / "asset") == []
