from __future__ import annotations

import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import children
import httpx
import pytest

from fpn.errors import ConfigError
from fpn.serving import running
from fpn.serving.running import bind, run_app
from serving.conftest import png

if TYPE_CHECKING:
    from fpn.detectors import TwoStageDetector


class Server:
    """`fpn serve` as a process of its own."""

    def __init__(self, model: Path, says: Path, *words: str) -> None:
        self.says = says
        says.touch()
        command = ["serve", f"cells={model}", "--port", "0", "--device", "cpu", *words]
        self.child = children.start(children.run_fpn, command, says=says, environment={"OMP_NUM_THREADS": "1"})
        children.wait_for(lambda: "try " in says.read_text(), self.child, says=says)
        found = re.search(r"listening at http://127\.0\.0\.1:(\d+)", says.read_text())
        assert found is not None
        self.port = int(found[1])
        self.address = f"http://127.0.0.1:{self.port}"

    def stop(self) -> str:
        assert self.child.pid is not None
        os.kill(self.child.pid, signal.SIGTERM)
        return children.finish(self.child, says=self.says)


@pytest.fixture
def server(small: TwoStageDetector, tmp_path: Path) -> Iterator[Server]:
    import fpn

    model = fpn.save(small, tmp_path / "model.safetensors")
    server = Server(model, tmp_path / "says.txt", "--queue", "500", "--batch-size", "2")
    yield server
    if server.child.is_alive():
        server.child.kill()


def test_a_term_signal_loses_no_accepted_request_and_ends_with_status_0(server: Server) -> None:
    answers: list[int | str] = []
    stopping = threading.Event()

    def ask(number: int) -> None:
        # One connection a thread, on which it asks until the server is gone.
        with httpx.Client(base_url=server.address, timeout=60, trust_env=False) as client:
            while True:
                try:
                    answer = client.post("/predict", content=png(seed=number))
                except (httpx.ConnectError, httpx.ReadError, httpx.RemoteProtocolError) as error:
                    # Only what was never accepted has no answer: there is none once all others have theirs.
                    answers.append("refused" if stopping.is_set() else repr(error))
                    return
                answers.append(answer.status_code)
                if answer.status_code != 200:
                    return

    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask, number) for number in range(4)]
        while answers.count(200) < 8:
            time.sleep(0.01)
        stopping.set()
        said = server.stop()
        for each in asking:
            each.result()
    assert set(answers) <= {200, 503, "refused"}
    assert "stopped: all that was accepted is answered" in said


@pytest.fixture
def port(app_of: Callable[..., Any]) -> Iterator[int]:
    """Of a server in a thread of this process."""
    app, bound, ready = app_of(), bind("127.0.0.1", 0), threading.Event()
    thread = threading.Thread(target=run_app, args=(app, bound, ready.set))
    port = bound.getsockname()[1]
    thread.start()
    assert ready.wait(60)
    yield port
    app.state.door.stopping = True
    thread.join(60)
    assert not thread.is_alive()


def told(connection: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    return b"".join(iter(lambda: connection.recv(10_000), b""))


class TestConnections:
    def test_clients_that_send_little_or_nonsense_leave_others_alone(self, port: int) -> None:
        with ExitStack() as silent:
            for number in range(20):
                each = silent.enter_context(socket.create_connection(("127.0.0.1", port)))
                each.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc"[: 10 + 3 * number])
            with socket.create_connection(("127.0.0.1", port), timeout=60) as other:
                other.sendall(b"\x16\x03\x01 no HTTP\r\n\r\n")
                answer = told(other)
            assert answer.startswith(b"HTTP/1.1 400 Bad Request")
            assert b'"remedy"' in answer
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
                assert client.post("/predict", content=png()).status_code == 200

    def test_a_body_that_says_it_is_too_large_is_answered_before_it_comes(self, port: int) -> None:
        with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
            connection.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1073741824\r\n\r\n")
            assert connection.recv(10_000).startswith(b"HTTP/1.1 413")

    def test_a_body_in_chunks_and_one_that_waits_to_be_asked_for_are_answered(self, port: int) -> None:
        head = b"POST /predict HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
            connection.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n")
            for part in (png()[:100], png()[100:], b""):
                connection.sendall(b"%x\r\n%s\r\n" % (len(part), part))
            assert told(connection).startswith(b"HTTP/1.1 200")
        with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
            connection.sendall(head + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(png()))
            assert connection.recv(10_000).startswith(b"HTTP/1.1 100 Continue")
            connection.sendall(png())
            assert told(connection).startswith(b"HTTP/1.1 200")

    def test_a_head_that_does_not_come_ends_the_connection(self, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(running, "HEAD_SECONDS", 0.05)
        with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
            connection.sendall(b"POST /pre")
            with suppress(ConnectionResetError):
                assert told(connection) == b""


class TestBind:
    def test_a_port_that_is_taken_is_told_with_the_remedy(self) -> None:
        with bind("127.0.0.1", 0) as first:
            port = first.getsockname()[1]
            first.listen()
            with pytest.raises(ConfigError, match=rf"--port {port}: Address already in use\. Choose another"):
                bind("127.0.0.1", port)

    @pytest.mark.parametrize(
        ("host", "port", "message"),
        [
            ("127.0.0.1", 70_000, "--port 70000: expected 0 to 65535"),
            ("no host", 0, "--host no host: is no address"),
            ("192.0.2.1", 0, "--host 192.0.2.1"),
        ],
    )
    def test_what_cannot_be_listened_at_is_told(self, host: str, port: int, message: str) -> None:
        with pytest.raises(ConfigError, match=re.escape(message)):
            bind(host, port)


def test_models_are_looked_for_before_anything_is_loaded(tmp_path: Path, capsys: Any) -> None:
    from fpn.cli import main

    assert main(["serve", str(tmp_path / "none.safetensors")]) == 1
    assert "no such model file" in capsys.readouterr().err
