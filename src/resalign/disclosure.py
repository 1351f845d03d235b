"""Finds what must not be published: secrets, which are refused, and paths of this machine, which are shortened.

Sources: the rules of gitleaks 8 (config/gitleaks.toml: aws-access-token, gcp-api-key, generic-api-key, github-*,
gitlab-pat, huggingface-access-token, jwt, openai-api-key, private-key, slack-*); GitHub's documentation, "About
authentication to GitHub", for the prefixes of its tokens; RFC 3986, Section 3.2.1, for passwords in addresses.
Deviation: no measure of entropy; a key by another name than these is not seen.
"""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

ALLOWED = "pragma: allowlist secret"  # on a line that only looks like one; as detect-secrets has it
NAMES = (
    *(".env", ".env.*", ".netrc", "_netrc", ".pgpass", ".pypirc", ".npmrc", ".htpasswd", ".git-credentials"),
    *("id_rsa", "id_dsa", "id_ecdsa", "id_ed25519", "*.pem", "*.key", "*.p12", "*.pfx", "*.kdbx", "*.ppk"),
)
TEMPLATES = (".env.example", ".env.sample", ".env.template")  # names without values, by custom
_KEY_NAMES = "api[_-]?key|access[_-]?key|secret[_-]?key|auth[_-]?token|access[_-]?token|client[_-]?secret|passw(?:or)?d"
_SIGNED = "access_token|token|api_?key|key|sig|signature|x-amz-signature|x-amz-credential|x-goog-signature"
KINDS = {
    "a private key": r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----",
    "a token of the Hugging Face hub": r"\bhf_[A-Za-z0-9]{30,}",
    "a GitHub token": r"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_\w{60,})",
    "a GitLab token": r"\bglpat-[\w-]{20,}",
    "a Slack token": r"\bxox[abeoprs]-[\w-]{10,}",
    "an AWS access key": r"\b(?:A3T[A-Z0-9]|AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}\b",
    "a Google API key": r"\bAIza[\w-]{35}",
    "an OpenAI or Anthropic key": r"\bsk-(?:(?:proj|svcacct|admin|ant)-[\w-]{20,}|[A-Za-z0-9]{40,})",
    "a JSON web token": r"\beyJ[\w-]{17,}\.eyJ[\w-]{17,}\.[\w-]{10,}",
    "a password in an address": r"\b[a-z][a-z0-9+.-]{1,20}://[^\s/:@\"'<>{}$]{1,99}:[^\s/@\"'<>{}$]{3,99}@",
    "a token in an address": rf"(?i:\bhttps?://[^\s\"'<>]{{1,500}}[?&](?:{_SIGNED})=[\w%+/.~-]{{16,}})",
    # The last one: sentences are not held against it.
    # A value is letters with a digit: 'api_key=os.environ[…]' and 'api_key: null' have none.
    "a key or password": rf"(?i:\b(?:\w{{1,40}}_)?(?:{_KEY_NAMES}))[\"']?\s{{0,4}}[:=]\s{{0,4}}[\"']?"
    r"(?=[A-Za-z_+/=.~-]{0,60}\d)[\w+/=.~-]{10,}",
}
_PATTERNS = [f"(?P<k{place}>{pattern})" for place, pattern in enumerate(KINDS.values())]
_SECRET, _SECRET_IN_PROSE = re.compile("|".join(_PATTERNS)), re.compile("|".join(_PATTERNS[:-1]))


def secret_name(path: str) -> bool:
    """Whether files of such a name hold secrets, by custom."""
    name = PurePosixPath(path).name
    return name not in TEMPLATES and any(fnmatch.fnmatchcase(name, pattern) for pattern in NAMES)


def secrets(text: str, *, is_prose: bool = False) -> Iterator[tuple[int, str]]:
    """(number, kind) of each line that holds what looks like a secret; the secret itself is not repeated.

    Args:
        text: Any.
        is_prose: Sentences, in which "password: …" is none; what is a secret by its own form is one there too.
    """
    pattern = _SECRET_IN_PROSE if is_prose else _SECRET
    for number, line in enumerate(text.split("\n"), 1):
        found = pattern.search(line)
        if found and ALLOWED not in line:
            yield number, list(KINDS)[int(str(found.lastgroup)[1:])]


def without_places(text: str, here: Iterable[Path] = ()) -> str:
    """Text in which this machine's folders have no names of their own: ``.`` for each of ``here``, ``~`` for home.

    Args:
        text: Any.
        here: Such as the clone's folder; the working directory is one, unasked.
    """
    known = {str(folder.resolve()): "." for folder in (*here, Path.cwd())} | {str(Path.home()): "~"}
    known |= {json.dumps(folder)[1:-1]: short for folder, short in known.items()}  # as records have it, in ASCII
    for folder, short in sorted(known.items(), key=lambda pair: -len(pair[0])):
        if len(Path(folder).parts) > 1:  # home may be the root itself, in a container
            text = re.sub(rf"(?:(?<![\w.~-])|(?<=\\[nrt])){re.escape(folder)}(?![\w.-])", short, text)
    return text


def values_without_places(values: Any) -> Any:
    """Plain values with their texts as :func:`without_places` has them: in YAML a bare ``~`` would be null."""
    return json.loads(without_places(json.dumps(values)))
