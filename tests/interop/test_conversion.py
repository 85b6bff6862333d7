"""Other toolkits' weights: recognition, what is left over, and what it says of files it can't use."""

import numpy as np
import pytest
import torch
from parity.golden import rule
from parity.golden.cases import entries

import fpn
from fpn.errors import ConfigError, ModelFileError
from fpn.interop import import_weights


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
    with pytest.raises(ModelFileError, match=r"no toolkit .* has such names: they begin with something\.weight"):
        import_weights({"something.weight": np.zeros(3)})


def test_a_checkpoint_around_the_weights_and_a_prefix_do_no_harm(minimal):
    wrapped = {"epoch": 3, "model": {f"module.{name}": torch.from_numpy(v) for name, v in minimal.items()}}
    plain, found = import_weights(minimal).module, import_weights(wrapped).module
    for name, value in plain.state_dict().items():
        assert torch.equal(found.state_dict()[name], value)


@pytest.mark.parametrize("prefix", ["module.", "ema.", "model.", "ema_model.module.", "_orig_mod.module."])
def test_what_trainers_and_averages_put_before_names_does_no_harm(minimal, prefix):
    averaged = {"n_averaged": torch.tensor(3), **{f"{prefix}{name}": value for name, value in minimal.items()}}
    weight = import_weights({"ema_state_dict": averaged}).module.neck.laterals["c2"].weight
    np.testing.assert_array_equal(weight.detach().numpy(), minimal["latlayer2.weight"])


def test_what_an_average_was_made_from_is_left_out_and_said(minimal):
    beside = {f"ema_{name.replace('.', '_')}": value + 1 for name, value in minimal.items()}
    imported = import_weights({**minimal, **beside})
    weight = imported.module.neck.laterals["c2"].weight
    np.testing.assert_array_equal(weight.detach().numpy(), minimal["latlayer2.weight"])
    assert imported.leftover[-len(beside) :] == tuple(beside)
    assert imported.remarks == (f"{len(beside)} weights ema_... beside those of the average are left out",)


def test_what_is_no_weight_beside_the_weights_is_passed_over(minimal):
    others = {3: np.ones(2), "names": np.array(["a"]), "words": ["b"], "history": {"lr": 0.1}}
    weight = import_weights({**minimal, **others}).module.neck.laterals["c2"].weight
    np.testing.assert_array_equal(weight.detach().numpy(), minimal["latlayer2.weight"])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite_are_named(minimal, value):
    spoilt = minimal["latlayer2.weight"].copy()
    spoilt[3, 2] = value
    told = r"weights: neck\.laterals\.c2\.weight holds numbers that are not finite\. Is the file whole\?"
    with pytest.raises(ModelFileError, match=told):
        import_weights({**minimal, "latlayer2.weight": spoilt})


def meta_state(names: str) -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        return {name: torch.empty(shape) for name, shape in entries(names)}


@pytest.mark.parametrize(
    ("names", "old", "new"),
    [
        ("d2_faster.json", "backbone.fpn_lateral2.weight", "backbone.fpn_lateral2.wieght"),
        ("d2_faster.json", "roi_heads.box_predictor.bbox_pred.weight", "roi_heads.box_predictor.bbox_pred.w"),
        ("d2_retinanet.json", "head.bbox_pred.weight", "head.box_pred.weight"),
        ("fpnpt_resnet50.json", "RCNN_bbox_pred.weight", "RCNN_box_pred.weight"),
        ("matterport_mrcnn_resnet50_h5.json", "fpn_p2/kernel:0", "fpn_p2/kernal:0"),
        ("minimal_fpn.json", "toplayer1.weight", "toplayer1.weight.0"),
    ],
)
def test_names_that_nearly_match_are_refused_as_weights(names, old, new):
    state = meta_state(names)
    assert old in state
    with torch.device("meta"), pytest.raises(ModelFileError):
        import_weights({new if name == old else name: value for name, value in state.items()})


@pytest.mark.parametrize(
    ("shape", "told"),
    [
        ((), "not enough values to unpack"),
        ((0,), "not enough values to unpack"),
        ((1, 1, 1, 1, 1), "too many values to unpack"),
        ((1, 1024), "weights of 0 classes, background not counted; expected 1 to 100000"),
        ((10**6 + 1, 1024), "weights of 1000000 classes, background not counted; expected 1 to 100000"),
    ],
)
def test_shapes_that_no_detector_has_are_refused_as_weights(shape, told):
    state = meta_state("d2_faster.json")
    name = "roi_heads.box_predictor.cls_score.weight"
    assert name in state
    with torch.device("meta"), pytest.raises(ModelFileError, match=told):
        import_weights({**state, name: torch.empty(shape)})


def test_a_detector_much_larger_than_its_weights_is_not_built():
    state = meta_state("d2_faster.json")
    name = "proposal_generator.rpn_head.conv.weight"
    assert name in state
    # A million channels of the RPN, each without a number: what is built for them would be 2.3 billion numbers.
    with torch.device("meta"), pytest.raises(ModelFileError, match="describes a larger detector than it has weights"):
        import_weights({**state, name: torch.empty(10**6, 0, 3, 3)})


def test_arrays_that_may_not_be_written_to_are_copied(minimal):
    locked = {name: value.copy() for name, value in minimal.items()}
    for value in locked.values():
        value.flags.writeable = False
    weight = import_weights(locked).module.neck.laterals["c2"].weight
    np.testing.assert_array_equal(weight.detach().numpy(), minimal["latlayer2.weight"])


def test_a_missing_weight_is_named(minimal):
    with pytest.raises(ModelFileError, match=r"nothing for neck\.smooths\.p2\.weight"):
        import_weights({name: value for name, value in minimal.items() if name != "toplayer2.weight"})


def test_a_weight_of_another_shape_is_named(minimal):
    told = r"neck\.laterals\.c2\.weight has shape \(32, 99, 1, 1\), expected \(32, 128"
    with pytest.raises(ModelFileError, match=told):
        import_weights({**minimal, "latlayer2.weight": np.zeros((32, 99, 1, 1), dtype=np.float32)})


def test_an_unknown_convention_is_named(minimal):
    with pytest.raises(ConfigError, match=r"unknown setting 'topdown'\. Did you mean 'neck_top_down'"):
        import_weights(minimal, topdown="nearest")


def test_a_resnet_with_unheard_of_blocks_is_refused():
    with pytest.raises(ModelFileError, match=r"\[1, 2, 2, 2\] blocks a stage"):
        import_weights(state_of("kuangliu_fpn101.json", "layer1.1."))


@pytest.fixture(scope="module")
def detectron2_state() -> dict[str, np.ndarray]:
    state = rule.weights("public/", ((n, s) for n, s in entries("d2_faster.json") if not n.startswith("backbone")))
    return state_of("d2_faster.json") | state


def test_an_imported_detector_is_one_file_like_any_other(detectron2_state, tmp_path):
    names = [f"thing {k}" for k in range(80)]
    imported = import_weights(detectron2_state, classes=names, short_side=64)
    detector = imported.module
    assert imported.leftover == ()
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
    box = import_weights(state).module.roi_heads.box
    assert box.scores.bias.tolist() == [*range(1, 21), 0]
    assert box.deltas.bias.tolist() == list(range(4, 84))


def test_class_agnostic_boxes_are_recognised_by_their_number():
    state = state_of("fpnpt_resnet50.json")
    state["RCNN_bbox_pred.weight"] = np.zeros((4, 1024), dtype=np.float32)
    state["RCNN_bbox_pred.bias"] = np.arange(4, dtype=np.float32)
    imported = import_weights(state)
    assert imported.dialect.box.class_agnostic
    assert imported.module.roi_heads.box.deltas.bias.tolist() == [0, 1, 2, 3]


def test_keras_names_with_and_without_groups_and_axes_turned():
    state = state_of("matterport_mrcnn_resnet50_h5.json", "mrcnn_", "rpn_")
    kernel = rule.weight("public/", "fpn_p3/kernel:0", (3, 3, 256, 256))
    state["fpn_p3/kernel:0"] = kernel
    grouped = {f"model_weights/{name.split('/')[0]}/{name}": value for name, value in state.items()}
    for given in (state, grouped):
        smooth = import_weights(given).module.neck.smooths["p3"].weight
        np.testing.assert_array_equal(smooth.detach().numpy(), kernel.transpose(3, 2, 0, 1))
