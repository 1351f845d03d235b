"""Settings files, changed in place."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any


def edit_json(file: Path, *, without: Collection[str] = (), **settings: Any) -> None:
    """Other settings in a JSON file, which is made anew: a key ``a__b`` stands within ``a``; ``without`` leaves out."""
    found = json.loads(file.read_text()) if file.is_file() else {}
    for key, value in settings.items():
        *parents, last = [key] if key.startswith("_") else key.split("__")
        place = found
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    file.unlink(missing_ok=True)  # it may be a link to a file that others read
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({key: value for key, value in found.items() if key not in without}))
