import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from pilot.server import Refused, Server, Unreachable


@pytest.fixture
def answering():
    """An address whose every answer has the status it was given."""
    servers = []

    def start(status: int) -> Server:
        class Answer(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_error(status)

            def log_message(self, *args):
                pass

        servers.append(HTTPServer(("127.0.0.1", 0), Answer))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return Server(f"http://127.0.0.1:{servers[-1].server_port}")

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    "status, error", [(400, Refused), (500, Refused), (502, Unreachable), (503, Unreachable)]
)
def test_a_server_that_fails_has_refused_and_one_behind_a_proxy_is_away(answering, status, error):
    with pytest.raises(error):
        answering(status).queue()
