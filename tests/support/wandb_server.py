"""A server that keeps what `wandb sync` sends it: W&B's own reader of its offline files.

It answers as W&B's server does to a run that it does not know, and has every artefact already, so
that no file is sent.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class SentRun:
    """What was sent of one run; ``history``: its lines by their place in the file."""

    described: dict[str, Any] = field(default_factory=dict)
    history: dict[int, dict[str, Any]] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None

    @property
    def config(self) -> dict[str, Any]:
        return {key: one["value"] for key, one in json.loads(self.described["config"]).items()}

    def curve(self, name: str) -> list[tuple[int, float]]:
        rows = [self.history[place] for place in sorted(self.history)]
        return [(row["_step"], row[name]) for row in rows if name in row]


@dataclass
class Received:
    """All runs by their ids, and the artefacts of all of them: collection -> its type."""

    address: str
    runs: dict[str, SentRun] = field(default_factory=dict)
    artefacts: dict[str, str] = field(default_factory=dict)

    def named(self, label: str) -> SentRun:
        (run,) = [one for one in self.runs.values() if one.described.get("displayName") == label]
        return run

    def answer(self, path: str, content: dict[str, Any]) -> dict[str, Any]:
        if path.endswith("/file_stream"):
            self._take(path.split("/")[4], content)
            return {}
        asked = content.get("variables", {})
        if content.get("operationName") == "UpsertBucket":
            run = self.runs.setdefault(asked["name"], SentRun())
            run.described |= {key: value for key, value in asked.items() if value is not None}
            project = {"id": "p", "name": asked["project"], "entity": {"id": "e", "name": "me"}}
            bucket = {"id": asked["name"], "name": asked["name"], "project": project}
            bucket |= {"displayName": asked["displayName"], "config": "{}", "historyLineCount": 0}
            return {"data": {"upsertBucket": {"bucket": bucket, "inserted": True}}}
        if content.get("operationName") == "CreateArtifact":
            given = asked["input"]
            self.artefacts[given["artifactCollectionName"]] = given["artifactTypeName"]
            made = {"id": "a", "state": "COMMITTED", "artifactSequence": {"latestArtifact": None}}
            return {"data": {"createArtifact": {"artifact": made}}}
        if content.get("operationName") == "CreateRunFiles":
            files = [{"name": name, "uploadUrl": self.address} for name in asked["files"]]
            made = {"runID": asked["run"], "uploadHeaders": [], "files": files}
            return {"data": {"createRunFiles": made}}
        return {"data": {"serverInfo": {"features": []}}}

    def _take(self, name: str, content: dict[str, Any]) -> None:
        run = self.runs.setdefault(name, SentRun())
        files = content.get("files") or {}
        lines = files.get("wandb-history.jsonl", {"offset": 0, "content": []})
        for place, line in enumerate(lines["content"], lines["offset"]):
            run.history[place] = json.loads(line)
        for line in files.get("wandb-summary.json", {"content": []})["content"]:
            run.summary = json.loads(line)
        if content.get("complete"):
            run.exit_code = content["exitcode"]


@contextmanager
def receiving() -> Iterator[Received]:
    """Receive on this machine what is sent while the block runs."""
    received = Received("")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            text = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self._reply(received.answer(self.path, json.loads(text or b"{}")))

        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self._reply({})

        def _reply(self, content: dict[str, Any]) -> None:
            data = json.dumps(content).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """Whoever sends ends without a farewell."""

    with Server(("127.0.0.1", 0), Handler) as server:
        received.address = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield received
        server.shutdown()
