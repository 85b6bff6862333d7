"""Other toolkits' weights: recognition, what is left over, and what it says of files it can't use."""

import numpy as np
import pytest
import torch
from parity.golden import rule
from parity.golden.cases import entries

import fpn
from fpn.errors import ConfigError, ModelFileError
from fpn.interop import convert


def state_of(names: str, *without: str) -> dict[str, np.ndarray]:
    return {
        name: np.zeros(shape, dtype=np.float32)
        for name, shape in entries(names)
        if not name.startswith(without or ("-",))
    }


@pytest.fixture(scope="module")
def minimal() -> dict[str, np.ndarray]:
    return rule.weights("public/", entries("minimal_fpn.json"))


def test_names_of_no_toolkit():
    with pytest.raises(ModelFileError, match=r"no toolkit that is known .*begin with something\.weight"):
        convert({"something.weight": np.zeros(3)})


def test_a_checkpoint_around_the_weights_and_a_prefix_do_no_harm(minimal):
    wrapped = {"epoch": 3, "model": {f"module.{name}": torch.from_numpy(v) for name, v in minimal.items()}}
    plain, found = convert(minimal).module, convert(wrapped).module
    for name, value in plain.state_dict().items():
        assert torch.equal(found.state_dict()[name], value)


def test_arrays_that_may_not_be_written_to_are_copied(minimal):
    locked = {name: value.copy() for name, value in minimal.items()}
    for value in locked.values():
        value.flags.writeable = False
    weight = convert(locked).module.neck.laterals["c2"].weight
    np.testing.assert_array_equal(weight.detach().numpy(), minimal["latlayer2.weight"])


def test_a_missing_weight_is_named(minimal):
    with pytest.raises(ModelFileError, match=r"nothing for neck\.smooths\.p2\.weight"):
        convert({name: value for name, value in minimal.items() if name != "toplayer2.weight"})


def test_a_weight_of_another_shape_is_named(minimal):
    told = r"neck\.laterals\.c2\.weight has shape \(32, 99, 1, 1\), expected \(32, 128"
    with pytest.raises(ModelFileError, match=told):
        convert({**minimal, "latlayer2.weight": np.zeros((32, 99, 1, 1), dtype=np.float32)})


def test_an_unknown_convention_is_named(minimal):
    with pytest.raises(ConfigError, match=r"unknown setting 'topdown'\. Did you mean 'neck_top_down'"):
        convert(minimal, topdown="nearest")


def test_a_resnet_with_unheard_of_blocks_is_refused():
    with pytest.raises(ModelFileError, match=r"\[1, 2, 2, 2\] blocks a stage"):
        convert(state_of("kuangliu_fpn101.json", "layer1.1."))


@pytest.fixture(scope="module")
def detectron2_state() -> dict[str, np.ndarray]:
    state = rule.weights("public/", ((n, s) for n, s in entries("d2_faster.json") if not n.startswith("backbone")))
    return state_of("d2_faster.json") | state


def test_an_imported_detector_is_one_file_like_any_other(detectron2_state, tmp_path):
    names = [f"thing {k}" for k in range(80)]
    converted = convert(detectron2_state, classes=names, short_side=64)
    detector = converted.module
    assert converted.leftover == ()
    assert tuple(detector.classes) == tuple(names)
    again = fpn.load(fpn.save(detector, tmp_path / "model.safetensors"), device="cpu")
    assert again.recipe == detector.recipe
    assert again.preprocessor == detector.preprocessor
    for name, value in detector.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)
    assert again.features.backbone.net.layer2[0].conv1.stride == (2, 2)


def test_background_moves_from_the_first_class_to_the_last_and_its_boxes_go():
    state = state_of("fpnpt_resnet50.json")
    state["RCNN_cls_score.bias"] = np.arange(21, dtype=np.float32)
    state["RCNN_bbox_pred.bias"] = np.arange(84, dtype=np.float32)
    box = convert(state).module.box
    assert box.scores.bias.tolist() == [*range(1, 21), 0]
    assert box.deltas.bias.tolist() == list(range(4, 84))


def test_class_agnostic_boxes_are_recognised_by_their_number():
    state = state_of("fpnpt_resnet50.json")
    state["RCNN_bbox_pred.weight"] = np.zeros((4, 1024), dtype=np.float32)
    state["RCNN_bbox_pred.bias"] = np.arange(4, dtype=np.float32)
    converted = convert(state)
    assert converted.dialect.box.class_agnostic
    assert converted.module.box.deltas.bias.tolist() == [0, 1, 2, 3]


def test_keras_names_with_and_without_groups_and_axes_turned():
    state = state_of("matterport_mrcnn_resnet50_h5.json", "mrcnn_", "rpn_")
    kernel = rule.weight("public/", "fpn_p3/kernel:0", (3, 3, 256, 256))
    state["fpn_p3/kernel:0"] = kernel
    grouped = {f"model_weights/{name.split('/')[0]}/{name}": value for name, value in state.items()}
    for given in (state, grouped):
        smooth = convert(given).module.neck.smooths["p3"].weight
        np.testing.assert_array_equal(smooth.detach().numpy(), kernel.transpose(3, 2, 0, 1))
