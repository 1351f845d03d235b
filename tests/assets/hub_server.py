"""Servers on the loopback interface that answer as the hub, its blob store and plain file servers do, faults included.

What the hub answers is what huggingface_hub 2.4 asks of it for a repository at a commit: the list of its files, page by
page; HEAD and GET of each, with its commit, ETag and size, by way of a redirect (within the hub, or for a file in Git
LFS to a blob store elsewhere); ranges of it. Xet is announced, as the hub does, and not served.
"""

import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath
from typing import NamedTuple

from resalign.config.assets import AssetConfig

PAGE = b"\n<!DOCTYPE html><html><body>Sign in to download</body></html>"
# Of the files that the hub keeps in Git LFS.
LARGE = (".bin", ".onnx", ".parquet", ".safetensors", ".tar", ".zip")


class Asked(NamedTuple):
    """One request."""

    method: str
    path: str
    range: str | None
    authorization: str | None


@dataclass
class Answer:
    """What a path answers in place of its file.

    Attributes:
        status: Of the answer; 200 for a file's own.
        headers: Besides, or in place of, those that the server makes.
        content: Sent in place of the file's; None for its own, or for nothing where the status is not 200.
        cut: Break the connection off after so many bytes of content; HEAD, which has none, is not concerned.
        times: How often it is given, before what the path answers else; None for always.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None
    cut: int | None = None
    times: int | None = None


@dataclass
class Server:
    """What the servers have, what they answer and what they were asked; a path is one without its query.

    Attributes:
        address: Of the hub and of plain files.
        blobs: Of the hub's blob store, which is another host to a client.
        files: Content by path; given with ranges and a strong ETag.
        headers: Further headers of a file, by path.
        redirects: Answers of the hub by path, each with the place of its file.
        faults: What paths answer instead.
        endless: Paths whose answer has no length and no end.
        repositories: Commits of each repository, which is named as its address on the hub is.
        tokens: The token that opens a gated repository.
        page: Entries on each page of a list of files.
        requests: In order.
    """

    address: str = ""
    blobs: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    headers: dict[str, dict[str, str]] = field(default_factory=dict)
    redirects: dict[str, Answer] = field(default_factory=dict)
    faults: dict[str, Answer] = field(default_factory=dict)
    endless: set[str] = field(default_factory=set)
    repositories: dict[str, set[str]] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)
    page: int = 1000
    requests: list[Asked] = field(default_factory=list)

    def publish(self, asset: AssetConfig, files: Mapping[str, bytes]) -> dict[str, str]:
        """Serves a repository of the hub at an asset's commit; gives the path of each file's content."""
        commit, typed = str(asset.revision), f"{asset.repo_type}s/{asset.hub}"
        repository = typed.removeprefix("models/")
        self.repositories.setdefault(repository, set()).add(commit)
        folders = {str(parent) for name in files for parent in PurePosixPath(name).parents} - {"."}
        entries: list[dict[str, object]] = [
            {"type": "directory", "path": name, "oid": "0" * 40, "size": 0} for name in sorted(folders)
        ]
        places = {}
        for name, content in files.items():
            blob, size = git_blob(content), len(content)
            entries.append({"type": "file", "path": name, "size": size, "oid": blob})
            headers = {"X-Repo-Commit": commit, "X-Linked-Size": str(size), "ETag": f'"{blob}"'}
            if name.endswith(LARGE):
                sha = sha256(content)
                entries[-1] |= {"lfs": {"oid": sha, "size": size, "pointerSize": 130}, "xetHash": sha}
                headers |= {"X-Linked-ETag": f'"{sha}"', "X-Xet-Hash": sha}
                headers["Link"] = f'<{self.address}/api/{typed}/xet-read-token/{commit}>; rel="xet-auth"'
                places[name] = f"/{sha}"
                redirect = Answer(302, {**headers, "Location": f"{self.blobs}/{sha}?signature=0"})
            else:
                places[name] = f"/api/resolve-cache/{typed}/{commit}/{name}"
                self.headers[places[name]] = headers
                redirect = Answer(307, {**headers, "Location": places[name]})
            self.files[places[name]] = content
            self.redirects[f"/{repository}/resolve/{commit}/{name}"] = redirect
        self.files[f"/api/{typed}/tree/{commit}"] = json.dumps(entries).encode()
        return places

    def answer(self, method: str, path: str, authorization: str | None) -> Answer:
        """What a path answers; status 200 without content for its file."""
        fault = self.faults.get(path)
        if fault and fault.times != 0 and (method == "GET" or fault.cut is None):
            fault.times = None if fault.times is None else fault.times - 1
            return fault
        asked = re.match(r"/(?:api/(?:models/)?)?((?:datasets/)?[^/]+/[^/]+)/(tree|resolve)/([^/]+)", path)
        if asked and asked[1] in self.tokens and asked[2] == "resolve":
            if authorization != f"Bearer {self.tokens[asked[1]]}":
                return refusal(403 if authorization else 401, "GatedRepo", f"Access to {asked[1]} is restricted.")
        if path in self.files or path in self.redirects:
            return self.redirects.get(path, Answer())
        if not asked:
            return Answer(404)
        if asked[1] not in self.repositories:
            return refusal(404 if authorization else 401, "RepoNotFound", "Invalid username or password.")
        return refusal(404, "EntryNotFound" if asked[3] in self.repositories[asked[1]] else "RevisionNotFound")


def refusal(status: int, code: str = "", message: str = "") -> Answer:
    """A refusal as the hub words it."""
    headers = {"X-Error-Code": code, "X-Error-Message": message}
    return Answer(status, {name: value for name, value in headers.items() if value})


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def git_blob(content: bytes) -> str:
    """The id that Git has for a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def make_handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path, _, query = self.path.partition("?")
            authorization = self.headers.get("Authorization")
            server.requests.append(Asked(self.command, path, self.headers.get("Range"), authorization))
            if path in server.endless:
                return self._send_without_end()
            answer = server.answer(self.command, path, authorization)
            if answer.status != 200 or answer.content is not None:
                return self._send(answer, {}, answer.content or b"")
            self._send_file(path, query, answer)

        do_HEAD = do_GET

        def _send_file(self, path: str, query: str, answer: Answer) -> None:
            content, start = server.files[path], 0
            headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', **server.headers.get(path, {})}
            if "/tree/" in path:
                entries, first = json.loads(content), int(query.partition("cursor=")[2] or 0)
                if first + server.page < len(entries):
                    headers["Link"] = f'<{server.address}{path}?cursor={first + server.page}>; rel="next"'
                content = json.dumps(entries[first : first + server.page]).encode()
            wanted = self.headers.get("Range")
            if wanted and self.headers.get("If-Range", headers["ETag"]) == headers["ETag"]:
                start = int(wanted.removeprefix("bytes=").rstrip("-"))
                if start >= len(content):
                    return self._send(Answer(416), {"Content-Range": f"bytes */{len(content)}"}, b"")
                headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
                answer = Answer(206, answer.headers, cut=answer.cut)
            self._send(answer, headers, content[start:])

        def _send_without_end(self) -> None:
            self.send_response(200)
            self.send_header("Connection", "close")
            self.end_headers()
            with contextlib.suppress(ConnectionError):
                while True:
                    self.wfile.write(bytes(1 << 16))

        def _send(self, answer: Answer, headers: Mapping[str, str], content: bytes) -> None:
            self.send_response(answer.status)
            for name, value in {"Content-Length": str(len(content)), **headers, **answer.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content[: answer.cut])
            if answer.cut is not None or "Content-Length" in answer.headers:
                self.close_connection = True

        def log_message(self, *args: object) -> None:
            pass

    return Handler


@contextlib.contextmanager
def serving() -> Iterator[Server]:
    """The two servers, at work as long as the block runs."""
    server = Server()
    with contextlib.ExitStack() as stack:
        server.address, server.blobs = (stack.enter_context(_listening(make_handler(server))) for _ in range(2))
        yield server


@contextlib.contextmanager
def _listening(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.server_port}"
        finally:
            listening.shutdown()
            thread.join()
