"""And back: names, shapes and bytes of other toolkits, what they have to be told, and what they can't be."""

import json
import re
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

import fpn
from fpn.detectors.builder import build_detector
from fpn.detectors.presets import DIALECTS_OF
from fpn.detectors.recipe import RECIPES, skeleton_fields
from fpn.errors import ConfigError, OutputError
from fpn.interop import assemble, dense_heads, exporting, import_weights
from fpn.interop.detectron2_export import describe_detectron2, name_for_detectron2
from fpn.interop.export_settings import UnlikeSetting, refuse_unlike
from fpn.interop.exporting import ExportedWeights, convert_weights, export_weights, name_for_torchvision
from fpn.interop.toolkit_configs import read_toolkit_config
from fpn.interop.torchvision_models import describe_torchvision
from fpn.structures.keypoints import COCO_PERSON

NAMES = Path(__file__).resolve().parents[3] / "shared" / "golden" / "names"


def shapes(name):
    path = NAMES / f"{name}.json"
    if not path.is_file():
        pytest.skip(f"needs ../shared/golden/names/{path.name}, which is not in this checkout")
    return {each[0]: tuple(each[1]) for each in json.loads(path.read_text())["entries"]}


def brought(name, monkeypatch):
    """A detector whose weights take no memory, what they were under the toolkit's names, and under ours."""
    taken = {}
    for module in (assemble, dense_heads):
        monkeypatch.setattr(module, "fill_module", lambda _, state, toolkit: taken.update(state))
    with torch.device("meta"):
        given = {key: torch.empty(shape) for key, shape in shapes(name).items()}
        return import_weights(given).module, given, taken


def recipe(kind="faster_rcnn", dialect="torchvision", **changed):
    more = skeleton_fields(COCO_PERSON) if kind == "keypoint_rcnn" else {}
    own = DIALECTS_OF[kind][dialect]
    pixels = {"mean": own.pixels.mean or (0.5, 0.5, 0.5), "std": own.pixels.std or (0.25, 0.25, 0.25)}
    return RECIPES[kind](
        classes=("cat", "dog"), category_ids=(1, 2), dialect=own.changed(pixels=pixels).changed(**changed), **more
    )


# --- names and shapes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("tv_maskrcnn_resnet50_fpn_v2", "maskrcnn_resnet50_fpn_v2"),
        ("tv_retinanet_resnet50_fpn_v2", "retinanet_resnet50_fpn_v2"),
        ("tv_fcos_resnet50_fpn", "fcos_resnet50_fpn"),
    ],
)
def test_what_came_from_torchvision_goes_back_to_its_names_and_shapes(name, function, monkeypatch):
    detector, given, taken = brought(name, monkeypatch)
    model, unlike, learning = describe_torchvision(detector.recipe)
    assert (model.function, unlike, learning) == (function, [], [])
    found = name_for_torchvision(taken, model)
    assert [(key, tuple(value.shape)) for key, value in found.items()] == list(shapes(name).items())
    other = [key for key, value in found.items() if value is not given[key] and not key.endswith("_tracked")]
    assert all(re.search(r"(cls_score|bbox_pred|mask_fcn_logits)\.(weight|bias)$", key) for key in other), other


@pytest.mark.parametrize("name", ["d2_keypoint", "d2_cascade", "d2_retinanet"])
def test_what_came_from_detectron2_goes_back_to_its_names_as_it_was(name, monkeypatch):
    detector, given, taken = brought(name, monkeypatch)
    config, unlike, _ = describe_detectron2(detector.recipe)
    found, left = name_for_detectron2(taken, detector.recipe.dialect)
    assert (unlike, left) == ([], [])
    assert found.keys() == given.keys()
    assert all(value is given[key] for key, value in found.items())
    model = config["MODEL"]
    heads = model["RETINANET"] if name == "d2_retinanet" else model["ROI_HEADS"]
    assert (heads["NUM_CLASSES"], model["RESNETS"]["DEPTH"]) == (1 if name == "d2_keypoint" else 80, 50)


def test_a_resnext_with_norms_in_neck_and_heads_has_its_names_and_groups():
    told = recipe(
        "mask_rcnn",
        "detectron2",
        neck={"norm": "group"},
        rpn={"num_convolutions": 2},
        box={"head": "convolutions", "norm": "batch", "num_convolutions": 2},
        mask={"norm": "batch", "convolutions": 1},
    ).changed(backbone="resnext101_32x8d.fb_wsl_ig1b_ft_in1k")
    with torch.device("meta"):
        found, left = name_for_detectron2(build_detector(told).state_dict(), told.dialect)
    config, unlike, _ = describe_detectron2(told)
    assert (left, unlike) == ([], [])
    resnets = config["MODEL"]["RESNETS"]
    assert (resnets["DEPTH"], resnets["NUM_GROUPS"], resnets["WIDTH_PER_GROUP"]) == (101, 32, 8)
    assert config["MODEL"]["FPN"]["NORM"] == "GN"
    assert tuple(found["backbone.bottom_up.res4.22.conv2.weight"].shape) == (1024, 32, 3, 3)
    assert found.keys() > {
        "backbone.fpn_lateral2.weight",
        "backbone.fpn_lateral2.norm.bias",
        "backbone.fpn_output5.norm.weight",
        "proposal_generator.rpn_head.conv.conv0.weight",
        "proposal_generator.rpn_head.conv.conv1.bias",
        "roi_heads.box_head.conv2.weight",
        "roi_heads.box_head.conv2.norm.running_var",
        "roi_heads.box_head.fc1.weight",
        "roi_heads.mask_head.mask_fcn1.norm.weight",
    }
    assert not any("num_batches_tracked" in name for name in found)


# --- bytes and outputs ------------------------------------------------------------------------------------------------


def numbered(entries):
    """Values that differ in every row, and are small enough that a network's outputs stay finite."""
    torch.manual_seed(0)
    state = {}
    for name, shape in entries.items():
        leaf = name.rpartition(".")[2]
        if leaf == "num_batches_tracked":
            state[name] = torch.zeros((), dtype=torch.int64)
        elif leaf == "running_var" or (len(shape) == 1 and leaf == "weight"):
            state[name] = torch.empty(shape).uniform_(0.5, 0.7)
        elif len(shape) > 1:
            fan = torch.Size(shape[1:]).numel()
            state[name] = torch.empty(shape).normal_(0, fan**-0.5)
        else:
            state[name] = torch.empty(shape).normal_(0, 0.1)
    return state


def test_a_mask_rcnn_of_torchvision_comes_back_to_the_byte_and_finds_the_same_there(tmp_path):
    with torch.device("meta"):
        from torchvision.models import detection

        made = detection.maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=4)
        entries = {name: tuple(value.shape) for name, value in made.state_dict().items()}
    state = numbered(entries)
    for leaf in ("weight", "bias"):  # rows of background, which nobody reads: they are not kept, and come back as zero
        state[f"roi_heads.box_predictor.bbox_pred.{leaf}"][:4] = 0
        state[f"roi_heads.mask_predictor.mask_fcn_logits.{leaf}"][:1] = 0
    detector = import_weights(state, short_side=96, long_side=150, box_limit=3, rpn_after_nms=(30, 30)).module
    path = tmp_path / "a.pth"
    exported = export_weights(detector, path, format="torchvision")
    written = torch.load(path, weights_only=True)
    assert list(written) == list(state)
    for name, value in state.items():
        assert written[name].dtype == value.dtype
        assert torch.equal(written[name], value), name

    scope = {}
    text = exported.instructions.replace('"a.pth"', repr(str(path)))
    exec(compile(text, "instructions", "exec"), scope)
    image = torch.rand(3, 96, 130)
    with torch.no_grad():
        (theirs,) = scope["model"]([image])
    (ours,) = detector.predict([(image.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()])
    assert len(ours) == len(theirs["scores"]) == 3
    torch.testing.assert_close(ours.scores, theirs["scores"], atol=5e-3, rtol=0)  # its image is not in whole numbers
    assert (ours.labels + 1).tolist() == theirs["labels"].tolist()


# --- what they are told -----------------------------------------------------------------------------------------------


def test_the_call_names_what_is_not_as_usual_in_torchvision_and_nothing_else():
    told = recipe(
        pixels={"short_side": 300, "mean": (127.5, 127.5, 127.5), "std": (51.0, 51.0, 51.0), "value_range": 255.0},
        rpn={"before_nms": (2000, 500), "after_nms": (1500, 1000), "nms": 0.6},
        box={"score_limit": 0.2, "limit": 7},
        anchors={"sizes": ((8.0,), (16.0,), (32.0,), (64.0,), (128.0,))},
        backbone={"norm_epsilon": 1e-12},
    )
    model, unlike, learning = describe_torchvision(told)
    assert (unlike, learning) == ([], [])
    assert model.arguments == {
        "num_classes": 3,
        "min_size": 300,
        "image_mean": (0.5, 0.5, 0.5),
        "image_std": (0.2, 0.2, 0.2),
        "rpn_pre_nms_top_n_test": 500,
        "rpn_post_nms_top_n_train": 1500,
        "rpn_nms_thresh": 0.6,
        "box_score_thresh": 0.2,
        "box_detections_per_img": 7,
    }
    assert "rpn_anchor_generator=AnchorGenerator(\n        ((8.0,), (16.0,)" in model.code()
    assert model.code().endswith("        part.eps = 1e-12")
    usual, _, _ = describe_torchvision(recipe("retinanet", "torchvision"))
    assert usual.arguments == {"num_classes": 2}  # no background there
    assert usual.code() == (
        "from torchvision.models import detection\n\nmodel = detection.retinanet_resnet50_fpn(\n"
        "    weights=None,\n    weights_backbone=None,\n    num_classes=2,\n)"
    )


def test_the_config_for_detectron2_is_read_back_as_the_same_settings(tmp_path):
    told = recipe(
        dialect="detectron2",
        pixels={"short_side": 300},
        anchors={"sizes": ((8.0,), (16.0,), (32.0,), (64.0,), (128.0,)), "offset": 0.5},
        rpn={"before_nms": (900, 500)},
        roi={"aligned": False, "sampling_ratio": 2},
        box={"score_limit": 0.2, "limit": 7},
    )
    config, unlike, _ = describe_detectron2(told)
    assert unlike == []
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(config))
    own = told.dialect
    for path, value in read_toolkit_config(tmp_path / "a.yaml").settings.items():
        section, name = path.split(".", 1)
        if path == "box.sampling.count" or section == "dense":
            continue
        assert getattr(getattr(own, section), name) == value, path


def test_the_papers_dialect_is_one_that_detectron2_can_be_told():
    config, unlike, _ = describe_detectron2(recipe(dialect="paper"))
    assert unlike == []
    assert config["MODEL"]["PIXEL_MEAN"] == [127.5, 127.5, 127.5]
    assert repr(config["MODEL"]["PROPOSAL_GENERATOR"]["MIN_SIZE"]) == "0"  # 0.0 would be refused by its config
    assert config["INPUT"]["FORMAT"] == "RGB"
    assert config["MODEL"]["RESNETS"]["STRIDE_IN_1X1"] is False


# --- what is refused --------------------------------------------------------------------------------------------------


def unlike(found):
    return [each.setting for each in found[1]]


def test_every_setting_that_torchvision_cannot_be_told_is_named():
    assert unlike(describe_torchvision(recipe(dialect="paper"))) == [
        "pixels.resize",
        "anchors.rounded",
        "anchors.strides",
        "rpn.min_size",
        "roi.aligned",
        "roi.scale",
        "box.min_size",
    ]
    assert unlike(describe_torchvision(recipe(neck={"channels": 128}))) == ["neck.channels"]
    assert unlike(describe_torchvision(recipe(box={"class_agnostic": True}))) == ["box.class_agnostic"]
    assert unlike(describe_torchvision(recipe(pixels={"long_side": None}))) == ["pixels.long_side"]
    more = {"sizes": ((8.0, 9.0),) * 5}
    assert unlike(describe_torchvision(recipe(anchors=more))) == []
    assert unlike(describe_torchvision(recipe(dialect="torchvision_v2", anchors=more))) == ["anchors.sizes"]
    assert describe_torchvision(recipe("cascade_rcnn", "paper")) == (None, [], [])
    other = recipe().changed(backbone="resnet101", neck="pafpn")
    assert unlike(describe_torchvision(other)) == ["backbone", "neck"]


def test_every_setting_that_detectron2_cannot_be_told_is_named():
    assert unlike(describe_detectron2(recipe(dialect="mmdetection"))) == [
        "pixels.resize",
        "coder.clamp_both",
        "box.nms_frame",
    ]
    assert unlike(describe_detectron2(recipe("retinanet", "mmdetection"))) == [
        "pixels.resize",
        "neck.extra_relu",
        "anchors.order",
        "coder.clamp_both",
        "dense.clipped",
    ]
    widths = recipe(dialect="detectron2", neck={"output_channels": 128})
    assert unlike(describe_detectron2(widths)) == ["neck.output_channels"]
    assert unlike(describe_detectron2(widths.changed(backbone="efficientnet_b0"))) == [
        "backbone",
        "neck.output_channels",
    ]
    assert describe_detectron2(recipe("fcos", "detectron2")) == (None, [], [])


@pytest.mark.parametrize("toolkit", ["torchvision", "detectron2"])
def test_soft_nms_is_refused_by_name_with_a_way_to_keep_the_weights(toolkit):
    told = recipe(dialect=toolkit, box={"suppression": "gaussian"})
    found = {"torchvision": describe_torchvision, "detectron2": describe_detectron2}[toolkit](told)
    assert unlike(found) == ["box.suppression"]
    words = (
        r"box\.suppression is gaussian, there hard: it has no Soft-NMS\n"
        r"`fpn train DATA --init MODEL --suppression hard` goes on with its weights"
    )
    with pytest.raises(ConfigError, match=words):
        refuse_unlike(found[1], told, "theirs", toolkit)
    other = [*found[1], UnlikeSetting("pixels.resize", "pillow", "torch", "x")]
    with pytest.raises(ConfigError, match=rf"A model trained with --dialect {toolkit} --suppression hard can\.$"):
        refuse_unlike(other, told, "theirs", toolkit)


def test_what_matters_in_training_alone_is_no_reason_to_refuse():
    _, unlike, learning = describe_torchvision(recipe(rpn={"beta": 0.5}, box={"sampling": {"count": 64}}))
    assert (unlike, learning) == ([], ["rpn.beta", "box.sampling.count"])


def test_a_refusal_says_which_values_and_why(small, tmp_path):
    told = (
        r"this faster_rcnn can't become torchvision's fasterrcnn_resnet50_fpn, which would find something else with "
        r"its weights:\n  backbone is [\w.]+, there resnet50: [\s\S]*\n  roi\.aligned is True, there False: "
        r"MultiScaleRoIAlign doesn't shift by half a cell\n[\s\S]*A model trained with --dialect torchvision can\."
    )
    with pytest.raises(ConfigError, match=told):
        export_weights(small, tmp_path / "a.pth", format="torchvision")
    with pytest.raises(ConfigError, match=r"Did you mean 'detectron2'"):
        convert_weights(small, format="detectron")
    assert list(tmp_path.iterdir()) == []


# --- files ------------------------------------------------------------------------------------------------------------


def test_nothing_is_replaced_unless_told(small, tmp_path, monkeypatch):
    tiny = ExportedWeights("torchvision", "x", {"a": torch.ones(2)}, "")
    monkeypatch.setattr(exporting, "convert_weights", lambda *_, **__: tiny)
    path = tmp_path / "new" / "a.safetensors"
    export_weights(small, path, format="torchvision")
    assert load_file(path)["a"].tolist() == [1.0, 1.0]
    path.write_bytes(b"mine")
    with pytest.raises(OutputError, match=r"a\.safetensors: is already there\. Name a new file, or say --overwrite"):
        export_weights(small, path, format="torchvision")
    assert path.read_bytes() == b"mine"
    export_weights(small, path, format="torchvision", replace=True)
    assert load_file(path)["a"].tolist() == [1.0, 1.0]
    assert [each.name for each in path.parent.iterdir()] == ["a.safetensors"]


def test_an_unknown_ending_or_a_folder_stops_before_any_work(tmp_path):
    with pytest.raises(ConfigError, match=r"weights are written as \.pth or \.safetensors"):
        fpn.export_weights("missing.safetensors", tmp_path / "a.onnx", format="torchvision")
    (tmp_path / "a.pth").mkdir()
    with pytest.raises(OutputError, match=r"a\.pth: is a folder"):
        fpn.export_weights("missing.safetensors", tmp_path / "a.pth", format="torchvision")
