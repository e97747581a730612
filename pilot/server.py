"""A running ComfyUI, by its HTTP interface."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
import uuid

SECONDS = 60
FOLDER = "eta-pilot"
AWAY = (502, 503, 504)  # a proxy before a server that is not there


class Unreachable(Exception):
    """The server does not answer, or not as ComfyUI does."""


class Refused(Exception):
    """The server will not take this; its reason."""


class Server:
    """A ComfyUI at http://host:port. Every method raises Unreachable, or Refused where the server says no."""

    def __init__(self, address: str):
        self.address = address.rstrip("/")
        self._open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open

    @property
    def is_local(self) -> bool:
        return urllib.parse.urlsplit(self.address).hostname in ("127.0.0.1", "localhost", "::1")

    def object_info(self) -> dict:
        return self._json("/object_info")

    def stats(self) -> dict:
        return self._json("/system_stats")

    def submit(self, prompt_id: str, graph: dict) -> str:
        """Queue a graph; returns its id on the server."""
        return self._json("/prompt", {"prompt": graph, "prompt_id": prompt_id})["prompt_id"]

    def queue(self) -> tuple[set[str], set[str]]:
        """Ids of what runs and of what waits."""
        found = self._json("/queue")
        runs, waits = ({entry[1] for entry in found[f"queue_{which}"]} for which in ("running", "pending"))
        return runs, waits

    def history(self, prompt_id: str) -> dict | None:
        return self._json(f"/history/{prompt_id}").get(prompt_id)

    def forget(self, prompt_id: str) -> None:
        self._send("/history", {"delete": [prompt_id]})

    def cancel(self, prompt_ids: list[str]) -> None:
        """Takes them out of the queue and interrupts the one that runs."""
        self._send("/queue", {"delete": prompt_ids})
        for prompt_id in self.queue()[0] & set(prompt_ids):
            self._send("/interrupt", {"prompt_id": prompt_id})

    def upload(self, name: str, png: bytes) -> str:
        """A picture into the server's temporary folder -> what LoadImage calls it."""
        fields = {"type": "temp", "subfolder": FOLDER, "overwrite": "true"}
        boundary = uuid.uuid4().hex
        parts = [
            f'--{boundary}\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n'
            for k, v in fields.items()
        ]
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="image"; '
            f'filename="{name}"\r\nContent-Type: image/png\r\n\r\n'
        )
        body = "".join([*parts, head]).encode() + png + f"\r\n--{boundary}--\r\n".encode()
        answer = json.loads(self._request("/upload/image", body, f"multipart/form-data; boundary={boundary}"))
        return f"{answer['subfolder']}/{answer['name']} [{answer['type']}]"

    def view(self, image: dict) -> bytes:
        """A picture of a node's output."""
        return self._request(f"/view?{urllib.parse.urlencode(image)}")

    def _json(self, path: str, body: dict | None = None) -> dict:
        try:
            return json.loads(self._send(path, body) if body is not None else self._request(path))
        except ValueError:
            raise Unreachable(f"{self.address} does not answer as ComfyUI does") from None

    def _send(self, path: str, body: dict) -> bytes:
        return self._request(path, json.dumps(body).encode(), "application/json")

    def _request(self, path: str, body: bytes | None = None, kind: str = "") -> bytes:
        request = urllib.request.Request(self.address + path, body, {"Content-Type": kind} if kind else {})
        try:
            with self._open(request, timeout=SECONDS) as answer:
                return answer.read()
        except urllib.error.HTTPError as error:
            with error:
                reason = _reason(error.read().decode(errors="replace")) or str(error)
            if error.code in AWAY:
                raise Unreachable(f"{self.address} fails: {reason}") from None
            raise Refused(reason) from None
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            raise Unreachable(f"{self.address} does not answer ({reason or type(error).__name__})") from None


def _reason(text: str) -> str:
    """What /prompt says is wrong with a graph, in a line."""
    try:
        found = json.loads(text)
        nodes = found.get("node_errors") or {}
        wrong = [
            f"{node['class_type']}: {error['message']} ({error['details']})"
            for node in nodes.values()
            for error in node["errors"]
        ]
        return "; ".join(wrong) or found["error"]["message"]
    except (ValueError, KeyError, TypeError, AttributeError):
        return text[:300]
