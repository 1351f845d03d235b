"""Writes the conda environment of every stage from one template.

Snakemake hashes an environment's files by content, so stages whose files are equal share one environment on disk.
`make lock` runs this after the lock is renewed; tests/test_environments.py holds the written files in sync.
"""

import hashlib
from pathlib import Path

STAGES = ("data", "unlearn", "attack", "sample", "score", "report")
ENVS = Path(__file__).resolve().parent


def render_environments() -> dict[str, str]:
    """Returns the text of every generated file by its name."""
    lock_sha256 = hashlib.sha256((ENVS / "requirements.lock").read_bytes()).hexdigest()
    environment = (ENVS / "template.yaml").read_text()
    post_deploy = (ENVS / "template.post-deploy.sh").read_text().replace("@LOCK_SHA256@", lock_sha256)
    return {
        name: text
        for stage in STAGES
        for name, text in ((f"{stage}.yaml", environment), (f"{stage}.post-deploy.sh", post_deploy))
    }


def main() -> None:
    """Writes the files beside this one."""
    for name, text in render_environments().items():
        (ENVS / name).write_text(text)


if __name__ == "__main__":
    main()
