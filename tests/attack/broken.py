"""A server that breaks in one way, each way a row of a table."""

from __future__ import annotations

import io
import json
import socketserver
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import NamedTuple

import numpy as np
from PIL import Image


def png(size: tuple[int, int] = (64, 64)) -> bytes:
    stream = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), np.uint8)
    Image.fromarray(noise).save(stream, "PNG")
    return stream.getvalue()


FIGURES = {
    "pictures": [
        {
            "background_psnr": 40.0,
            "background_ms_ssim": 0.99,
            "background_mean_difference": 0.5,
            "changed_area": 5.0,
        }
    ]
}
KINDS = (
    *("CheckpointLoaderSimple", "LoadImage", "CLIPTextEncode", "VAEEncode", "EtaInversion", "AttentionMask"),
    *("EtaSchedule", "EtaSampler", "VAEDecode", "SaveImage", "EtaMetrics", "PreviewAny", "PreviewImage"),
    *("MaskToImage", "LoadImageMask"),
)
INFO = {kind: {"input": {"required": {}}} for kind in KINDS}
STATS = {"system": {"comfyui_version": "0.3.75", "argv": ["main.py"]}, "devices": []}
DRIP = object()  # one byte at a time, without end
FLOOD = object()  # without end, as fast as it goes


def entry(figures: object = FIGURES, status: object = "success", messages: object = None, images: int = 1):
    messages = [["execution_start", {"timestamp": 1000}]] if messages is None else messages
    shown = [{"filename": "e.png", "subfolder": "", "type": "temp"}] * images
    return {
        "status": {"status_str": status, "messages": messages},
        "outputs": {"pilot_edited": {"images": shown}, "pilot_figures": {"text": [json.dumps(figures)]}},
    }


class Break(NamedTuple):
    """What the server answers instead, by path; and what becomes of the items: "ok", "error" or "stops".

    An answer is bytes or JSON, (status, headers, bytes), or a function of the item's id that gives one.
    """

    answers: dict[str, object]
    outcome: str
    says: str = ""


def history(found: object) -> dict[str, object]:
    return {"/history/": lambda name: {name: found}}


def view(found: object) -> dict[str, object]:
    return {"/view": lambda _: found}


BREAKS: dict[str, Break] = {
    "nothing at all": Break({}, "ok"),
    "a metric of a newer pack": Break(
        history(entry({"pictures": [FIGURES["pictures"][0] | {"wonder": 1}]})), "ok"
    ),
    # pictures
    "HTML for a picture": Break(view(b"<html>busy</html>"), "error", "no whole picture"),
    "nothing for a picture": Break(view(b""), "error", "empty (0 bytes)"),
    "a cut PNG": Break(view(png()[:2000]), "error", "no whole picture"),
    "half a PNG's length": Break(view((200, {"Content-Length": "999999"}, png())), "error", "do not come"),
    "a picture of another size": Break(view(png((72, 64))), "error", "72x64"),
    "a redirect for a picture": Break(
        view((302, {"Location": "http://127.0.0.1:1/"}, b"")), "error", "elsewhere"
    ),
    "a picture that is gone": Break(view((404, {}, b"")), "error", "times over"),
    "2,000 pictures": Break(history(entry(images=2000)), "error", "at most 256"),
    "two pictures for one figure": Break(history(entry(images=2)), "error", "2 edited pictures"),
    "no picture": Break(history(entry(images=0)), "error", "0 edited pictures"),
    "pictures in words": Break(
        history(entry() | {"outputs": {"pilot_edited": {"images": "x"}, "pilot_figures": {"text": ["{}"]}}}),
        "error",
        "images",
    ),
    "one byte a second": Break(view(DRIP), "error", "not within"),
    "a picture without an end": Break(view(FLOOD), "error", "longer than"),
    # figures
    "figures that are no JSON": Break(
        history(entry() | {"outputs": entry()["outputs"] | {"pilot_figures": {"text": ["{"]}}}),
        "error",
        "JSON",
    ),
    "no figures": Break(
        history(entry() | {"outputs": entry()["outputs"] | {"pilot_figures": {}}}), "error", "JSON"
    ),
    "figures nested 100,000 deep": Break(
        history(entry() | {"outputs": entry()["outputs"] | {"pilot_figures": {"text": ["[" * 100_000]}}}),
        "error",
        "nested",
    ),
    "figures of words": Break(history(entry({"pictures": [{"pie_mse": "x"}]})), "error", "pie_mse"),
    # history
    "a history in words": Break(history("x"), "error", "history"),
    "a history without status": Break(history({"outputs": {}}), "error", "status"),
    "a history of lists": Break({"/history/": lambda name: [1]}, "stops", "as ComfyUI does"),
    "messages in words": Break(history(entry(messages="x")), "error", "messages"),
    "messages of one part": Break(history(entry(messages=[["execution_error"]])), "error", "messages"),
    "an error without a word": Break(
        history(entry(status="error", messages=[["execution_error", {}]])), "error", "a node"
    ),
    "a failure without a word": Break(history(entry(status="error")), "error", "no more than"),
    "timestamps in words": Break(history(entry(messages=[["execution_start", {"timestamp": "x"}]])), "ok"),
    "outputs in words": Break(history(entry() | {"outputs": "x"}), "error", "outputs"),
    "a history that forgets": Break({"/history/": lambda name: {}}, "error", "times over"),
    "one id for all": Break({"/prompt": lambda _: {"prompt_id": "same"}}, "error", "id of another item"),
    "no id": Break({"/prompt": lambda _: {}}, "stops", "prompt_id"),
    "an id that is a number": Break({"/prompt": lambda _: {"prompt_id": 3}}, "stops", "prompt_id"),
    "a refusal in HTML": Break({"/prompt": lambda _: (400, {}, b"<html>")}, "error", "<html>"),
    "a refusal of an odd shape": Break({"/prompt": lambda _: (400, {}, b'{"node_errors": 3}')}, "error"),
    # the rest
    "a queue without its lists": Break({"/queue": lambda _: {}}, "stops", "queue_running"),
    "a queue of words": Break({"/queue": lambda _: {"queue_running": "x", "queue_pending": []}}, "stops"),
    "a queue that stands still": Break(
        {
            "/queue": lambda name: {"queue_running": [], "queue_pending": [[0, id] for id in name]},
        },
        "stops",
        "not begun",
    ),
    "JSON 100,000 deep": Break({"/queue": lambda _: b"[" * 100_000}, "stops", "nested"),
    "node information of words": Break({"/object_info": lambda _: "x"}, "stops", "object"),
    "nodes of words": Break({"/object_info": lambda _: dict.fromkeys(INFO, "x")}, "stops", "has no node"),
    "no system": Break({"/system_stats": lambda _: {}}, "stops", "system"),
    "an argument list of numbers": Break(
        {"/system_stats": lambda _: {"system": {"argv": [1]}}}, "stops", "argv"
    ),
    "an upload in words": Break({"/upload/image": lambda _: b"done"}, "stops", "JSON"),
    "a queue that is forbidden": Break({"/queue": lambda _: (403, {}, b"not you")}, "error", "not you"),
    "an unknown status": Break({"/queue": lambda _: (299, {}, b"")}, "stops"),
}
PLAIN: dict[str, Callable] = {
    "/object_info": lambda _: INFO,
    "/system_stats": lambda _: STATS,
    "/queue": lambda _: {"queue_running": [], "queue_pending": []},
    "/upload/image": lambda _: {"name": "x", "subfolder": "eta-pilot", "type": "temp"},
    "/history": lambda _: {},
    "/history/": lambda name: {name: entry()},
    "/view": lambda _: png(),
}


class _Server(socketserver.ThreadingMixIn, HTTPServer):
    daemon_threads = True


@contextmanager
def serving(broken: Break):
    """The address of a server that breaks so."""
    ids: list[str] = []
    answers = PLAIN | broken.answers

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.path == "/prompt" and "/prompt" not in answers:
                ids.append(json.loads(body)["prompt_id"])
                self.say({"prompt_id": ids[-1]})
            elif self.path in answers:
                self.say(answers[self.path](ids))
            else:
                self.say({})

        def do_GET(self):
            path = self.path.partition("?")[0]
            if path.startswith("/history/"):
                name = path.rsplit("/", 1)[1]
                known = name in ids or name == "same"
                self.say(answers["/history/"](name) if known else {})
            else:
                self.say(answers[path](ids))

        def say(self, answer):
            status, headers = 200, {}
            if isinstance(answer, tuple):
                status, headers, answer = answer
            if answer is DRIP or answer is FLOOD:
                return self.go_on(b"x" if answer is DRIP else b"x" * 4_000_000, 1 if answer is DRIP else 0)
            body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(body))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def go_on(self, part: bytes, pause: float):
            self.send_response(200)
            self.end_headers()
            try:
                while True:
                    self.wfile.write(part)
                    self.wfile.flush()
                    time.sleep(pause)
            except OSError:
                pass

    server = _Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
