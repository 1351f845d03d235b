"""The paper's configuration in small on the test's cluster: its stages, requests and assets, one row and one attack."""

from pathlib import Path

import yaml

from resalign.config.strict import read_yaml
from tests.assets.hub_server import Server
from tests.assets.paper_run import CATALOGUE, CONFIG, REDUCED, ROOT, taken, write_small
from tests.assets.shapes import pinned, serve, write_shape

from .cluster import Cluster
from .grid import Grid, copy_of_the_repository

ROW = "safegen"  # which trains on images that the base model generates
# As little as shows every kind of job: each has its start to pay for.
KEPT = {
    "attacks": ("dreambench",),
    "prompts": ("i2p", "coco"),
    "scorers": ("nudenet", "q16", "inception"),
    "metrics": ("ip", "fid", "learnability"),
    "prepared": ("forget-images", "retain-images", "dreambench-images", "coco-reference"),
}
# A cluster whose GPUs stand in a partition of their own, as SNAKEMAKE_SLURM_PARTITIONS has it.
PARTITIONS = {"batch": {"max_gpu": 0}, "gpu": {"max_gpu": 1}}


def paper_grid(folder: Path, cluster: Cluster, server: Server) -> Grid:
    """A working copy whose assets the server has; what its jobs ask for is the configuration's, but for the cores."""
    copy_of_the_repository(folder)
    catalogue = read_yaml(ROOT / CATALOGUE)
    for name in taken():
        made = write_shape(name, folder.parent / "made" / name)
        catalogue[name] = serve(server, pinned(catalogue[name], made), made)
    write_small(folder, catalogue, [ROW])
    values = read_yaml(folder / REDUCED)
    for family, kept in KEPT.items():
        values[family] = {name: values[family][name] for name in kept}
    concept = values["concept"]
    concept |= {"pool": concept["forget"], "prior": None}  # of which the row makes no use
    asked = read_yaml(ROOT / CONFIG)["resources"]
    values["resources"] = {stage: {**of, "device": "cpu", "threads": 1} for stage, of in asked.items()}
    (folder / REDUCED).write_text(yaml.safe_dump(values, sort_keys=False))
    (folder / "partitions.yaml").write_text(yaml.safe_dump({"partitions": PARTITIONS}))
    variables = {
        "HF_ENDPOINT": server.address,
        "HF_HUB_OFFLINE": "0",
        "SNAKEMAKE_SLURM_PARTITIONS": str(folder / "partitions.yaml"),
        # The network holds the loopback server alone.
        **dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9"),
        "no_proxy": "127.0.0.1",
    }
    return Grid(folder, cluster, REDUCED, variables)
