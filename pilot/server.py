"""A running ComfyUI, by its HTTP interface."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import socket
import threading
import urllib.parse
import uuid

from eta_core.plain_json import read_json

from . import answers

SECONDS = 60
FOLDER = "eta-pilot"
RECENT = 500  # entries of a server's history
AWAY = (502, 503, 504)  # a proxy before a server that is not there
MOST_BYTES = 256_000_000  # of an answer
CHUNK = 1 << 16


class Unreachable(Exception):
    """The server does not answer, or not as ComfyUI does."""


class Refused(Exception):
    """The server will not take this; its reason."""


class BadAnswer(Refused):
    """The server answers, but with something that cannot be used."""


class Server:
    """A ComfyUI at http://host:port. Every method raises Unreachable, or Refused where the server says no.

    address: as it may be shown; a name and password in what was given go into each request alone. seconds:
    the most that a request may take, from its first byte to its last.
    """

    def __init__(self, address: str, seconds: float = SECONDS):
        try:
            parts = urllib.parse.urlsplit(address.rstrip("/"))
            self._host, port = parts.hostname or "", parts.port
        except ValueError as error:
            raise Unreachable(f"--server is no address ({error})") from None
        if parts.scheme not in ("http", "https") or not self._host:
            raise Unreachable("--server must be an address such as http://127.0.0.1:8188")
        self._secure, self._path, self._seconds = parts.scheme == "https", parts.path, seconds
        self._port = port
        shown = f"[{self._host}]" if ":" in self._host else self._host
        self.address = f"{parts.scheme}://{shown}{f':{port}' if port else ''}{parts.path}"
        self._headers = {}
        if parts.username is not None:
            said = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
            self._headers["Authorization"] = "Basic " + base64.b64encode(said.encode()).decode()

    @property
    def is_local(self) -> bool:
        return self._host in ("127.0.0.1", "localhost", "::1")

    def object_info(self) -> dict:
        """The nodes that the server describes in terms that can be read."""
        found = self._json("/object_info")
        return {name: node for name, node in found.items() if answers.is_node(node)}

    def stats(self) -> answers.System:
        return self._read(answers.Stats, "/system_stats").system

    def submit(self, prompt_id: str, graph: dict) -> str:
        """Queue a graph; returns its id on the server."""
        return self._read(answers.Submitted, "/prompt", {"prompt": graph, "prompt_id": prompt_id}).prompt_id

    def queue(self) -> tuple[set[str], set[str]]:
        """Ids of what runs and of what waits."""
        found = self._read(answers.Queue, "/queue")
        runs, waits = (
            {entry[1] for entry in entries if len(entry) > 1 and isinstance(entry[1], str)}
            for entries in (found.queue_running, found.queue_pending)
        )
        return runs, waits

    def history(self, prompt_id: str) -> answers.Entry | None:
        entry = self._json(f"/history/{urllib.parse.quote(prompt_id, safe='')}").get(prompt_id)
        if entry is None:
            return None
        try:
            return answers.read(answers.Entry, entry)
        except ValueError as error:
            raise BadAnswer(f"the server's history of the item cannot be read: {error}") from None

    def recent(self) -> set[str]:
        """Ids of what it has done last."""
        return set(self._json(f"/history?max_items={RECENT}"))

    def forget(self, prompt_id: str) -> None:
        self._send("/history", {"delete": [prompt_id]})

    def take_back(self, prompt_ids: list[str]) -> None:
        """Takes them out of the queue, unless they run."""
        self._send("/queue", {"delete": prompt_ids})

    def cancel(self, prompt_ids: list[str]) -> None:
        """Takes them out of the queue and interrupts the one that runs.

        Repeat it until they are gone: the host forgets an interrupt that comes before an item's first node.
        """
        self.take_back(prompt_ids)
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
        kind = f"multipart/form-data; boundary={boundary}"
        answer = self._checked(answers.Uploaded, self._request("/upload/image", body, kind))
        return f"{answer.subfolder}/{answer.name} [{answer.type}]"

    def view(self, image: answers.Image) -> bytes:
        """A picture of a node's output."""
        return self._request(f"/view?{urllib.parse.urlencode(image.model_dump())}")

    def _read(self, model: type[answers.Model], path: str, body: dict | None = None) -> answers.Model:
        return self._checked(model, self._request(path) if body is None else self._send(path, body))

    def _checked(self, model: type[answers.Model], content: bytes) -> answers.Model:
        try:
            return answers.read(model, read_json(content, "the answer", MOST_BYTES))
        except ValueError as error:
            raise Unreachable(f"{self.address} does not answer as ComfyUI does: {error}") from None

    def _json(self, path: str) -> dict:
        try:
            found = read_json(self._request(path), "the answer", MOST_BYTES)
        except ValueError as error:
            raise Unreachable(f"{self.address} does not answer as ComfyUI does: {error}") from None
        if not isinstance(found, dict):
            raise Unreachable(f"{self.address} does not answer as ComfyUI does: {path} gives no object")
        return found

    def _send(self, path: str, body: dict) -> bytes:
        return self._request(path, json.dumps(body).encode(), "application/json")

    def _request(self, path: str, body: bytes | None = None, kind: str = "") -> bytes:
        """The answer's body. No proxy is used and no redirect followed."""
        headers = self._headers | ({"Content-Type": kind} if kind else {})
        connect = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        connection = connect(self._host, self._port, timeout=self._seconds)
        try:
            with _within(connection, self._seconds):
                connection.request("GET" if body is None else "POST", self._path + path, body, headers)
                answer = connection.getresponse()
                content = _body(answer)
        except (OSError, http.client.HTTPException, ValueError, AttributeError) as error:
            raise Unreachable(f"{self.address} does not answer ({error or type(error).__name__})") from None
        finally:
            connection.close()
        if answer.status < 300:
            return content
        if answer.status < 400:
            raise BadAnswer(f"{self.address} sends {path.split('?')[0]} elsewhere (status {answer.status})")
        reason = _reason(content.decode(errors="replace")) or f"HTTP Error {answer.status}: {answer.reason}"
        if answer.status in AWAY:
            raise Unreachable(f"{self.address} fails: {reason}")
        raise Refused(reason)


@contextlib.contextmanager
def _within(connection: http.client.HTTPConnection, seconds: float):
    """Ends a connection after `seconds`, however slowly bytes still drip in."""
    late = threading.Event()

    def end() -> None:
        late.set()
        with contextlib.suppress(OSError, AttributeError):
            connection.sock.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    except Exception:
        if late.is_set():
            raise TimeoutError(f"not within {seconds:g} s") from None
        raise
    finally:
        timer.cancel()
    if late.is_set():
        raise TimeoutError(f"not within {seconds:g} s")


def _body(answer: http.client.HTTPResponse) -> bytes:
    parts, size = [], 0
    while part := answer.read1(CHUNK):
        parts.append(part)
        size += len(part)
        if size > MOST_BYTES:
            raise BadAnswer(f"the server's answer is longer than {MOST_BYTES // 1_000_000} MB")
    if answer.length:  # fewer bytes than were promised
        raise http.client.IncompleteRead(b"".join(parts), answer.length)
    return b"".join(parts)


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
