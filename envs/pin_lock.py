"""Writes the lock's sha256 into the conda environment's post-deploy script: a changed lock makes a new environment."""

import hashlib
import re
from pathlib import Path

ENVS = Path(__file__).resolve().parent


def main() -> None:
    """Rewrites one line; `make lock` runs this, and tests/test_environments.py holds the files in sync."""
    script = ENVS / "resalign.post-deploy.sh"
    sha256 = hashlib.sha256((ENVS / "requirements.lock").read_bytes()).hexdigest()
    script.write_text(re.sub(r"(?m)^lock_sha256=.*$", f"lock_sha256={sha256}", script.read_text()))


if __name__ == "__main__":
    main()
