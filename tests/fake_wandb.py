"""A W&B server for the loopback: enough of its GraphQL and file-stream interface for real clients to log a run.

It keeps what clients send, and misbehaves on demand, so that tests can show what a sick server does to a training run.
"""

import gzip
import json
import re
import socket
import struct
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

API_KEY = "0123456789abcdef0123456789abcdef01234567"


class FakeWandb:
    """`with FakeWandb() as server:` listens on `server.url` until the block ends.

    behaviour: `ok`; an HTTP status as an int (every request fails with it); `hang` (requests are read, never answered);
    `reset` (the connection is cut off in their place); `slow` (a byte of the answer every fifth of a second).
    """

    def __init__(self, behaviour: str | int = "ok"):
        self.behaviour = behaviour
        self.requests: list[tuple[str, str, bytes]] = []  # method, path, body
        self.runs: dict[str, dict[str, Any]] = {}  # run id -> variables of UpsertBucket
        self.streams: dict[str, dict[str, list[str]]] = {}  # run id -> file name -> lines
        self.exit_codes: dict[str, int] = {}
        self.artifacts: dict[str, dict[str, Any]] = {}  # name -> type, state
        self._released = threading.Event()
        handler = type("Handler", (_Handler,), {"fake": self})
        self._server = _QuietServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "FakeWandb":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._released.set()
        self._server.shutdown()
        self._server.server_close()

    def environment(self) -> dict[str, str]:
        """What a client's environment needs so that it talks to this server."""
        return {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": API_KEY}

    def history(self, run_id: str) -> list[dict[str, Any]]:
        """The history rows of a run in the order of arrival."""
        return [json.loads(line) for line in self.streams.get(run_id, {}).get("wandb-history.jsonl", [])]

    def config(self, run_id: str) -> dict[str, Any]:
        """The config of a run as the server shows it."""
        config = json.loads(self.runs[run_id].get("config") or "{}")
        return {key: entry["value"] for key, entry in config.items() if key != "_wandb"}

    def wait_for_release(self) -> None:
        """Blocks the calling request until the server closes."""
        self._released.wait()

    def waits(self, seconds: float) -> bool:
        """Waits so long; whether the server closed meanwhile."""
        return self._released.wait(seconds)

    def graphql(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        """The answer to one GraphQL request."""
        match = re.search(r"(?:query|mutation)\s+(\w+)", query)
        operation = match.group(1) if match else ""
        answers = {
            "ServerFeaturesQuery": lambda _: {"serverInfo": {"features": []}},
            "Viewer": self._viewer,
            "UpsertBucket": self._upsert,
            "RunResumeStatus": self._resume_status,
            "CreateRunFiles": self._create_files,
            "ArtifactType": lambda _: {"project": {"artifact": None}},
            "ClientIDMapping": lambda _: {"clientIDMapping": None},
            "CreateArtifact": self._create_artifact,
            "CreateArtifactManifest": self._create_manifest,
            "CreateArtifactFiles": self._create_artifact_files,
            "CommitArtifact": self._commit_artifact,
        }
        return {"data": answers.get(operation, lambda _: {})(variables.get("input") or variables)}

    def stream(self, run_id: str, message: dict[str, Any]) -> None:
        """Takes one file-stream message: appended lines, and at the end the exit code."""
        files = self.streams.setdefault(run_id, {})
        for name, chunk in (message.get("files") or {}).items():
            lines = files.setdefault(name, [])
            del lines[chunk.get("offset", len(lines)) :]
            lines.extend(chunk.get("content") or [])
        if message.get("complete"):
            self.exit_codes[run_id] = message["exitcode"]

    def _viewer(self, _variables: dict[str, Any]) -> dict[str, Any]:
        user = {"id": "u", "entity": "me", "username": "me", "flags": "{}", "teams": {"edges": []}}
        return {"viewer": user}

    def _upsert(self, variables: dict[str, Any]) -> dict[str, Any]:
        run_id = variables.get("name") or variables["id"]
        inserted = run_id not in self.runs
        run = self.runs.setdefault(run_id, {})
        run.update({key: value for key, value in variables.items() if value is not None})
        bucket = {
            "id": run_id,
            "name": run_id,
            "displayName": run.get("displayName", run_id),
            "description": "",
            "config": run.get("config", "{}"),
            "sweepName": None,
            "historyLineCount": len(self.history(run_id)),
            **self._project(run),
        }
        return {"upsertBucket": {"inserted": inserted, "bucket": bucket}}

    def _resume_status(self, variables: dict[str, Any]) -> dict[str, Any]:
        run_id = variables["name"]
        run = self.runs.get(run_id)
        if run is None:
            return {"model": {"id": "p", "name": "p", "entity": {"id": "e", "name": "me"}, "bucket": None}}
        files = self.streams.get(run_id, {})
        history = files.get("wandb-history.jsonl", [])
        bucket = {
            "id": run_id,
            "name": run_id,
            "displayName": run_id,
            "summaryMetrics": (files.get("wandb-summary.json") or ["{}"])[-1],
            "logLineCount": 0,
            "historyLineCount": len(history),
            "eventsLineCount": 0,
            "historyTail": json.dumps(history[-1:]),
            "eventsTail": "[]",
            "config": run.get("config", "{}"),
            "tags": [],
            "wandbConfig": json.dumps({"t": 1}),
        }
        return {"model": {**self._project(run)["project"], "bucket": bucket}}

    def _create_files(self, variables: dict[str, Any]) -> dict[str, Any]:
        files = [{"name": name, "uploadUrl": f"{self.url}/storage/{name}"} for name in variables.get("files", [])]
        return {"createRunFiles": {"runID": "r", "uploadHeaders": [], "files": files}}

    def _create_artifact(self, variables: dict[str, Any]) -> dict[str, Any]:
        name = variables["artifactCollectionName"]
        self.artifacts[name] = {"type": variables["artifactTypeName"], "state": "PENDING"}
        return {
            "createArtifact": {
                "artifact": {"id": name, "state": "PENDING", "artifactSequence": {"latestArtifact": None}}
            }
        }

    def _create_manifest(self, variables: dict[str, Any]) -> dict[str, Any]:
        file = {"id": "f", "name": "m", "displayName": "m", "uploadUrl": f"{self.url}/storage/m", "uploadHeaders": []}
        return {"createArtifactManifest": {"artifactManifest": {"id": "m", "file": file}}}

    def _create_artifact_files(self, variables: dict[str, Any]) -> dict[str, Any]:
        names = [spec["name"] for spec in variables["artifactFiles"]]
        nodes = [
            {"name": name, "displayName": name, "uploadUrl": f"{self.url}/storage/{name}", "uploadHeaders": []}
            | {"storagePath": name, "artifact": {"id": "a"}, "uploadMultipartUrls": None}
            for name in names
        ]
        return {"createArtifactFiles": {"files": {"edges": [{"node": node} for node in nodes]}}}

    def _commit_artifact(self, variables: dict[str, Any]) -> dict[str, Any]:
        self.artifacts[variables["artifactID"]]["state"] = "COMMITTED"
        return {"commitArtifact": {"artifact": {"id": variables["artifactID"], "digest": "d"}}}

    @staticmethod
    def _project(run: dict[str, Any]) -> dict[str, Any]:
        entity = {"id": "e", "name": run.get("entity") or "me"}
        return {"project": {"id": "p", "name": run.get("project") or "p", "entity": entity}}


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request, client_address):
        """Clients that go away are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    fake: FakeWandb

    def log_message(self, *args):
        pass

    def do_GET(self):
        self._answer("GET")

    def do_PUT(self):
        self._answer("PUT")

    def do_POST(self):
        self._answer("POST")

    def _answer(self, method: str) -> None:
        body = self._body()
        self.fake.requests.append((method, self.path, body))
        if self.fake.behaviour == "hang":
            self.fake.wait_for_release()
            return
        if isinstance(self.fake.behaviour, int):
            self._send({"error": "out of order"}, self.fake.behaviour)
            return
        if self.fake.behaviour == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            return
        stream = re.match(r"/files/[^/]+/[^/]+/([^/]+)/file_stream", self.path)
        if self.path.startswith("/graphql"):
            request = json.loads(body)
            self._send(self.fake.graphql(request["query"], request.get("variables") or {}))
        elif stream:
            self.fake.stream(stream.group(1), json.loads(body))
            self._send({"exitcode": None, "limits": {}})
        else:
            self._send({})

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline().strip() or b"0", 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

    def _send(self, answer: dict[str, Any], status: int = 200) -> None:
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        for start in range(len(content)) if self.fake.behaviour == "slow" else ():
            if self.fake.waits(0.2):
                return
            self.wfile.write(content[start : start + 1])
        if self.fake.behaviour != "slow":
            self.wfile.write(content)
