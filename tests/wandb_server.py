"""What a W&B server answers to `wandb sync`, on the loopback: it keeps what is sent to it.

with WandbServer() as server: run("wandb", "sync", "wandb", env=server.environment); server.uploads, server.history
"""

import gzip
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


class WandbServer:
    """uploads: name of a file -> its bytes; history: the run's lines, each at the offset that it was sent for."""

    def __init__(self) -> None:
        self.uploads: dict[str, bytes] = {}
        self.history: dict[int, dict[str, Any]] = {}
        self.runs: set[str] = set()
        self.committed: list[str] = []
        handler = type("Handler", (_Handler,), {"owner": self})
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self.environment = {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": 40 * "a", "WANDB_MODE": "online"}

    def __enter__(self) -> Self:
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._http.shutdown()
        self._http.server_close()

    def answer(self, operation: str, given: dict[str, Any]) -> dict[str, Any]:
        """The data of a GraphQL answer; what a sync can do without is left empty."""
        project = {"id": "p", "name": "p", "entity": {"id": "e", "name": "me"}}
        if operation == "UpsertBucket":
            name = given["name"] or given["id"]
            is_new = name not in self.runs
            self.runs.add(name)
            bucket = {"id": name, "name": name, "displayName": name, "historyLineCount": 0, "project": project}
            return {"upsertBucket": {"bucket": bucket, "inserted": is_new}}
        if operation == "RunResumeStatus":
            return {"model": {**project, "bucket": self._bucket(given["name"])}}
        if operation == "CreateArtifact":
            name = given["input"]["artifactCollectionName"]
            artifact = {"id": name, "state": "PENDING", "artifactSequence": {"id": "s", "latestArtifact": None}}
            return {"createArtifact": {"artifact": artifact}}
        if operation in ("CreateArtifactManifest", "UpdateArtifactManifest"):
            name = given.get("artifactID") or given["artifactManifestID"]
            file = {"id": "f", "name": "m", "displayName": "m", "uploadUrl": f"{self.url}/manifest/{name}"}
            manifest = {"id": name, "file": {**file, "uploadHeaders": []}}
            return {operation[0].lower() + operation[1:]: {"artifactManifest": manifest}}
        if operation == "CreateArtifactFiles":
            nodes = [
                {
                    "id": file["name"],
                    "name": file["name"],
                    "displayName": file["name"],
                    "storagePath": file["name"],
                    "uploadUrl": f"{self.url}/{file['artifactID']}/{file['name']}",
                    "uploadHeaders": [],
                    "artifact": {"id": file["artifactID"]},
                }
                for file in given["input"]["artifactFiles"]
            ]
            return {"createArtifactFiles": {"files": {"edges": [{"node": node} for node in nodes]}}}
        if operation == "CommitArtifact":
            self.committed.append(given["artifactID"])
            return {"commitArtifact": {"artifact": {"id": given["artifactID"], "digest": "d"}}}
        if operation == "CreateRunFiles":
            files = [{"name": name, "uploadUrl": f"{self.url}/run/{name}"} for name in given["files"]]
            return {"createRunFiles": {"runID": "r", "uploadHeaders": [], "files": files}}
        return {}

    def _bucket(self, run: str) -> dict[str, Any] | None:
        if run not in self.runs:
            return None
        last = [json.dumps(self.history[max(self.history)])] if self.history else []
        return {
            "id": run,
            "name": run,
            "displayName": run,
            "summaryMetrics": "{}",
            "config": "{}",
            "tags": [],
            "logLineCount": 0,
            "eventsLineCount": 0,
            "eventsTail": "[]",
            "historyLineCount": len(self.history),
            "historyTail": json.dumps(last),
            "wandbConfig": json.dumps({"t": {"value": 1}}),  # without it a run counts as not begun
        }


class _Handler(BaseHTTPRequestHandler):
    owner: WandbServer

    def log_message(self, *arguments: Any) -> None:
        return None

    def do_PUT(self) -> None:
        self.owner.uploads[self.path.lstrip("/")] = self._body()
        self._send(b"")

    def do_POST(self) -> None:
        body = self._body()
        if self.path.endswith("/file_stream"):
            lines = (json.loads(body).get("files") or {}).get("wandb-history.jsonl")
            if lines:
                placed = enumerate(map(json.loads, lines["content"]), start=lines["offset"])
                self.owner.history.update(placed)
            return self._send(b"{}")
        if not body.startswith(b"{"):
            return self._send(b"{}")
        query = json.loads(body)
        operation = re.search(r"(?:query|mutation) (\w+)", query["query"])
        data = self.owner.answer(operation[1] if operation else "", query.get("variables") or {})
        return self._send(json.dumps({"data": data}).encode())

    def _send(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _body(self) -> bytes:
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(data) if self.headers.get("Content-Encoding") == "gzip" else data
