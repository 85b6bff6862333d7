"""`fpn serve` under load, on loopback: against the offline pipeline, at half load, and against hostile requests.

    python benchmarks/serving.py [--images 96] [--rounds 3] [--hostile 1000] [--keep NAME]

EfficientNet-Lite0 with random weights and a shorter side of 320 looks at drawn scenes of 640 x 480 as JPEG. The server
is a process of its own, the load comes from this one, on the same cores. **Throughput**: `predict_images` on the same
bytes and the server with `--connections` clients that ask without a pause, in turns. **Half load**: clients come at
random moments (Poisson) at half the rate of saturation; the time of an answer counts from the moment when its client
came, in units of a batch's time in the network at saturation. **Hostile**: the server's memory before and after.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import os
import random
import re
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from turns import keep

import fpn
from fpn.batch.worker import load_predictor
from fpn.data.synthetic.scenes import SceneDataset
from fpn.detectors.prediction import predict_images
from fpn.image_io import ImageBytes

BATCH = 4


def make_model(folder: Path) -> Path:
    torch.manual_seed(0)
    detector = fpn.faster_rcnn(
        backbone="tf_efficientnet_lite0",
        weights=None,
        classes=["disc", "ring"],
        short_side=320,
        channels=96,
        head_width=256,
    )
    return fpn.save(detector, folder / "lite0.safetensors")


def make_images(count: int) -> list[bytes]:
    scenes = SceneDataset(count, seed=1, height=480, width=640)
    images = []
    for number in range(count):
        stream = io.BytesIO()
        scenes.image(number).save(stream, "JPEG", quality=90)
        images.append(stream.getvalue())
    return images


class ServerProcess:
    """`fpn serve` on a free port."""

    def __init__(self, model: Path) -> None:
        command = [sys.executable, "-m", "fpn", "serve", str(model), "--port", "0", "--device", "cpu", "--queue", "256"]
        command += ["--batch-size", str(BATCH), "--body-seconds", "2"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if found := re.search(r"listening at http://127\.0\.0\.1:(\d+)", line):
                self.port = int(found[1])
            if "try " in line:
                return
        raise SystemExit("the server did not start")

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def memory(self) -> float:
        """MiB that it holds."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024

    def work(self) -> float:
        """Seconds of processor time, until now."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def batches(self) -> tuple[float, float, float]:
        """Batches, images in them, and seconds of the network, until now."""
        connection = self.connect()
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
        names = ("fpn_batch_images_count", "fpn_batch_images_sum", "fpn_batch_seconds_sum")
        return tuple(float((re.search(rf"^{name}\{{.*\}} (\S+)", text, re.M) or [0, 0])[1]) for name in names)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


def ask(connection: http.client.HTTPConnection, data: bytes) -> int:
    connection.request("POST", "/predict", body=data, headers={"Content-Type": "image/jpeg"})
    response = connection.getresponse()
    response.read()
    return response.status


def offline_rate(predictor: Any, images: Sequence[bytes]) -> float:
    began = time.perf_counter()
    for each in predict_images(predictor, [ImageBytes(data) for data in images], batch_size=BATCH):
        assert each.size is not None
    return len(images) / (time.perf_counter() - began)


def served_rate(server: ServerProcess, images: Sequence[bytes], connections: int) -> float:
    coming, lock = iter(images), threading.Lock()

    def client() -> None:
        connection = server.connect()
        while True:
            with lock:
                data = next(coming, None)
            if data is None:
                break
            assert ask(connection, data) == 200
        connection.close()

    began = time.perf_counter()
    with ThreadPoolExecutor(connections) as pool:
        for each in [pool.submit(client) for _ in range(connections)]:
            each.result()
    return len(images) / (time.perf_counter() - began)


def half_load(server: ServerProcess, images: Sequence[bytes], rate: float) -> list[float]:
    """Seconds of each answer, with clients that come at random moments, `rate` a second on average."""
    draw = random.Random(0)

    def client(at: float, data: bytes) -> float:
        connection = server.connect()
        assert ask(connection, data) == 200
        connection.close()
        return time.perf_counter() - at

    answers = []
    with ThreadPoolExecutor(64) as pool:
        at = time.perf_counter()
        for data in images:
            at += draw.expovariate(rate)
            time.sleep(max(0.0, at - time.perf_counter()))
            answers.append(pool.submit(client, at, data))
        return [each.result() for each in answers]


# --- hostile ----------------------------------------------------------------------------------------------------------


def bomb(side: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(10**6)))


def post(path: bytes, body: bytes, *headers: bytes, length: int | None = None) -> bytes:
    head = [b"POST " + path + b" HTTP/1.1", b"Host: x", b"Connection: close", *headers]
    return b"\r\n".join([*head, b"Content-Length: %d" % (len(body) if length is None else length), b"", body])


def hostile_requests(image: bytes) -> list[Callable[[random.Random], bytes]]:
    infer, form = b"/v2/models/lite0/infer", b"Content-Type: multipart/form-data; boundary=b"
    tensor = {"name": "images", "datatype": "UINT8", "shape": [1, 2**31, 2, 3], "data": [0] * 100}
    return [
        lambda draw: post(b"/predict", bomb(draw.choice((9000, 30_000, 2**31 - 1)))),
        lambda draw: post(b"/predict?tiles=32", bomb(8000)),
        lambda draw: post(b"/predict", image[: draw.randrange(len(image))]),
        lambda draw: post(b"/predict", draw.randbytes(10_000) + image),
        lambda draw: post(b"/predict", image, b"Content-Type: application/json"),
        lambda draw: post(b"/predict", b"--b\r\n" + draw.randbytes(draw.randrange(100_000)), form),
        lambda draw: post(b"/predict", image, length=2**30),
        lambda draw: post(b"/predict", image[:1000], length=len(image)),
        lambda draw: post(infer, json.dumps({"inputs": [tensor]}).encode()),
        lambda draw: post(infer, b"[" * draw.randrange(10**6)),
        lambda draw: post(infer, b'{"inputs": [' + b"{}," * 10**6 + b"{}]}"),
        lambda draw: draw.randbytes(5000),
        lambda draw: b"GET /" + b"x" * draw.randrange(10**5) + b" HTTP/1.1\r\n\r\n",
        lambda draw: b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + b"100000\r\n" * 5,
    ]


def attack(server: ServerProcess, data: bytes) -> str:
    """Send it, and say with which status it was answered."""
    try:
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
            connection.sendall(data)
            return (connection.recv(1000)[9:12] or b"closed").decode("ascii", "replace")
    except OSError as error:
        return type(error).__name__


def hostile(server: ServerProcess, image: bytes, count: int) -> dict[str, Any]:
    kinds, draw = hostile_requests(image), random.Random(1)
    requests = [kinds[number % len(kinds)](random.Random(number)) for number in range(len(kinds))]

    def send(number: int) -> str:
        return attack(server, kinds[number % len(kinds)](random.Random(draw.random() + number)))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda data: attack(server, data), requests * 4))  # what is loaded once is there
        before = server.memory()
        statuses = Counter(pool.map(send, range(count)))
    connection = server.connect()
    assert ask(connection, image) == 200, "the server works as before"
    return {"requests": count, "statuses": dict(statuses), "MiB before": before, "MiB after": server.memory()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--hostile", type=int, default=1000)
    parser.add_argument("--keep")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model, images = make_model(Path(folder)), make_images(given.images)
        predictor, server = load_predictor(model, device="cpu"), ServerProcess(model)
        try:
            result = measure(predictor, server, images, given)
        finally:
            status = server.stop()
    result["exit status"] = status
    print(json.dumps(result, indent=2))
    if given.keep:
        keep(given.keep, result)


def measure(predictor: Any, server: ServerProcess, images: list[bytes], given: argparse.Namespace) -> dict[str, Any]:
    offline_rate(predictor, images[:16])
    served_rate(server, images[:16], given.connections)
    began, rounds, work = server.batches(), [], [0.0, 0.0]
    for _ in range(given.rounds):
        before = time.process_time()
        offline = offline_rate(predictor, images)
        work[0] += time.process_time() - before
        before = server.work()
        rounds.append((offline, served_rate(server, images, given.connections)))
        work[1] += server.work() - before
    ended = server.batches()
    batches, looked, seconds = (after - before for before, after in zip(began, ended, strict=True))
    rate, batch = statistics.median(served for _, served in rounds), seconds / batches
    answers = sorted(half_load(server, images * 2, rate / 2))
    p50, p99 = answers[len(answers) // 2], answers[int(len(answers) * 0.99)]
    return {
        "threads": torch.get_num_threads(),
        "cores": len(os.sched_getaffinity(0)),
        "rounds": [{"offline images/s": a, "served images/s": b, "ratio": b / a} for a, b in rounds],
        "ratio": statistics.median(served / offline for offline, served in rounds),
        "processor time a served image, of an offline one": work[1] / work[0],
        "images a batch": looked / batches,
        "batch seconds": batch,
        "half load": {"rate": rate / 2, "p50 in batches": p50 / batch, "p99 in batches": p99 / batch},
        "hostile": hostile(server, images[0], given.hostile),
    }


if __name__ == "__main__":
    main()
