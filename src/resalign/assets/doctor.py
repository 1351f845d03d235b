"""Lists what an experiment lacks before it can run: each missing asset with its remedy, and this machine's limits."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from resalign.assets.source import MIRROR_ROOT, Source
from resalign.config.assets import FETCHED, TERMS, AssetConfig, described, read_catalogue
from resalign.config.plan import RESULTS, Plan
from resalign.running import devices

TOKEN = "HF_TOKEN"
# [ResAlign, Section 4.1]: unlearning at 512 pixels on one A100.
PAPERS_GPU_GB, PAPERS_PIXELS = 56, 512
# An archive lies beside the images that are prepared from it.
DISK_FACTOR = 2
GB = 1e9
_WITHOUT_GPU = "run on a cluster (--profile slurm), or set resources.<stage>.device: auto, or cpu, which is far slower"


@dataclass(frozen=True)
class Need:
    """One asset of an experiment.

    Attributes:
        name: Its name.
        asset: What is known of it.
        state: ``here``, ``in the mirror``, ``to be fetched``, or why it cannot be fetched.
        remedy: What a person must do; empty if nothing.
        is_blocked: Whether it cannot be fetched before that is done.
    """

    name: str
    asset: AssetConfig
    state: str
    remedy: str = ""
    is_blocked: bool = False

    @property
    def size_bytes(self) -> int | None:
        """Its size, where known."""
        return Source(self.name, self.asset).entry.size_bytes

    @property
    def is_missing(self) -> bool:
        """Whether it must still come from somewhere."""
        return self.state != "here"

    @property
    def line(self) -> str:
        """One line: the asset's state, size, licence and remedy."""
        if self.asset.origin == "path":  # the user's own: nobody else knows its size or licence
            return f"{self.name}: {self.state}; {self.remedy}"
        size = f"{self.size_bytes / GB:.2f} GB" if self.size_bytes else "size not stated"
        origin = Source(self.name, self.asset).origin
        what = f"{self.name}: {self.state} ({size}, licence: {self.asset.licence or 'not stated'}) from {origin}"
        return f"{what}; {self.remedy}" if self.remedy else what


def needs_of(plan: Plan, environment: Mapping[str, str] = os.environ) -> list[Need]:
    """Every asset that an experiment takes from outside, in the configuration's order."""
    assets = plan.experiment.config.assets
    needs = []
    for name, asset in assets.items():
        if asset.origin in FETCHED:
            is_here = Path(plan.assets[name].folder, "run.json").is_file()
            needs.append(Need(name, asset, "here") if is_here else need_of(name, asset, environment))
        elif asset.path is not None:
            remedy = f"put it there; {asset.note}".rstrip("; ")
            missing = Need(name, asset, f"no '{asset.path}'", remedy, is_blocked=True)
            needs.append(Need(name, asset, "here") if Path(asset.path).exists() else missing)
    return needs


def need_of(name: str, asset: AssetConfig, environment: Mapping[str, str] = os.environ) -> Need:
    """An asset that is not here."""
    asset = described(name, asset)
    source = Source(name, asset)
    root = environment.get(MIRROR_ROOT)
    if root and (Path(root) / source.mirror).is_dir():
        return Need(name, asset, "in the mirror")
    files = ", ".join(asset.files) or "its files"
    mirrors, access = source.entry.mirrors, source.entry.access
    by_hand = f"put {files} into ${MIRROR_ROOT}/{source.mirror}/"
    by_hand += f" (other places: {', '.join(mirrors)})" if mirrors else ""
    by_hand += f"; {asset.note}" if asset.note else ""
    if access == "not-public":
        return Need(name, asset, "not public", f"make it yourself and {by_hand}", is_blocked=True)
    if access == "removed":
        return Need(name, asset, "removed", f"find a copy and {by_hand}", is_blocked=True)
    if asset.manual:
        return Need(name, asset, "by hand", f"open that page and {by_hand}", is_blocked=True)
    if access == "gated":
        accepted = "then" if has_token(environment) else f"set {TOKEN}, then"
        remedy = f"accept its terms at huggingface.co/{asset.hub}, {accepted} it is fetched"
        return Need(name, asset, "gated", remedy, is_blocked=not has_token(environment))
    return Need(name, asset, "to be fetched")


def has_token(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the hub's library has a token: the variable's, or that of ``hf auth login``."""
    from huggingface_hub import constants

    return bool(environment.get(TOKEN)) or Path(constants.HF_TOKEN_PATH).is_file()


def missing_lines(plan: Plan) -> list[str]:
    """A line for each asset that is not here; see :attr:`Need.line`."""
    return [need.line for need in needs_of(plan) if need.is_missing]


def cuda_stages(plan: Plan) -> list[str]:
    """Stages that run on a GPU or not at all."""
    stages = ("unlearn", "attack", "sample", "score")
    return [stage for stage in stages if plan.experiment.resources(stage).device == "cuda"]


def gpu_line(plan: Plan) -> str | None:
    """One line if stages need a GPU and none is visible, else None."""
    stages = cuda_stages(plan)
    try:
        if not stages or devices.visible():
            return None
    except devices.DeviceError as error:  # a driver that does not answer
        return str(error)
    return f"{devices.none_visible()}, and one is asked for by {', '.join(stages)} (device: cuda); {_WITHOUT_GPU}"


def table_lines(here: Iterable[str], environment: Mapping[str, str] = os.environ) -> list[list[str]]:
    """For each published table: assets that it needs, how many are missing, their size, and which cannot be fetched.

    Args:
        here: Names of the assets that have been fetched.
        environment: Variables that name mirror and token.
    """
    rows = [["table", "assets", "missing", "GB, at least", "consent", "cannot be fetched"]]
    for table, needs in _by_table(here, environment).items():
        missing = [need for need in needs if need.is_missing]
        size = sum(need.size_bytes or 0 for need in missing) / GB
        terms = sorted({term for need in needs for term in need.asset.terms})
        blocked = ", ".join(need.name for need in needs if need.is_blocked)
        rows.append([table, str(len(needs)), str(len(missing)), f"{size:.1f}", ", ".join(terms), blocked])
    return rows


def _by_table(here: Iterable[str], environment: Mapping[str, str]) -> dict[str, list[Need]]:
    """The catalogue's assets by the published table that needs them."""
    by_table: dict[str, list[Need]] = {}
    fetched = set(here)
    for name, entry in read_catalogue().items():
        if entry.origin in FETCHED:
            need = Need(name, entry, "here") if name in fetched else need_of(name, entry, environment)
            for table in entry.tables:
                by_table.setdefault(table, []).append(need)
    return dict(sorted(by_table.items()))


def fetched_names(results: Path = Path(RESULTS)) -> list[str]:
    """Names of the assets that any experiment has fetched here."""
    return [path.parent.name.rpartition("-")[0] for path in sorted((results / "assets").glob("*/run.json"))]


def machine_lines(plan: Plan, needs: list[Need], environment: Mapping[str, str] = os.environ) -> list[str]:
    """One line each on GPU, disk and tokens; a line begins with ``LACKING`` if they do not suffice."""
    stages = cuda_stages(plan)
    gpus, lines = _gpus(), []
    largest = max((gigabytes for _, gigabytes in gpus), default=0.0)
    listed = ", ".join(f"{name} ({gigabytes:.0f} GB)" for name, gigabytes in gpus) or "none"
    kept = not plan.experiment.resources("unlearn").gradient_checkpointing
    needed_gb = PAPERS_GPU_GB if kept and plan.experiment.config.pixels >= PAPERS_PIXELS else 0
    if stages and not gpus:
        lines.append(f"LACKING a GPU, which {', '.join(stages)} ask for; {_WITHOUT_GPU}")
    elif stages and largest < needed_gb:
        remedy = "set resources.unlearn.gradient_checkpointing: true, and leave out rows that train all weights"
        lines.append(f"LACKING GPU memory: {listed}; the paper's unlearning took {needed_gb} GB; {remedy}")
    else:
        lines.append(f"GPU: {listed}" + ("" if stages else "; this experiment asks for none"))
    known = sum(need.size_bytes or 0 for need in needs if need.is_missing) / GB
    needed, free = DISK_FACTOR * known, shutil.disk_usage(Path.cwd()).free / GB
    unknown = sum(need.is_missing and need.size_bytes is None for need in needs)
    disk = f"disk: {free:.1f} GB free"
    if known or unknown:
        disk += f"; {known:.1f} GB are missing, and {needed:.1f} GB needed while archives lie beside their contents"
        disk += f"; the sizes of {unknown} missing assets are not known" if unknown else ""
    lines.append(("LACKING " if free < needed else "") + f"{disk}; for images and weights: make costs")
    gated = [need.name for need in needs if need.is_missing and Source(need.name, need.asset).entry.access == "gated"]
    if gated and not has_token(environment):
        lines.append(f"LACKING {TOKEN}, a token of the hub, for {', '.join(gated)}")
    else:
        lines.append(f"{TOKEN}: {'set' if environment.get(TOKEN) else 'not set, and not needed'}")
    root = environment.get(MIRROR_ROOT)
    if root and not Path(root).is_dir():
        lines.append(f"LACKING the folder '{root}' that {MIRROR_ROOT} names")
    else:
        unset = "not set; for files from elsewhere make a folder, put each asset's files into NAME/REVISION/ in it, or "
        unset += "NAME/SHA256/, and set this to the folder (docs/running.md)"
        lines.append(f"{MIRROR_ROOT}: {root or unset}")
    return [*lines, *(f"consent given: {term} ({TERMS[term]})" for term in plan.experiment.config.consent)]


def _gpus() -> list[tuple[str, float]]:
    """Model and GB of each GPU of this host."""
    query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        listed = subprocess.run(query, capture_output=True, text=True, check=False, timeout=60)
    except FileNotFoundError:
        return []
    if listed.returncode:
        return []
    rows = [line.rsplit(",", 1) for line in listed.stdout.splitlines() if "," in line]
    return [(name.strip(), float(mebibytes) * 2**20 / GB) for name, mebibytes in rows if mebibytes.strip().isdigit()]
