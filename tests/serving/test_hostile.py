from __future__ import annotations

import gzip
import io
import json
import struct
import zlib
from typing import Any

import pytest
from PIL import Image

from serving.conftest import Serve, png


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(side: int) -> bytes:
    """A PNG of a few bytes that says it has side x side pixels."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(bytes(1000)))


def _saved(kind: str) -> bytes:
    stream = io.BytesIO()
    Image.effect_noise((48, 40), 60).convert("RGB").save(stream, kind)
    return stream.getvalue()


BODIES = [
    b"",
    b"\0",
    b"GIF89a",
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
    b"cos\nsystem\n(S'true'\ntR.",
    b"/etc/passwd",
    b"file:///etc/passwd",
    b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
    bomb(30_000),
    bomb(2**31 - 1),
    bomb(0),
    *(_saved(kind)[: len(_saved(kind)) // part] for kind in ("PNG", "JPEG", "WEBP", "TIFF", "BMP") for part in (2, 3)),
    *(b"\xff" * 20 + _saved(kind)[20:] for kind in ("PNG", "JPEG", "TIFF")),
]

FORMS = [
    b"",
    b"--b",
    b"--b--\r\n",
    b"--b\r\n\r\n\r\n--b--\r\n",
    b'--b\r\nContent-Disposition: form-data; name="image"; filename="../../etc/passwd"\r\n\r\nx\r\n--b--\r\n',
    b'--b\r\nContent-Disposition: form-data; name="image"; filename="x',
    b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--\r\n",
    b"--b\r\n" + b"X: " + b"y" * 70_000 + b"\r\n\r\nx\r\n--b--\r\n",
    b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n' + b"y" * 70_000 + b"\r\n--b--\r\n",
    b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\ny\r\n' * 40 + b"--b--\r\n",
]


def tensor(**changes: Any) -> Any:
    return {"inputs": [{"name": "images", "datatype": "UINT8", "shape": [1, 2, 2, 3], "data": [0] * 12, **changes}]}


TENSORS: list[Any] = [
    None,
    [],
    1,
    "x",
    {},
    {"inputs": []},
    {"inputs": {}},
    {"inputs": [1]},
    {"inputs": [tensor()["inputs"][0]] * 2},
    {"inputs": tensor()["inputs"], "id": 1},
    {"inputs": tensor()["inputs"], "outputs": [{"name": "x"}]},
    {"inputs": tensor()["inputs"], "outputs": [{"name": []}]},
    {"inputs": tensor()["inputs"], "outputs": 7},
    {"inputs": tensor()["inputs"], "parameters": {"score": "x"}},
    {"inputs": tensor()["inputs"], "parameters": {"score": True}},
    {"inputs": tensor()["inputs"], "parameters": {"binary_data_output": True}},
    tensor(name="pixels"),
    tensor(name=None),
    tensor(datatype="FP32"),
    tensor(datatype=["UINT8"]),
    tensor(url="http://127.0.0.1/x.png"),
    tensor(shape=[1, 2, 2, 4]),
    tensor(shape=[1, 2, 3, 3]),
    tensor(shape=[2, 2, 3, 1]),
    tensor(shape=[-1, -2, 2, 3]),
    tensor(shape=[0, 2, 2, 3]),
    tensor(shape=[1, 2**40, 2**40, 3]),
    tensor(shape=[1, 10**9, 1, 3]),
    tensor(shape=[10**9, 1, 1, 3]),
    tensor(shape=[1.0, 2, 2, 3]),
    tensor(shape=[True, 2, 2, 3]),
    tensor(shape=["1", 2, 2, 3]),
    tensor(shape=[]),
    tensor(shape=[1] * 9),
    tensor(shape=None),
    tensor(data=None),
    tensor(data="AAAA"),
    tensor(data=[0] * 11),
    tensor(data=[256] * 12),
    tensor(data=[-1] * 12),
    tensor(data=[0.5] * 12),
    tensor(data=["0"] * 12),
    tensor(data=[None] * 12),
    tensor(data=[10**30] * 12),
    tensor(data=[[[[0, 0, 0], [0, 0, 0]], [[0, 0, 0], [0, 0]]]]),
    tensor(data=[[0] * 12]),
    tensor(data=[[[[[0]]]]] * 12),
    tensor(datatype="BYTES", shape=[1], data=[1]),
    tensor(datatype="BYTES", shape=[1], data=["*"]),
    tensor(datatype="BYTES", shape=[1], data=[""]),
    tensor(datatype="BYTES", shape=[1], data=["é"]),
    tensor(datatype="BYTES", shape=[1], data=["L2V0Yy9wYXNzd2Q="]),
    tensor(datatype="BYTES", shape=[2], data=["aGVsbG8="]),
    tensor(datatype="BYTES", shape=[10**9], data=[]),
]

TEXTS = [
    b"{",
    b"\xff\xfe",
    b"[" * 100_000,
    b'{"inputs":' * 5000,
    b'{"inputs":[' + b"[]," * 2**20 + b"[]]}",
    b'{"inputs": [NaN]}',
    b'{"inputs": 1e999}',
    b'{"inputs": ' + b"9" * 5000 + b"}",
    b'{"\\ud800": 1}',
]


class TestNothingThatComesBreaksTheServer:
    def test_bodies_that_are_no_images(self, serve: Serve) -> None:
        with serve() as client:
            for body in BODIES:
                answer = client.post("/predict", content=body)
                assert answer.status_code in (400, 413, 422), (body[:40], answer.text)
                assert answer.json()["remedy"]
            tiled = client.post("/predict?tiles=64", content=bomb(30_000))
            assert tiled.status_code == 413
            assert client.post("/predict", content=png()).status_code == 200

    @pytest.mark.parametrize("encodings", [["gzip"], ["deflate"], ["br, gzip"], ["gzip", "identity"], ["\xe9"]])
    def test_bodies_that_are_compressed_on_their_way_are_refused(self, serve: Serve, encodings: list[str]) -> None:
        with serve() as client:
            headers = [(b"content-encoding", each.encode("latin-1")) for each in encodings]
            answer = client.post("/predict", content=gzip.compress(png()), headers=headers)
            assert (answer.status_code, answer.headers["accept-encoding"]) == (415, "identity")
            assert "without Content-Encoding" in answer.json()["remedy"]
            assert client.post("/predict", content=png(), headers={"content-encoding": "identity"}).status_code == 200

    def test_forms_that_are_none(self, serve: Serve) -> None:
        with serve() as client:
            for body in FORMS:
                for kind in (
                    "multipart/form-data; boundary=b",
                    "multipart/form-data",
                    "multipart/form-data; boundary=",
                ):
                    answer = client.post("/predict", content=body, headers={"content-type": kind})
                    assert answer.status_code in (400, 413, 422), (body[:60], kind, answer.text)
                    assert "root:" not in answer.text
            assert client.post("/predict", files={"image": png()}).status_code == 200

    def test_tensors_that_are_none(self, serve: Serve) -> None:
        with serve(max_bytes=2**23) as client:
            for body in (*(json.dumps(each).encode() for each in TENSORS), *TEXTS):
                answer = client.post("/v2/models/first/infer", content=body)
                assert answer.status_code in (400, 413, 422), (body[:200], answer.text)
                assert answer.json()["error"]
            assert client.post("/v2/models/first/infer", json=tensor()).status_code == 200

    @pytest.mark.parametrize(
        "query",
        ["format=xml", "tiles=0", "tiles=1e9", "tiles=-5", "overlap=1&tiles=64", "score=-1", "score=x", "score=inf",
         "merge=all&tiles=64", "model=" + "x" * 300, "model=../../x", "%00=1", "score=0.5&score=0.6&x[]=1"],
    )  # fmt: skip
    def test_settings_that_are_none(self, serve: Serve, query: str) -> None:
        with serve() as client:
            assert client.post(f"/predict?{query}", content=png()).status_code in (404, 422)
