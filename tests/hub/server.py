"""A small model hub on the loopback interface: what `huggingface_hub` asks for, with faults on demand."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_a_token_that_nobody_may_see"
USER = "me"


@dataclass
class Repository:
    """The files of each commit, the newest last."""

    private: bool
    commits: list[tuple[str, str, dict[str, bytes]]] = field(default_factory=list)

    @property
    def files(self) -> dict[str, bytes]:
        return self.commits[-1][2]

    @property
    def messages(self) -> list[str]:
        return [message for _, message, _ in self.commits[1:]]

    def commit(self, message: str, files: dict[str, bytes]) -> str:
        oid = hashlib.sha1(f"{len(self.commits)} {message}".encode()).hexdigest()
        self.commits.append((oid, message, files))
        return oid

    def at(self, revision: str) -> tuple[str, dict[str, bytes]]:
        found = [(oid, files) for oid, _, files in self.commits if revision in ("main", oid)]
        return found[-1]


@dataclass
class Fault:
    """Answers requests like `POST .../commit/main` with a status, or by cutting the connection (status None)."""

    request: str
    status: int | None
    times: float = float("inf")


class HubServer(ThreadingHTTPServer):
    """Start it with `with HubServer() as hub`; the client finds it by `hub.environment()`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.faults: list[Fault] = []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def __enter__(self) -> HubServer:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def fail(self, request: str, status: int | None, times: float = float("inf")) -> None:
        """Let requests fail whose method and path match the pattern, that many times."""
        self.faults.append(Fault(request, status, times))

    def count(self, request: str) -> int:
        """How many requests matched the pattern."""
        return sum(re.search(request, line) is not None for line in self.requests)

    def environment(self, home: Any, token: str | None = TOKEN) -> dict[str, str]:
        """Environment variables that lead a client here."""
        known = {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_OFFLINE": "0",
            "NO_PROXY": "127.0.0.1",
        }
        return known | ({} if token is None else {"HF_TOKEN": token})


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubServer

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PUT = do_GET

    def _answer(self) -> None:
        self.path = unquote(urlsplit(self.path).path)
        line = f"{self.command} {self.path}"
        with self.server.lock:
            self.server.requests.append(line)
            fault = next((f for f in self.server.faults if f.times > 0 and re.search(f.request, line)), None)
            if fault is not None:
                fault.times -= 1
        if fault is not None and fault.status is None:
            return self._cut()
        body = self._body()
        if fault is not None:
            return self._send(fault.status, {"error": "a fault of the test"})
        for pattern, answer in _ROUTES:
            match = re.fullmatch(pattern, line)
            if match:
                return answer(self, body, *match.groups())
        return self._send(404, {"error": f"no route for {line}"})

    def _cut(self) -> None:
        # A part of what comes is read, so that the client is in the middle of its upload.
        self.rfile.read1(64)
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _send(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    # ---- What is asked for ----

    def _known(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _visible(self, name: str) -> Repository | None:
        """The repository; where there is none to see, that is the answer."""
        repository = self.server.repositories.get(name)
        if repository is None or (repository.private and not self._known()):
            self._send(404 if self._known() else 401, {}, {"X-Error-Code": "RepoNotFound"})
            return None
        return repository

    def _writable(self, name: str) -> Repository | None:
        if self._known():
            return self._visible(name)
        self._send(401, {"error": "Invalid username or password."})
        return None

    def create(self, body: bytes) -> None:
        asked = json.loads(body)
        if not self._known():
            return self._send(401, {"error": "Invalid username or password."})
        name = f"{asked.get('organization') or USER}/{asked['name']}"
        answer = {"url": f"{self.server.url}/{name}", "name": name}
        if name in self.server.repositories:
            return self._send(409, {**answer, "error": "You already created this model repo"})
        repository = Repository(private=asked.get("visibility") == "private" or asked.get("private") is True)
        repository.commit("initial commit", {".gitattributes": b"*.safetensors filter=lfs\n"})
        self.server.repositories[name] = repository
        return self._send(200, answer)

    def validate(self, body: bytes) -> None:
        self._send(200, {"errors": [], "warnings": []})

    def preupload(self, body: bytes, name: str, revision: str) -> None:
        if self._writable(name) is None:
            return
        answers = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith((".safetensors", ".bin", ".pt", ".pth")) else "regular",
                "shouldIgnore": False,
                "oid": None,
            }
            for file in json.loads(body)["files"]
        ]
        self._send(200, {"files": answers})

    def batch(self, body: bytes, name: str) -> None:
        if self._writable(name) is None:
            return
        objects = []
        for wanted in json.loads(body)["objects"]:
            entry = {"oid": wanted["oid"], "size": wanted["size"]}
            # Of an object that is here already nothing is wanted.
            if wanted["oid"] not in self.server.objects:
                actions = {
                    "upload": {"href": f"{self.server.url}/lfs/{wanted['oid']}"},
                    "verify": {"href": f"{self.server.url}/lfs-verify/{wanted['oid']}"},
                }
                entry["actions"] = actions
            objects.append(entry)
        self._send(200, {"transfer": "basic", "objects": objects})

    def receive(self, body: bytes, oid: str) -> None:
        if hashlib.sha256(body).hexdigest() != oid:
            return self._send(400, {"error": "the content has another hash"})
        self.server.objects[oid] = body
        return self._send(200, {})

    def verify(self, body: bytes, oid: str) -> None:
        found = len(self.server.objects.get(oid, b"")) == json.loads(body)["size"]
        self._send(200 if found else 404, {})

    def commit(self, body: bytes, name: str, revision: str) -> None:
        repository = self._writable(name)
        if repository is None:
            return
        lines = [json.loads(line) for line in body.splitlines() if line]
        files, summary = dict(repository.files), ""
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                summary = value["summary"]
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.objects[value["oid"]]
            else:
                return self._send(400, {"error": f"no operation {line['key']}"})
        oid = repository.commit(summary, files)
        url = f"{self.server.url}/{name}/commit/{oid}"
        return self._send(200, {"success": True, "commitOid": oid, "commitUrl": url})

    def info(self, body: bytes, name: str, revision: str | None = None) -> None:
        repository = self._visible(name)
        if repository is not None:
            oid, files = repository.at(revision or "main")
            siblings = [{"rfilename": path} for path in files]
            known = {"id": name, "modelId": name, "sha": oid, "private": repository.private, "tags": []}
            self._send(200, {**known, "siblings": siblings})

    def tree(self, body: bytes, name: str, revision: str) -> None:
        repository = self._visible(name)
        if repository is not None:
            _, files = repository.at(revision)
            entries = [
                {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for path, content in files.items()
            ]
            self._send(200, entries)

    def resolve(self, body: bytes, name: str, revision: str, path: str) -> None:
        repository = self._visible(name)
        if repository is None:
            return
        oid, files = repository.at(revision)
        if path not in files:
            return self._send(404, {}, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": oid})
        etag = f'"{hashlib.sha256(files[path]).hexdigest()}"'
        return self._send(200, files[path], {"ETag": etag, "X-Repo-Commit": oid})


_NAME = r"([\w.-]+/[\w.-]+)"
_ROUTES = (
    (r"POST /api/repos/create", _Handler.create),
    (r"POST /api/validate-yaml", _Handler.validate),
    (rf"POST /api/models/{_NAME}/preupload/(.+)", _Handler.preupload),
    (rf"POST /{_NAME}\.git/info/lfs/objects/batch", _Handler.batch),
    (r"PUT /lfs/(\w+)", _Handler.receive),
    (r"POST /lfs-verify/(\w+)", _Handler.verify),
    (rf"POST /api/models/{_NAME}/commit/(.+)", _Handler.commit),
    (rf"GET /api/models/{_NAME}", _Handler.info),
    (rf"GET /api/models/{_NAME}/revision/(.+)", _Handler.info),
    (rf"GET /api/models/{_NAME}/tree/([^/]+)", _Handler.tree),
    (rf"(?:GET|HEAD) /{_NAME}/resolve/([^/]+)/(.+)", _Handler.resolve),
)
