"""A hub on the loopback interface: as much of the protocol as fetching a model needs, and faults on demand."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote


def commit_of(revision: str) -> str:
    return hashlib.sha1(revision.encode()).hexdigest()


@dataclass
class Hub:
    """Serves one repository; a context manager, listening while it is entered.

    files: contents by path. revisions: the branches and tags there are. token: the only one that may read weights; None
    for everyone. gated: whether the rest are told to accept a licence. drops: how many answers break off after half the
    bytes; if -1, every one before the first. down: no answer but 503. corrupted: contents sent instead of those that the
    hashes are of. asked: method, path and Range of each request.
    """

    files: dict[str, bytes]
    repo: str = "lab/tiny"
    revisions: tuple[str, ...] = ("main",)
    token: str | None = None
    gated: bool = False
    drops: int = 0
    down: bool = False
    corrupted: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)

    def __enter__(self) -> Hub:
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=lambda: self._server.serve_forever(0.01), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def fetched(self) -> list[str]:
        """The files whose contents were asked for, in order."""
        return [path.rsplit("/", 1)[1] for method, path, _ in self.asked if method == "GET" and "/resolve/" in path]

    @property
    def ranges(self) -> list[str]:
        return [span for *_, span in self.asked if span]


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        hub, path = self.hub, unquote(self.path.partition("?")[0])
        hub.asked.append((self.command, path, self.headers.get("Range")))
        if hub.down:
            self.close_connection = True
            return self.send(503, b"out of order")
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/(revision|tree)/(.+)", path):
            repo, kind, revision = match.groups()
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/(resolve)/([^/]+)/(.+)", path):
            repo, kind, revision, name = match.groups()
        else:
            return self.send(404, b"")
        if repo != hub.repo:
            return self.refuse(401 if "authorization" not in self.headers else 404, "RepoNotFound")
        commits = {commit_of(one): one for one in hub.revisions}
        if revision not in (*hub.revisions, *commits):
            return self.refuse(404, "RevisionNotFound")
        commit = revision if revision in commits else commit_of(revision)
        if kind == "resolve":
            return self.send_file(name, commit)
        found = (
            {"id": repo, "sha": commit, "siblings": []}
            if kind == "revision"
            else [
                {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest(), **self.lfs(name)}
                for name, data in hub.files.items()
            ]
        )
        self.send(200, json.dumps(found).encode(), {"Content-Type": "application/json"})

    def lfs(self, name: str) -> dict:
        data = self.hub.files[name]
        large = name.endswith((".safetensors", ".bin"))
        pointer = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
        return {"lfs": pointer} if large else {}

    def send_file(self, name: str, commit: str) -> None:
        hub, sent = self.hub, self.headers.get("Authorization")
        if hub.token and sent != f"Bearer {hub.token}":
            if hub.gated:
                return self.refuse(401, "GatedRepo")
            return self.refuse(401, "", "Invalid credentials in Authorization header")
        if name not in hub.files:
            return self.refuse(404, "EntryNotFound")
        data, lfs = hub.corrupted.get(name, hub.files[name]), self.lfs(name).get("lfs", {})
        headers = {
            "X-Repo-Commit": commit,
            "ETag": f'"{lfs.get("oid", hashlib.sha1(hub.files[name]).hexdigest())}"',
            "Accept-Ranges": "bytes",
        }
        if lfs:
            headers |= {"X-Linked-Etag": f'"{lfs["oid"]}"', "X-Linked-Size": str(lfs["size"])}
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").split("-")[0])
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self.send(206 if start else 200, data[start:], headers, may_drop=bool(lfs))

    def refuse(self, status: int, code: str, message: str = "") -> None:
        self.send(status, b"", {"X-Error-Code": code, "X-Error-Message": message})

    def send(self, status: int, body: bytes, headers: dict[str, str] | None = None, may_drop: bool = False) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if may_drop and self.hub.drops:
            self.hub.drops -= 1
            body, self.close_connection = body[: len(body) // 2 if self.hub.drops >= 0 else 0], True
        self.wfile.write(body)
