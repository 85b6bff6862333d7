from __future__ import annotations

import asyncio
import base64
import copy
import io
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from fastapi import Request
from PIL import Image

import fpn
from fpn.detectors.tiling import Tiling
from fpn.image_io import ImageBytes
from fpn.serving import service
from fpn.serving.problems import RequestError
from fpn.structures import Thresholds
from serving.conftest import Hold, Serve, png, talk

if TYPE_CHECKING:
    from collections.abc import Callable

FILE = png()


def boxes(image: dict[str, Any]) -> list[list[float]]:
    return [each["box"] for each in image["detections"]]


def wanted(predictor: Any, data: bytes, **settings: Any) -> Any:
    (found,) = predictor.predict([ImageBytes(data)], **settings)
    return found


class TestPredict:
    def test_an_image_gives_what_predict_gives(self, serve: Serve, loaded: Any) -> None:
        with serve() as client:
            answer = client.post("/predict", content=FILE)
        assert answer.status_code == 200
        (image,) = answer.json()["images"]
        found = wanted(loaded, FILE)
        assert len(found) > 3
        assert boxes(image) == found.boxes.tolist()
        assert [each["score"] for each in image["detections"]] == found.scores.tolist()
        assert {each["label"]: each["category_id"] for each in image["detections"]} == {"cell": 7, "platelet": 3}
        assert (image["width"], image["height"]) == (64, 64)

    def test_images_of_one_request_go_together_and_give_what_each_gives_alone(self, serve: Serve, loaded: Any) -> None:
        files = [png(64, 64, seed) for seed in range(4)]
        with serve(batch_size=4, wait_ms=60_000) as client:
            answer = client.post("/predict", files=[("image", (f"{k}.png", data)) for k, data in enumerate(files)])
            counted = client.get("/metrics").text
        assert 'fpn_batch_images_bucket{le="2.0",model="first"} 0.0' in counted
        assert 'fpn_batch_images_bucket{le="4.0",model="first"} 1.0' in counted
        images = answer.json()["images"]
        assert [each["name"] for each in images] == ["0.png", "1.png", "2.png", "3.png"]
        for image, data in zip(images, files, strict=True):
            np.testing.assert_allclose(boxes(image), wanted(loaded, data).boxes.numpy(), atol=2e-3)

    def test_a_score_is_asked_for_or_set_for_the_server(self, serve: Serve, loaded: Any) -> None:
        found = wanted(loaded, FILE)
        middle = float(found.scores[2])
        with serve(score=0.0) as client:
            asked = client.post("/predict", params={"score": middle}, content=FILE).json()
        with serve(score=middle) as client:
            usual = client.post("/predict", content=FILE).json()
        assert len(boxes(asked["images"][0])) == len(boxes(usual["images"][0])) == int((found.scores >= middle).sum())

    def test_thresholds_of_the_model_count_where_nothing_is_said(
        self, serve: Serve, loaded: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with serve() as client:
            refused = client.post("/predict?score=calibrated", content=FILE)
        assert refused.status_code == 422
        assert "has no thresholds yet" in refused.json()["error"]
        monkeypatch.setattr(loaded, "thresholds", Thresholds((1.0, 0.0), "f1", "some", 9, (True, True)))
        with serve() as client:
            (image,) = client.post("/predict", content=FILE).json()["images"]
            (all_of_them,) = client.post("/predict?score=0", content=FILE).json()["images"]
        assert {each["label"] for each in image["detections"]} == {"platelet"}
        assert {each["label"] for each in all_of_them["detections"]} == {"cell", "platelet"}

    def test_tiles_give_what_predict_tiled_gives(self, serve: Serve, loaded: Any) -> None:
        data = png(100, 150, 5)
        tiling = Tiling(side=64, overlap=0.25, whole=True)
        found = fpn.predict_tiled(loaded, ImageBytes(data), tiling, batch_size=1)
        with serve(batch_size=1) as client:
            address = "/predict?tiles=64&overlap=0.25&also_whole=true"
            (image,) = client.post(address, content=data).json()["images"]
        assert len(found) > 3
        assert boxes(image) == found.boxes.tolist()

    def test_coco_has_images_annotations_and_categories_of_the_training_data(self, serve: Serve, loaded: Any) -> None:
        with serve() as client:
            files = [("a", ("a.png", FILE)), ("b", ("b.png", b"none"))]
            lists = client.post("/predict?format=coco", files=files).json()
        first, second = lists["images"]
        assert first == {"id": 1, "file_name": "a.png", "width": 64, "height": 64}
        assert (second["id"], "not an image" in second["error"]) == (2, True)
        assert lists["categories"] == [{"id": 7, "name": "cell"}, {"id": 3, "name": "platelet"}]
        x1, y1, x2, y2 = wanted(loaded, FILE).boxes[0].tolist()
        np.testing.assert_allclose(lists["annotations"][0]["bbox"], [x1, y1, x2 - x1, y2 - y1], rtol=1e-6)
        assert {each["image_id"] for each in lists["annotations"]} == {1}

    def test_a_second_model_is_asked_by_its_name(self, serve: Serve, loaded: Any) -> None:
        with serve(loaded, loaded) as client:
            assert client.post("/predict?model=second", content=FILE).json()["model"] == "second"
            assert client.post("/predict", content=FILE).json()["model"] == "first"
            missed = client.post("/predict?model=secund", content=FILE)
        assert missed.status_code == 404
        assert missed.json()["error"] == "no model is called 'secund'. Did you mean 'second'?"

    def test_a_file_that_is_cut_short_is_used_and_told(self, serve: Serve) -> None:
        stream = io.BytesIO()
        Image.effect_noise((64, 64), 50).convert("RGB").save(stream, "JPEG", quality=95)
        with serve() as client:
            (image,) = client.post("/predict", content=stream.getvalue()[:-20]).json()["images"]
        assert image["warnings"][0].startswith("the file is cut short")

    def test_errors_say_what_and_what_helps(self, serve: Serve) -> None:
        with serve(max_pixels=4096, max_images=2, max_bytes=20_000) as client:
            post = client.post
            cases = {
                400: [post("/predict"), post("/predict", headers={"content-type": "multipart/form-data; boundary=x"})],
                404: [client.get("/other"), post("/predict?model=none", content=FILE)],
                405: [client.get("/predict"), client.put("/health")],
                413: [
                    post("/predict", content=b"0" * 20_001),
                    post("/predict", content=png(65, 64)),
                    post("/predict", files=[("image", ("x.png", b"x"))] * 3),
                ],
                415: [post("/predict", json={"url": "http://127.0.0.1/x.png"})],
                422: [
                    post("/predict", content=b"no image"),
                    post("/predict?scroe=1", content=FILE),
                    post("/predict?score=nan", content=FILE),
                    post("/predict?score=0.5&score=0.9", content=FILE),
                    post("/predict?overlap=0.5", content=FILE),
                    post("/predict", data={"image": "photo.jpg"}, files={"other": b"x"}),
                ],
            }
        for status, answers in cases.items():
            for answer in answers:
                assert answer.status_code == status, answer.text
                assert answer.json().keys() == {"error", "remedy"}
        assert cases[422][1].json()["remedy"] == "Did you mean 'score'?"
        assert "64 x 65 is 4160 pixels" in cases[413][1].json()["error"]

    @pytest.mark.parametrize(
        ("method", "address", "status", "told"),
        [
            ("POST", "/inside?model=first&model=second", 422, "'model' stands 2 times in the address"),
            ("POST", "/inside?modle=first", 422, "Did you mean 'model'?"),
            ("POST", "/inside?score=0.5", 422, "unknown query 'score'"),
            ("POST", "/inside", 400, "curl --data-binary"),
            ("POST", "/v2/models/first/infer?score=0.5", 422, "Settings stand in the JSON"),
            ("POST", "/predict?score=0,5", 422, 'Give a number from 0 to 1, or \\"calibrated\\".'),
            ("POST", "/predict?score=", 422, "Give a number from 0 to 1"),
            ("POST", "/predict?tiles=64.5", 422, "Give a whole number."),
            ("POST", "/predict?tiles=64&also_whole=maybe", 422, "Give true or false."),
            ("POST", "/predict?tiles=64&overlap=much", 422, "Give a number."),
            ("POST", "/predict/", 404, "Did you mean '/predict'?"),
            ("GET", "//Health/", 404, "Did you mean '/health'?"),
            ("GET", "/v2/models/first/", 404, "Did you mean '/v2/models/first'?"),
            ("GET", "/metric", 404, "Did you mean '/metrics'?"),
            ("GET", "/etc/passwd", 404, '"remedy":"GET /openapi.json lists'),
            ("PUT", "/health", 405, "Allowed: GET, HEAD."),
            ("GET", "/v2/models/fir%73t", 200, '"name":"first"'),
            ("HEAD", "/health", 200, ""),
            ("HEAD", "/page/page.css", 200, ""),
            ("HEAD", "/predict", 405, ""),
        ],
    )
    def test_what_is_asked_oddly_is_told_how_it_is_asked(
        self, app_of: Callable[..., Any], method: str, address: str, status: int, told: str
    ) -> None:
        from fastapi.testclient import TestClient

        # Not as a context: nothing here gets to a network.
        answer = TestClient(app_of()).request(method, f"http://testserver{address}")
        assert (answer.status_code, told in answer.text) == (status, True), answer.text

    def test_more_tiles_than_allowed_are_refused_before_anything_is_decoded(self, serve: Serve) -> None:
        with serve(max_tiles=3) as client:
            answer = client.post("/predict?tiles=32&overlap=0", content=png(64, 64))
        assert answer.status_code == 413
        assert "would be 4 tiles" in answer.json()["error"]


class TestLimits:
    def test_a_network_that_fails_is_told_without_what_is_none_of_the_client_s_business(
        self, serve: Serve, loaded: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        broken = copy.copy(loaded)
        broken.detect = lambda images: torch.zeros(2)[5]
        with serve(broken) as client:
            answer = client.post("/predict", content=FILE)
            counted = client.get("/metrics").text
        assert answer.status_code == 500
        assert answer.json()["error"] == "the server failed (IndexError)"
        assert 'fpn_requests_total{code="500",path="/predict"} 1.0' in counted
        assert "out of bounds" in caplog.text

    def test_where_the_queue_is_full_others_are_told_when_to_come_again(self, serve: Serve, loaded: Any) -> None:
        held = Hold(loaded)
        with serve(held.predictor, queue=1) as client, ThreadPoolExecutor(1) as pool:
            first = pool.submit(client.post, "/predict", content=FILE)
            assert held.began.wait(60)
            refused = client.post("/predict", content=FILE)
            waiting = client.get("/metrics").text
            held.go.set()
            assert first.result(60).status_code == 200
            assert client.post("/predict", content=FILE).status_code == 200
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
        assert "fpn_queue_images 1.0" in waiting

    def test_what_takes_too_long_is_given_up_and_gives_its_place_back(self, serve: Serve, loaded: Any) -> None:
        held = Hold(loaded)
        with serve(held.predictor, queue=1, seconds=0.05) as client:
            assert client.post("/predict", content=FILE).status_code == 504
            held.go.set()
            assert "fpn_queue_images 0.0" in client.get("/metrics").text

    def test_a_body_that_does_not_come_is_given_up(self, app_of: Callable[..., Any]) -> None:
        app = app_of(body_seconds=0.05)
        status, headers, body = asyncio.run(
            talk(app, "/predict", [FILE[:100]], headers={"content-length": "900"}, wait=9)
        )
        assert status == 408
        assert headers[b"connection"] == b"close"
        assert b"did not come within 0.05 s" in body
        assert app.state.bodies.held == 0

    def test_a_body_is_measured_as_it_comes_whatever_it_says_of_itself(self, app_of: Callable[..., Any]) -> None:
        app = app_of(max_bytes=1000)
        chunks = [b"0" * 600] * 3
        for headers in ({"transfer-encoding": "chunked"}, {"content-length": "10"}):
            assert asyncio.run(talk(app, "/predict", chunks, headers=headers))[0] == 413
        assert app.state.bodies.held == 0

    def test_the_time_for_a_body_ends_with_it_also_where_its_form_is_broken(self, app_of: Callable[..., Any]) -> None:
        bodies = app_of(body_seconds=0.05).state.bodies
        headers = [(b"content-type", b"multipart/form-data; boundary=b")]

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"no boundary", "more_body": True}

        async def read() -> int:
            try:
                async with bodies.images(Request({"type": "http", "headers": headers}, receive)):
                    return 200
            except RequestError as error:
                await asyncio.sleep(0.2)  # would be cancelled by what is left of the time
                return error.status

        assert asyncio.run(read()) == 400

    def test_bodies_together_are_bounded(self, app_of: Callable[..., Any]) -> None:
        app = app_of(max_received=1000)
        app.state.bodies.held = 900
        assert asyncio.run(talk(app, "/predict", [b"0" * 200]))[0] == 429
        assert app.state.bodies.held == 900

    def test_of_large_images_only_some_are_held_at_once(
        self, serve: Serve, loaded: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(service, "_LARGE", 4000)
        held = Hold(loaded)
        files = [("image", (f"{k}.png", FILE)) for k in range(4)]
        with serve(held.predictor, readers=1, batch_size=4, wait_ms=0) as client, ThreadPoolExecutor(1) as pool:
            answer = pool.submit(client.post, "/predict", files=files)
            held.go.set()
            assert answer.result(60).status_code == 200
            counted = client.get("/metrics").text
        # Each is looked at alone, since the next one is decoded when it is done.
        assert 'fpn_batch_images_count{model="first"} 4.0' in counted

    def test_nothing_more_is_done_for_a_client_that_left(self, app_of: Callable[..., Any], loaded: Any) -> None:
        held = Hold(loaded)
        app = app_of(held.predictor)

        async def leave() -> Any:
            asyncio.get_running_loop().call_later(0.2, held.go.set)
            return await talk(app, "/predict", [FILE], headers={"content-length": str(len(FILE))})

        # `talk` is gone as soon as its body is sent.
        assert asyncio.run(leave())[0] == 499
        assert app.state.service.waiting == 0

    def test_a_body_that_breaks_off_is_no_fault_of_the_server(self, app_of: Callable[..., Any]) -> None:
        async def break_off() -> Any:
            return await talk(app_of(), "/predict", [FILE[:10]], wait=0.01)

        assert asyncio.run(break_off())[0] == 499


class TestAccess:
    def test_all_but_health_needs_the_token(self, serve: Serve) -> None:
        known = {"Authorization": "Bearer s3cret"}
        with serve(token="s3cret") as client:
            for path in ("/v2", "/metrics", "/openapi.json", "/v2/health/ready", "/other"):
                assert client.get(path).status_code == 401, path
            assert client.post("/predict", content=FILE).status_code == 401
            assert client.get("/health").json() == {"status": "ok"}
            for wrong in ("Bearer s3cre", "Bearer s3cret1", "Basic s3cret", "s3cret", "Bearer \xe9"):
                answer = client.get("/v2", headers={"Authorization": wrong.encode("latin-1")})
                assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
            assert client.get("/v2", headers=known).status_code == 200
            assert client.post("/predict", content=FILE, headers=known).status_code == 200
            counted = client.get("/metrics", headers=known).text
            assert 'fpn_requests_total{code="401",path="/predict"} 1.0' in counted
            assert 'fpn_requests_total{code="401",path="/v2/health/ready"} 1.0' in counted
            assert 'fpn_requests_total{code="401",path="other"} 1.0' in counted
            assert client.get("/health", headers=known).json()["models"]["first"]["number"] == 1

    def test_each_answer_counts_under_its_route_also_where_it_was_refused_before_one_was_looked_for(
        self, app_of: Callable[..., Any]
    ) -> None:
        from fastapi.testclient import TestClient

        app = app_of()
        asked = 0
        with TestClient(app) as client:
            for route in app.routes:
                for method in (*route.methods, "DELETE"):
                    asked += 1
                    address = route.path.replace("{name}", "x")
                    refused = client.request(method, address, headers={"content-encoding": "gzip"})
                    assert refused.status_code == 415
                    counted = client.get("/metrics").text
                    assert f'fpn_requests_total{{code="415",path="{route.path}"}}' in counted, route
            assert 'code="415",path="other"' not in counted
            client.get("/nothing", headers={"content-encoding": "gzip"})
            assert 'code="415",path="other"} 1.0' in client.get("/metrics").text
        assert asked > 20

    def test_health_tells_of_a_file_that_could_not_be_loaded(self, app_of: Callable[..., Any]) -> None:
        from fastapi.testclient import TestClient

        app = app_of()
        app.state.service.models["first"].fault = "m.safetensors: damaged"
        with TestClient(app) as client:
            state = client.get("/health").json()["models"]["first"]
        assert (state["fault"], state["file"]) == ("m.safetensors: damaged", "model.safetensors")

    def test_a_server_that_stops_sends_new_requests_away(self, app_of: Callable[..., Any]) -> None:
        from fastapi.testclient import TestClient

        app = app_of()
        app.state.door.stopping = True
        with TestClient(app) as client:
            assert client.post("/predict", content=FILE).status_code == 503
            assert client.get("/v2/health/ready").status_code == 503
            assert client.get("/health").json() == {"status": "stopping"}

    def test_the_description_needs_nothing_from_elsewhere(self, serve: Serve) -> None:
        with serve() as client:
            assert "/predict" in client.get("/openapi.json").json()["paths"]
            assert client.get("/docs").status_code == 404


def infer(client: Any, **changes: Any) -> Any:
    tensor = {"name": "images", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(FILE).decode()]}
    return client.post("/v2/models/first/infer", json={"id": "a1", "inputs": [{**tensor, **changes}]})


class TestOpenInferenceProtocol:
    def test_a_model_is_described(self, serve: Serve) -> None:
        with serve() as client:
            assert client.get("/v2").json()["name"] == "fpn"
            assert client.get("/v2/health/live").json() == {"live": True}
            assert client.get("/v2/models/first/ready").json() == {"name": "first", "ready": True}
            assert client.get("/v2/models/other/ready").status_code == 404
            about = client.get("/v2/models/first").json()
        assert about["parameters"] == {"classes": ["cell", "platelet"], "category_ids": [7, 3]}
        assert [each["name"] for each in about["outputs"]][:3] == ["counts", "boxes", "scores"]

    def test_an_image_file_gives_what_predict_gives(self, serve: Serve, loaded: Any) -> None:
        with serve() as client:
            answer = infer(client).json()
        found = wanted(loaded, FILE)
        given = {each["name"]: each for each in answer["outputs"]}
        assert (answer["id"], answer["model_name"], answer["model_version"]) == ("a1", "first", "1")
        assert given["boxes"]["shape"] == [1, len(found), 4]
        assert given["boxes"]["data"] == found.boxes.flatten().tolist()
        assert given["labels"]["data"] == found.labels.tolist()
        assert set(given["names"]["data"]) == {"cell", "platelet"}

    def test_pixels_flat_or_nested_give_the_same_and_are_filled_up_to_the_most(self, serve: Serve, loaded: Any) -> None:
        pixels = np.stack([np.asarray(Image.open(io.BytesIO(FILE))), np.zeros((64, 64, 3), np.uint8)])
        with serve(batch_size=1) as client:
            flat, nested = (
                infer(client, datatype="UINT8", shape=[2, 64, 64, 3], data=data).json()["outputs"]
                for data in (pixels.flatten().tolist(), pixels.tolist())
            )
        assert flat == nested
        given = {each["name"]: each for each in flat}
        first, second = (wanted(loaded, FILE), loaded.predict([pixels[1]])[0])
        most = max(len(first), len(second))
        assert given["counts"]["data"] == [len(first), len(second)]
        assert given["boxes"]["shape"] == [2, most, 4]
        labels = given["labels"]["data"]
        assert labels[: len(first)] == first.labels.tolist()
        assert labels[most:] == [*second.labels.tolist(), *[-1] * (most - len(second))]

    def test_outputs_and_a_score_are_chosen(self, serve: Serve, loaded: Any) -> None:
        middle = float(wanted(loaded, FILE).scores[1])
        inputs = [{"name": "images", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(FILE).decode()]}]
        with serve() as client:
            body = {"inputs": inputs, "outputs": [{"name": "counts"}], "parameters": {"score": middle}}
            answer = client.post("/v2/models/first/infer", json=body).json()
            body["outputs"] = [{"name": "masks"}]
            refused = client.post("/v2/models/first/infer", json=body)
        assert answer["outputs"] == [{"name": "counts", "datatype": "INT64", "shape": [1], "data": [2]}]
        assert refused.status_code == 400
        assert refused.json()["error"] == "this model gives no masks"

    def test_an_image_that_can_t_be_read_is_named_once(self, serve: Serve) -> None:
        with serve() as client:
            for data in ("AAAA", ""):
                answer = infer(client, data=[data])
                assert answer.status_code in (400, 422)
                assert answer.json()["error"].count("images[0]") == 1, answer.text
