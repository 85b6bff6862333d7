"""Of equal scores the earlier, and an IoU that is the threshold: OpenVINO decides as the model does."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fpn.errors import ConfigError
from fpn.export.operators import LOWEST, nms_mask
from fpn.export.runtimes import OpenVINORuntime, _as_they_come
from fpn.ops.nms import top_k

onnx = pytest.importorskip("onnx", reason="needs the extra export")
openvino = pytest.importorskip("openvino", reason="needs the extra openvino")
helper, kinds = onnx.helper, onnx.TensorProto
NEVER = -np.inf


def opened(nodes, inputs, outputs, constants, folder):
    from fpn.export.openvino_file import save_openvino

    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()],
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in outputs.items()],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    save_openvino(model.SerializeToString(), {}, folder / "model.xml")
    return OpenVINORuntime(folder / "model.xml", where="model.xml")


def picking(count, folder):
    """The highest of the highest: the second one's shapes hang on the first one's."""
    given = {"scores": (kinds.FLOAT, ["b", "n"])} | ({"count": (kinds.INT64, [1])} if count is None else {})
    return opened(
        [
            helper.make_node("TopK", ["scores", "count"], ["values", "places"], axis=1),
            helper.make_node("Neg", ["values"], ["turned"]),
            helper.make_node("TopK", ["turned", "few"], ["last", "second"], axis=1),
        ],
        given,
        {
            name: (kind, ["b", size])
            for name, kind, size in (
                ("values", kinds.FLOAT, "k"),
                ("places", kinds.INT64, "k"),
                ("last", kinds.FLOAT, 3),
                ("second", kinds.INT64, 3),
            )
        },
        {"few": np.array([3])} | ({} if count is None else {"count": np.array([count])}),
        folder,
    )


SCORES = {
    "all equal": lambda random, shape: np.zeros(shape),
    "many equal": lambda random, shape: np.round(random.standard_normal(shape) * 2),
    "none equal": lambda random, shape: random.permutation(np.prod(shape)).reshape(shape),
    "padding": lambda random, shape: np.where(random.random(shape) < 0.6, NEVER, np.round(random.random(shape) * 3)),
    "numbers and none": lambda random, shape: np.where(random.random(shape) < 0.1, np.nan, 1.0),
}


@pytest.mark.parametrize("fixed", [True, False], ids=["a count in the file", "a count that comes"])
def test_the_earlier_of_equal_scores_is_taken_as_in_the_model(fixed, tmp_path):
    count, random = 40, np.random.default_rng(0)
    run = picking(count if fixed else None, tmp_path)
    for images in (1, 3, 2):  # what an earlier run left must not count
        for length in (40, 41, 700):
            for name, made in SCORES.items():
                scores = made(random, (images, length)).astype(np.float32)
                values, places, last, second = run({"scores": scores} | ({} if fixed else {"count": np.array([count])}))
                assert values.shape == places.shape == (images, count)
                assert ((places >= 0) & (places < length)).all()
                if name == "numbers and none":
                    continue  # anything, but so many
                wanted, where = top_k(torch.from_numpy(scores), count)
                there = wanted > LOWEST
                assert torch.equal(torch.from_numpy(values), wanted)
                assert torch.equal(torch.from_numpy(places)[there], where[there])
                wanted, where = top_k(-wanted, 3)
                assert torch.equal(torch.from_numpy(last), wanted)
                assert name == "padding" or torch.equal(torch.from_numpy(second), where)


@pytest.mark.parametrize("fixed", [True, False], ids=["a count in the file", "a count that comes"])
def test_of_more_scores_than_a_key_has_room_for_the_earlier_is_taken(fixed, tmp_path):
    count, random = 60_000, np.random.default_rng(0)
    scores = random.permutation(70_000)[None].astype(np.float32)
    scores[scores > 69_000] = 69_000  # a few are equal, among more different ones than 31 bits have keys for
    run = picking(count if fixed else None, tmp_path)
    values, places, *_ = run({"scores": scores} | ({} if fixed else {"count": np.array([count])}))
    wanted, where = top_k(torch.from_numpy(scores), count)
    assert torch.equal(torch.from_numpy(values), wanted)
    assert torch.equal(torch.from_numpy(places), where)


def test_more_scores_than_can_be_told_apart_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"8388609 scores are taken at once: an .xml takes at most 8388608"):
        picking(2**23 + 1, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 0.6, 0.7])
def test_a_box_that_overlaps_by_the_threshold_is_kept_or_dropped_as_in_the_model(threshold, tmp_path):
    pytest.importorskip("onnxscript", reason="needs the extra export")
    from fpn.export.onnx_operators import _not_above

    runs = opened(
        [helper.make_node("NonMaxSuppression", ["boxes", "scores", "most", "iou", "least"], ["kept"])],
        {"boxes": (kinds.FLOAT, ["g", "m", 4]), "scores": (kinds.FLOAT, ["g", "c", "m"])},
        {"kept": (kinds.INT64, ["k", 3])},
        {
            "most": np.array([2**31 - 1]),
            "iou": np.array([_not_above(threshold)], np.float32),
            "least": np.array([LOWEST], np.float32),
        },
        tmp_path,
    )
    random, reached = np.random.default_rng(0), 0
    for _ in range(8):  # whole numbers, so that many overlap by a tenth of their union, or two, or three
        corners = random.integers(0, 30, (2, 150, 2))
        boxes = np.concatenate([corners, corners + random.integers(4, 11, (2, 150, 2))], axis=2).astype(np.float32)
        scores = np.round(random.random((2, 3, 150)) * 4).astype(np.float32)
        wanted = nms_mask(torch.from_numpy(boxes), torch.from_numpy(scores), threshold, LOWEST)
        # Above the next number: as many are dropped or kept otherwise as overlap by just the threshold.
        other = nms_mask(torch.from_numpy(boxes), torch.from_numpy(scores), threshold + 1e-7, LOWEST)
        reached += int((wanted != other).sum() + (threshold == 0))
        found = torch.zeros_like(wanted)
        found[tuple(torch.from_numpy(runs({"boxes": boxes, "scores": scores})[0]).T)] = True
        assert torch.equal(found, wanted)
    assert reached > 0 or threshold in (0.5, 0.7)  # where the next number and the one before it decide alike


def test_in_bf16_equal_scores_are_taken_as_they_come(tmp_path):
    picking(40, tmp_path)
    model = openvino.Core().read_model(str(tmp_path / "model.xml"))
    assert sum(node.get_type_name() == "If" for node in model.get_ordered_ops()) == 2
    _as_they_come(model)
    assert sum(node.get_type_name() == "If" for node in model.get_ordered_ops()) == 0
    assert sum(node.get_type_name() == "TopK" for node in model.get_ordered_ops()) == 2
