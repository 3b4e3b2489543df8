"""A model hub on loopback: a real HTTP server that speaks the Hugging Face Hub's API as its own library uses it.

It lists a revision's files (``/api/models/<id>/revision/<revision>``, ``/api/models/<id>/tree/<revision>``) and serves
them (``/<id>/resolve/<revision>/<path>``, with ``X-Repo-Commit``, ``ETag``, ``X-Linked-Etag``, ``X-Linked-Size``; Git
LFS files through a redirect to a content network, in ranges). What it is told to do wrong, it does wrong.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, unquote, urlsplit

PIECE = 1 << 16
_LARGE = (".gguf", ".safetensors", ".bin", ".onnx")  # what a repository keeps in Git LFS


@dataclass
class File:
    """One file of a commit, with what the listing says of it."""

    content: bytes
    lfs: bool
    says: dict = field(default_factory=dict)  # fields of the listing to say wrong

    @property
    def git(self) -> str:
        content = b"version https://git-lfs.github.com/spec/v1\n" + self.sha.encode() if self.lfs else self.content
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

    @property
    def sha(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def etag(self) -> str:
        return self.sha if self.lfs else self.git

    def sibling(self, path: str) -> dict:
        lfs = {"sha256": self.sha, "size": len(self.content), "pointerSize": 134}
        listed = {"rfilename": path, "size": len(self.content), "blobId": self.git}
        return listed | ({"lfs": lfs} if self.lfs else {}) | self.says

    def entry(self, path: str) -> dict:
        listed = {"type": "file", "path": path, "size": len(self.content), "oid": self.git}
        return listed | ({"lfs": {"oid": self.sha, "size": len(self.content), "pointerSize": 134}} if self.lfs else {})


@dataclass
class Repository:
    """Commits by their name, and which one each branch or tag stands for."""

    commits: dict[str, dict[str, File]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    card: object = None

    def commit(self, files: dict[str, bytes | File], ref: str = "main") -> str:
        """Add a commit and move ``ref`` to it; returns its name."""
        listed = {
            path: one if isinstance(one, File) else File(one, path.endswith(_LARGE)) for path, one in files.items()
        }
        name = hashlib.sha1(repr(sorted((path, one.etag) for path, one in listed.items())).encode()).hexdigest()
        self.commits[name], self.refs[ref] = listed, name
        return name

    def find(self, revision: str) -> str | None:
        return self.refs.get(revision) or (revision if revision in self.commits else None)


@dataclass
class Seen:
    """One request, and how many bytes of a body went out for it."""

    method: str
    path: str
    headers: dict[str, str]
    sent: int = 0

    @property
    def range(self) -> str:
        return self.headers.get("range", "")


@dataclass
class Misbehaviour:
    """What goes wrong, and how often: ``times`` counts down, and at 0 all is well again."""

    html: bool = False  # a web page with 200, on every path that matches `on`
    body: bytes = b""  # answer with 200, these bytes and `headers`
    status: int = 0  # answer with this status
    code: str = ""  # and this X-Error-Code
    headers: dict[str, str] = field(default_factory=dict)
    cut_after: int = -1  # close the connection after so many bytes of a body
    truncate_to: int = -1  # say, and send, so many bytes only
    swap: bytes | None = None  # send this in place of the file
    no_ranges: bool = False
    shift: int = 0  # send a range that starts so many bytes off
    seconds: float = 0  # before each piece of a body
    then: Callable[[], None] | None = None  # called once, after the first piece of a body
    on: str = "."  # a pattern for the paths that are meant
    times: int = 1 << 30


class Hub:
    """The server. ``url`` is what HF_ENDPOINT should say; ``seen`` is the log of requests."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.seen: list[Seen] = []
        self.wrong = Misbehaviour(times=0)
        self.token = ""
        self.relative = False  # redirect to a path of this server, not to the content network
        self._servers = [_serve(self), _serve(self)]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._servers[0].server_port}"

    @property
    def network(self) -> str:
        """The content network: another origin."""
        return "" if self.relative else f"http://127.0.0.1:{self._servers[1].server_port}"

    def repository(self, name: str, files: dict[str, bytes | File], card: object = None) -> Repository:
        """Make a repository with one commit on main."""
        self.repositories[name] = Repository(card=card)
        self.repositories[name].commit(files)
        return self.repositories[name]

    def gone_out(self) -> int:
        """Bytes of files sent so far."""
        return sum(one.sent for one in self.seen if "/resolve/" in one.path or one.path.startswith("/network/"))

    def amiss(self, path: str) -> Misbehaviour | None:
        """What shall go wrong with this request."""
        if self.wrong.times < 1 or not re.search(self.wrong.on, path):
            return None
        self.wrong.times -= 1
        return self.wrong

    def close(self) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()


@contextmanager
def hub() -> Iterator[Hub]:
    """A hub, for as long as the block lasts."""
    running = Hub()
    try:
        yield running
    finally:
        running.close()


def _serve(hub: Hub) -> ThreadingHTTPServer:
    class Bound(_Handler):
        pass

    Bound.hub = hub
    server = ThreadingHTTPServer(("127.0.0.1", 0), Bound)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    return server


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self.log = Seen(self.command, self.path, {name.lower(): value for name, value in self.headers.items()})
        self.hub.seen.append(self.log)
        self.amiss = self.hub.amiss(self.path)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._answer()

    do_HEAD = do_GET

    def log_message(self, *_) -> None:
        """Nothing on the terminal."""

    def _answer(self) -> None:
        path = urlsplit(self.path).path
        if self.amiss and self.amiss.html:
            return self._send(200, b"<html><body>Sign in</body></html>", {"Content-Type": "text/html"})
        if self.amiss and self.amiss.body:
            return self._send(200, self.amiss.body, self.amiss.headers)
        if self.amiss and self.amiss.status:
            return self._refuse(self.amiss.status, self.amiss.code, self.amiss.headers)
        known = not self.hub.token or self.log.headers.get("authorization") == f"Bearer {self.hub.token}"
        if not known and not path.startswith("/network/"):
            return self._refuse(401, "RepoNotFound")
        if found := re.fullmatch(r"/api/models/(.+?)/(revision|tree)/(.+)", path):
            return self._list(found[1], found[2], unquote(found[3]))
        if found := re.fullmatch(r"/(.+?)/resolve/([^/]+)/(.+)", path):
            return self._resolve(found[1], unquote(found[2]), unquote(found[3]))
        if found := re.fullmatch(r"/network/([0-9a-f]{64})", path):
            return self._content(self._by_sha(found[1]))
        return self._refuse(404, "")

    def _list(self, name: str, how: str, revision: str) -> None:
        repository = self.hub.repositories.get(name)
        commit = repository.find(revision) if repository else None
        if not repository or not commit:
            return self._refuse(404, "RevisionNotFound" if repository else "RepoNotFound")
        files = repository.commits[commit]
        blobs = "blobs" in parse_qs(urlsplit(self.path).query)
        if how == "tree":
            return self._json([one.entry(path) for path, one in files.items()])
        siblings = [one.sibling(path) if blobs else {"rfilename": path} for path, one in files.items()]
        about = {"id": name, "modelId": name, "sha": commit, "private": False, "tags": [], "siblings": siblings}
        return self._json(about | ({"cardData": repository.card} if repository.card is not None else {}))

    def _resolve(self, name: str, revision: str, path: str) -> None:
        repository = self.hub.repositories.get(name)
        commit = repository.find(revision) if repository else None
        if not repository or not commit:
            return self._refuse(404, "RevisionNotFound" if repository else "RepoNotFound")
        one = repository.commits[commit].get(path)
        if not one:
            return self._refuse(404, "EntryNotFound")
        headers = {"X-Repo-Commit": commit, "ETag": f'"{one.etag}"'}
        if not one.lfs:
            return self._content(one, headers)
        headers |= {"X-Linked-Etag": f'"{one.sha}"', "X-Linked-Size": str(len(one.content))}
        return self._send(302, b"", headers | {"Location": f"{self.hub.network}/network/{quote(one.sha)}"})

    def _by_sha(self, sha: str) -> File:
        every = (files for repository in self.hub.repositories.values() for files in repository.commits.values())
        return next(one for files in every for one in files.values() if one.sha == sha)

    def _content(self, one: File, headers: dict[str, str] | None = None) -> None:
        content = one.content if not self.amiss or self.amiss.swap is None else self.amiss.swap
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.log.range)
        headers = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes"} | (headers or {})
        if not asked or (self.amiss and self.amiss.no_ranges):
            return self._send(200, content, headers)
        start = int(asked[1]) + (self.amiss.shift if self.amiss else 0)
        end = min(int(asked[2] or len(content)) + 1, len(content))
        if start >= len(content):
            return self._send(416, b"", {"Content-Range": f"bytes */{len(content)}"})
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(content)}"
        return self._send(206, content[start:end], headers)

    def _json(self, document: object) -> None:
        self._send(200, json.dumps(document).encode(), {"Content-Type": "application/json"})

    def _refuse(self, status: int, code: str, headers: dict[str, str] | None = None) -> None:
        said = {"X-Error-Code": code, "X-Error-Message": code} if code else {}
        self._send(status, json.dumps({"error": code or "no"}).encode(), said | (headers or {}))

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        amiss = self.amiss if status in (200, 206) else None
        body = body[: amiss.truncate_to] if amiss and amiss.truncate_to >= 0 else body
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        for start in range(0, len(body), PIECE):
            if amiss and 0 <= amiss.cut_after <= start:
                self.close_connection = True
                return self.connection.shutdown(2)
            time.sleep(amiss.seconds if amiss else 0)
            self.wfile.write(body[start : start + PIECE])
            self.log.sent += len(body[start : start + PIECE])
            if amiss and amiss.then:
                amiss.then, then = None, amiss.then
                then()
