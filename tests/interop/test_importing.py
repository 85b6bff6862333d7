"""From files to detectors: what is recognised, who says what, what is left over, and what is proven."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from parity.golden import rule
from parity.golden.cases import entries

from fpn.detectors import Detector
from fpn.errors import ConfigError, DataNotFoundError, ModelFileError
from fpn.interop import import_weights
from fpn.interop.class_names import COCO, resolve_classes
from fpn.interop.findings import needed
from fpn.interop.importing import require_detector
from fpn.interop.proof import compare_live, compare_stored
from fpn.interop.python_data import UNKNOWN, read_assignments_of
from fpn.interop.toolkit_configs import read_mmdetection, read_toolkit_config

NAMES = Path(__file__).resolve().parents[3] / "shared" / "golden" / "names"

# --- recognition by names and shapes: no weights, no memory -----------------------------------------------------------

RECOGNISED = {
    "d2_faster": ("Detectron2", "faster_rcnn", "resnet50", 80),
    "mm_faster_x101_32x4d": ("MMDetection", "faster_rcnn", "resnext101_32x4d", 80),
    "mm_fcos_r50_caffe": ("MMDetection", "fcos", "resnet50", 80),
    "mm_retinanet_r18": ("MMDetection", "retinanet", "resnet18", 80),
    "mm_retinanet_r101": ("MMDetection", "retinanet", "resnet101", 80),
    "tv_fasterrcnn_resnet50_fpn_v2": ("torchvision", "faster_rcnn", "resnet50", 90),
}


def shapes(name):
    path = NAMES / f"{name}.json"
    if not path.is_file():
        pytest.skip(f"needs ../shared/golden/names/{path.name}, which is not in this checkout")
    with torch.device("meta"):
        return {each[0]: torch.empty(each[1]) for each in json.loads(path.read_text())["entries"]}


@pytest.mark.parametrize("name", RECOGNISED)
def test_toolkit_detector_backbone_and_classes_are_told_by_names_and_shapes(name):
    state = shapes(name)
    with torch.device("meta"):
        imported = import_weights({"model": {f"module.{key}": value for key, value in state.items()}})
    recipe = require_detector(imported, name).recipe
    assert (imported.toolkit, recipe.kind, recipe.backbone, len(recipe.classes)) == RECOGNISED[name]
    assert needed(imported.leftover) == ()
    assert imported.missing == ()


# Of torchvision before 0.13, which had no norms' counters in its files either.
OLD_NAMES = (
    (r"(fpn\.(?:inner|layer)_blocks\.\d)\.0\.", r"\1."),
    (r"rpn\.head\.conv\.0\.0\.", "rpn.head.conv."),
    (r"(_head\.conv)\.(\d)\.0\.", lambda found: f"{found[1]}.{2 * int(found[2])}."),
    (r"mask_head\.(\d)\.0\.", lambda found: f"mask_head.mask_fcn{int(found[1]) + 1}."),
)


@pytest.mark.parametrize("kind", ["fasterrcnn", "maskrcnn", "keypointrcnn", "retinanet"])
def test_names_of_torchvision_before_0_13_are_all_understood(kind):
    old = {}
    for name, value in shapes(f"tv_{kind}_resnet50_fpn").items():
        for pattern, before in OLD_NAMES:
            name = re.sub(pattern, before, name)
        if not name.endswith("num_batches_tracked"):
            old[name] = value
    assert "backbone.fpn.inner_blocks.0.weight" in old
    with torch.device("meta"):
        imported = import_weights(old)
    assert (imported.toolkit, needed(imported.leftover), imported.missing) == ("torchvision", (), ())


def test_a_resnext_of_detectron2_has_the_pixels_and_strides_of_its_own_configs():
    state = shapes("d2_faster")
    stages = {"res2": 1, "res3": 2, "res4": 4, "res5": 8}
    for name, value in list(state.items()):
        stage = name.split(".")[2] if "bottom_up.res" in name else ""
        if stage and not name.endswith(("shortcut.weight",)) and ".shortcut." not in name:
            width = 128 * stages[stage]  # of conv1 and conv2 in a 32x4d
            shape = list(value.shape)
            if ".conv2.weight" in name:
                shape = [width, width // 32, 3, 3]
            elif ".conv3.weight" in name:
                shape[1] = width
            elif ".conv3." not in name:
                shape[0] = width
            state[name] = torch.empty(shape, device="meta")
    with torch.device("meta"):
        imported = import_weights(state)
    assert imported.module.recipe.backbone == "resnext50_32x4d"
    told = {finding.setting: finding for finding in imported.findings}
    assert told["backbone.stride_on"].value == "3x3"
    assert told["pixels.std"].value == (57.375, 57.12, 58.395)


def test_who_says_a_setting_is_told_and_the_last_word_is_the_persons():
    text = "model = dict(test_cfg=dict(rcnn=dict(score_thr=0.01, max_per_img=300)), backbone=dict(style='caffe'))"
    checkpoint = {"meta": {"cfg": text, "dataset_meta": {"CLASSES": ("a", "b")}}, "state_dict": shapes("mm_faster_r50")}
    with torch.device("meta"):
        imported = import_weights(checkpoint, classes="coco", **{"box.limit": 50})
    told = {finding.setting: (finding.value, finding.how) for finding in imported.findings}
    assert told["box.score_limit"] == (0.01, "model.test_cfg.rcnn.score_thr of the file's own config")
    assert told["backbone.stride_on"] == ("1x1", "model.backbone.style of the file's own config")
    assert told["box.limit"] == (50, "as you said")
    assert {finding.setting for finding in imported.assumed} >= {"pixels.short_side", "roi.sampler", "box.nms"}
    assert imported.module.recipe.category_ids[-1] == 90


# --- files that are not whole -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def minimal():
    state = rule.weights("public/", entries("minimal_fpn.json"))
    return {name: torch.from_numpy(value) for name, value in state.items()}


def saved(path, state):
    torch.save({"model": state}, path)
    return path


def test_a_name_without_a_place_stops_a_file_unless_allowed(minimal, tmp_path):
    path = saved(tmp_path / "a.pth", {**minimal, "mask_head.weight": torch.ones(2)})
    told = (
        r"a\.pth: three-level FPN weights with 1 names that have no place here: mask_head\.weight\. .*--allow-missing"
    )
    with pytest.raises(ModelFileError, match=told):
        import_weights(path)
    assert needed(import_weights(path, allow_missing=True).leftover) == ("mask_head.weight",)


def test_a_missing_weight_stops_a_file_unless_allowed(minimal, tmp_path):
    path = saved(tmp_path / "a.pth", {name: value for name, value in minimal.items() if name != "toplayer2.weight"})
    with pytest.raises(ModelFileError, match=r"a\.pth: .*nothing for neck\.smooths\.p2\.weight"):
        import_weights(path)
    assert import_weights(path, allow_missing=True).missing == ("neck.smooths.p2.weight",)
    with pytest.raises(ModelFileError, match="nothing for"):  # what was allowed once is not for ever
        import_weights(path)


def test_a_pyramid_alone_is_no_model(minimal, tmp_path):
    imported = import_weights(saved(tmp_path / "a.pth", minimal))
    assert imported.form == "torch"
    with pytest.raises(ModelFileError, match="weights of a pyramid without a detector's heads"):
        require_detector(imported, "a.pth")


def test_what_is_wrong_with_settings_of_a_file_names_the_file(minimal, tmp_path):
    path = saved(tmp_path / "a.pth", minimal)
    with pytest.raises(ConfigError, match=r"a\.pth: unknown setting .neck\.width"):
        import_weights(path, neck_width=3)


def test_a_file_of_something_else(tmp_path):
    torch.save([1, 2], tmp_path / "a.pth")
    with pytest.raises(ModelFileError, match="holds a list, expected names and weights"):
        import_weights(tmp_path / "a.pth")


# --- names of classes -------------------------------------------------------------------------------------------------


def test_coco_by_name_has_cocos_ids_with_their_gaps():
    assert resolve_classes("coco", 80).ids[11:13] == (13, 14)
    assert resolve_classes("coco", 80).names == COCO
    counted = resolve_classes("coco", 90)
    assert counted.names[11:13] == ("unused 12", "stop sign")
    assert resolve_classes("coco", 91).names[:2] == ("unused 0", "person")
    assert resolve_classes("coco", 1).names == ("person",)
    with pytest.raises(ConfigError, match="the weights are of 20 classes, COCO has 80"):
        resolve_classes("coco", 20)


def test_classes_from_text_and_files(tmp_path):
    (tmp_path / "names.txt").write_text("cat\ndog\n\n")
    (tmp_path / "coco.json").write_text('{"categories": [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}]}')
    (tmp_path / "odd.json").write_text('{"names": 3}')
    assert resolve_classes("cat, dog", 2).names == ("cat", "dog")
    assert resolve_classes(str(tmp_path / "names.txt"), 2).names == ("cat", "dog")
    assert resolve_classes(tmp_path / "coco.json", 2).ids == (7, 3)
    with pytest.raises(ModelFileError, match="neither a name a line, nor JSON"):
        resolve_classes(tmp_path / "odd.json", 2)
    with pytest.raises(DataNotFoundError, match="no such file of class names"):
        resolve_classes("missing.txt", 2)
    with pytest.raises(ConfigError, match=r"3 class names \(a, b, c, \.\.\.\) for weights of 2 classes"):
        resolve_classes("a,b,c", 2)


def test_names_that_are_none_are_refused(tmp_path):
    (tmp_path / "a.json").write_text('{"categories": [{"id": 1e999, "name": "cat"}]}')
    with pytest.raises(ModelFileError, match="neither a name a line, nor JSON"):
        resolve_classes(tmp_path / "a.json", 1)
    (tmp_path / "b.json").write_text('{"categories": [{"id": 1, "name": "a\\u0000b"}]}')
    with pytest.raises(ConfigError, match=r"b\.json: "):
        resolve_classes(tmp_path / "b.json", 1)
    (tmp_path / "c.txt").write_text("\0" * 30_000)
    with pytest.raises(ConfigError, match=r"c\.txt: classes\[0\]='.*: expected a name of letters") as caught:
        resolve_classes(tmp_path / "c.txt", 1)
    assert len(str(caught.value)) < 1000
    with pytest.raises(ConfigError, match=r"2 class names \(x{40}, b, \.\.\.\) for"):
        resolve_classes(["x" * 9999, "b"], 3)


# --- settings of toolkits ---------------------------------------------------------------------------------------------


def test_a_yaml_of_detectron2_over_its_base(tmp_path):
    (tmp_path / "Base.yaml").write_text(
        "INPUT: {MIN_SIZE_TEST: 800, FORMAT: BGR}\nMODEL:\n  PIXEL_STD: [57.375, 57.12, 58.395]\n"
        "  ANCHOR_GENERATOR: {SIZES: [[32], [64]], ASPECT_RATIOS: [[0.5, 1.0, 2.0]]}\n"
        "  RPN: {PRE_NMS_TOPK_TRAIN: 2000, PRE_NMS_TOPK_TEST: 1000}\n"
    )
    (tmp_path / "x101.yaml").write_text(
        "_BASE_: Base.yaml\nINPUT: {MIN_SIZE_TEST: 640}\nMODEL:\n  RESNETS: {STRIDE_IN_1X1: false}\n"
        "  ROI_HEADS: {SCORE_THRESH_TEST: 0.3}\n  ROI_BOX_HEAD:\n    POOLER_TYPE: ROIPool\n"
        "    BBOX_REG_WEIGHTS: !!python/tuple [10, 10, 5, 5]\n"
    )
    config = read_toolkit_config(tmp_path / "x101.yaml")
    assert config.settings == {
        "pixels.short_side": 640,
        "pixels.channel_order": "bgr",
        "pixels.std": (57.375, 57.12, 58.395),
        "backbone.stride_on": "3x3",
        "anchors.sizes": ((32.0,), (64.0,)),
        "anchors.ratios": (0.5, 1.0, 2.0),
        "box.weights": (10.0, 10.0, 5.0, 5.0),
        "box.score_limit": 0.3,
        "rpn.before_nms": (2000, 1000),
        "roi.sampler": "pool",
    }
    assert config.told["box.score_limit"] == "MODEL.ROI_HEADS.SCORE_THRESH_TEST of x101.yaml"
    assert config.remarks == []


def test_a_base_that_is_not_there_is_said_and_code_in_yaml_is_not_run(tmp_path):
    (tmp_path / "a.yaml").write_text("_BASE_: ../Base-RCNN-FPN.yaml\nTEST: {DETECTIONS_PER_IMAGE: 50}\n")
    config = read_toolkit_config(tmp_path / "a.yaml")
    assert config.settings == {"box.limit": 50, "dense.limit": 50}
    assert config.remarks == ["a.yaml builds on '../Base-RCNN-FPN.yaml', which is not there: what it sets is not known"]
    for text in ("A: !!java/x 1", "A: &x [*x]", "[1, 2]", "A: {"):
        (tmp_path / "b.yaml").write_text(text)
        with pytest.raises(ConfigError, match=r"b\.yaml: (is no YAML that is read|holds no settings by name)"):
            read_toolkit_config(tmp_path / "b.yaml")
    canary = tmp_path / "canary"
    called = f"!!python/object/apply:os.system ['touch {canary}']"
    (tmp_path / "code.yaml").write_text(f"MODEL: {{ANCHOR_GENERATOR: {{SIZES: {called}}}}}")
    config = read_toolkit_config(tmp_path / "code.yaml")
    assert config.settings == {}
    assert config.remarks[0].startswith("code.yaml: MODEL.ANCHOR_GENERATOR.SIZES is Python code, which is not run")
    assert not canary.exists()
    (tmp_path / "c.yaml").write_text("INPUT: {MIN_SIZE_TEST: many}")
    with pytest.raises(ConfigError, match=r"c\.yaml: INPUT\.MIN_SIZE_TEST 'many' is not what it should be"):
        read_toolkit_config(tmp_path / "c.yaml")


@pytest.mark.parametrize(
    "text",
    [
        "A: " + "[" * 60 + "]" * 60,
        "- " * 9000,
        "A: &x {b: *x}",
        "A: !!bool red",
        "A: !!timestamp red",
        "A: !!int ''",
        "A: " + "9" * 5000,
        "2020-13-45: 1",
        "{[a]: b}",
    ],
)
def test_yaml_that_is_nested_repeated_or_of_other_kinds_than_its_tags_is_refused(text, tmp_path):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"a\.yaml: is no YAML that is read( \(|: )"):
        read_toolkit_config(tmp_path / "a.yaml")


def test_a_yaml_of_something_else_is_no_config(tmp_path):
    (tmp_path / "data.yaml").write_text("train: images\nnames: [cat, dog]\n")
    with pytest.raises(ConfigError, match=r"data\.yaml: has none of Detectron2's sections, which are DATALOADER, DATA"):
        read_toolkit_config(tmp_path / "data.yaml")


def test_what_has_no_place_is_called_as_in_the_file():
    state = shapes("d2_panoptic")
    state |= {"stem.weight": torch.empty(1, device="meta"), "stem.norm.weight": torch.empty(1, device="meta")}
    with torch.device("meta"):
        imported = import_weights(state)
    assert needed(imported.leftover)
    assert set(imported.leftover) <= set(state)


@pytest.mark.parametrize("base", ["a" * 5000 + ".yaml", '"\\0.yaml"', "a.yaml", "/dev/zero"])
def test_a_base_that_no_path_can_name_or_that_is_the_file_itself_is_said(base, tmp_path):
    (tmp_path / "a.yaml").write_text(f"_BASE_: {base}\nTEST: {{DETECTIONS_PER_IMAGE: 50}}\n")
    config = read_toolkit_config(tmp_path / "a.yaml")
    assert config.settings["box.limit"] == 50
    assert config.remarks[0].endswith("which is not there: what it sets is not known")


@pytest.mark.parametrize("value", [".inf", ".nan", "[1]", "{a: 1}", "x" * 30_000])
def test_a_size_that_is_no_number_is_named(value, tmp_path):
    (tmp_path / "a.yaml").write_text(f"INPUT: {{MIN_SIZE_TEST: {value}}}")
    with pytest.raises(
        ConfigError, match=r"a\.yaml: INPUT\.MIN_SIZE_TEST ['\"].*['\"] is not what it should"
    ) as caught:
        read_toolkit_config(tmp_path / "a.yaml")
    assert len(str(caught.value)) < 1000


def test_names_that_stand_for_each_other_are_counted_as_often_as_they_stand():
    doubled = "\n".join(["a0 = [1]", *(f"a{n + 1} = [a{n}, a{n}]" for n in range(40))])  # 2**40 ones
    with pytest.raises(ConfigError, match=r"x\.py: its settings are .* more than 100000 values"):
        read_assignments_of(doubled, "x.py")
    assert read_assignments_of("a = [1, 2]\nb = [a, a]", "x.py")["b"] == [[1, 2], [1, 2]]
    with pytest.raises(ConfigError, match=r"x\.py: its settings are nested more than 60 deep"):
        read_assignments_of("a = " + "[" * 70 + "]" * 70, "x.py")
    with pytest.raises(ConfigError, match=r"x\.py: 300001 letters of settings; 300000 are read"):
        read_assignments_of(" " * 300_001, "x.py")


def test_anchors_of_a_config_that_are_no_numbers_are_named():
    text = "model = dict(rpn_head=dict(anchor_generator=dict(scales=['red'], strides=[4])))"
    with pytest.raises(ConfigError, match=r"x\.py: model\.rpn_head\.anchor_generator\.scales .* is not what it should"):
        read_mmdetection(text, "x.py")


def test_a_config_of_mmdetection_is_read_and_not_run(tmp_path):
    text = """
import os
norm = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True)
model = dict(
    data_preprocessor=norm,
    backbone=dict(style='pytorch'),
    rpn_head=dict(anchor_generator=dict(scales=[8], ratios=[0.5, 1.0, 2.0], strides=[4, 8])),
    train_cfg=dict(rpn_proposal=dict(nms_pre=2000, max_per_img=1000)),
    test_cfg=dict(rpn=dict(nms_pre=500, nms=dict(iou_threshold=0.6)), rcnn=dict(max_per_img=-1 + 2)))
test_pipeline = [dict(type='Load'), dict(type='Resize', scale=(1333, 640))]
metainfo = dict(classes=('cat', 'dog'))
evil = os.system('touch canary')
"""
    config = read_mmdetection(text, "epoch_12.py")
    assert config.settings["anchors.sizes"] == ((32.0,), (64.0,))
    assert config.settings["rpn.before_nms"] == (2000, 500)
    assert config.settings["rpn.nms"] == 0.6
    assert config.settings["pixels.mean"] == (123.675, 116.28, 103.53)
    assert (config.settings["pixels.short_side"], config.settings["pixels.long_side"]) == (640, 1333)
    assert "box.limit" not in config.settings  # a sum is no literal
    assert config.classes == ("cat", "dog")
    assert read_assignments_of(text, "x")["evil"] is UNKNOWN
    assert not Path("canary").exists()
    for wrong, told in (
        ("model = (", "are no Python"),
        ("a = 1", r"has no `model = dict"),
        ("x = " + "[" * 300, "are no Python"),
    ):
        with pytest.raises(ConfigError, match=told):
            read_mmdetection(wrong, "x.py")


# --- proof ------------------------------------------------------------------------------------------------------------


def stored(path, detector, **changed):
    image = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    (found,) = detector.predict([image])
    arrays = {"image": image, "boxes": found.boxes.numpy(), "scores": found.scores.numpy()}
    arrays["labels"] = found.labels.numpy()
    np.savez(path, **{f"{name}_0": value for name, value in (arrays | changed).items()})
    return path, found


def test_results_of_the_original_are_compared_one_by_one(small: Detector, tmp_path):
    path, found = stored(tmp_path / "a.npz", small)
    proof = compare_stored(small, path)
    assert (proof.theirs, proof.same, proof.box, proof.score) == (len(found), len(found), 0.0, 0.0)
    assert proof.sizes == ((90, 70),)
    boxes, scores = found.boxes.numpy().copy(), found.scores.numpy() + np.float32(0.25)
    boxes[0] += 0.5
    boxes[1] += 100
    proof = compare_stored(small, stored(tmp_path / "b.npz", small, boxes=boxes, scores=scores)[0])
    assert proof.same == len(found) - 1
    assert proof.box == pytest.approx(0.5, abs=1e-4)
    assert proof.score == pytest.approx(0.25, abs=1e-6)
    assert "detections are the same; largest differences 0.5 pixels and 0.25 of the score" in str(proof)


def test_where_the_toolkit_finds_nothing_nothing_is_proven(small: Detector, tmp_path):
    empty = {"boxes": np.zeros((0, 4)), "scores": np.zeros(0), "labels": np.zeros(0, np.int64)}
    path, found = stored(tmp_path / "a.npz", small, **empty)
    proof = compare_stored(small, path)
    told = f"on 1 images (90x70): NOTHING IS PROVEN, for it finds nothing there; ours {len(found)}"
    assert str(proof) == f"compared with a.npz {told}"
    assert str(replace(proof, ours=0)).endswith("NOTHING IS PROVEN, for it finds nothing there; ours nor anything")


class Unsure(torch.nn.Module):
    """As torchvision's detectors: one box a class, with 90 scores from 0.0001 on."""

    def __init__(self, scores):
        super().__init__()
        self.score_thresh, self.nms_thresh, self.scores = 0.05, 0.5, scores

    def forward(self, _images):
        above = self.scores[self.scores > self.score_thresh]
        return [{"boxes": torch.zeros(len(above), 4), "scores": above, "labels": torch.ones(len(above))}]


def test_where_torchvision_finds_little_lower_scores_are_compared(small: Detector):
    theirs, box = Unsure(torch.tensor([0.02] * 3 + [0.005] * 3)), small.roi_heads.box
    proof = compare_live(small, theirs, 1)
    assert (proof.score_limit, proof.theirs) == (0.001, 18)  # 9 above 0.01
    assert ", scores above 0.001): 0 of 18 detections are the same, ours " in str(proof)
    assert (theirs.score_thresh, box.config.score_limit) == (0.05, 0.2)  # as before
    assert compare_live(small, Unsure(torch.tensor([0.5] * 4)), 1).score_limit is None


def test_results_that_are_none(small: Detector, tmp_path):
    (tmp_path / "a.npz").write_bytes(b"no zip")
    np.savez(tmp_path / "b.npz", other=np.zeros(3))
    np.savez(tmp_path / "c.npz", image_0=np.zeros((5, 5, 3)), boxes_0=np.zeros((0, 4)), scores_0=[], labels_0=[])
    np.savez(tmp_path / "d.npz", image_0=np.array([{}], object))
    for name, told in (
        ("a", "is no .npz of plain arrays"),
        ("b", "has no image_0"),
        ("c", r"image_0 is \(5, 5, 3\) float64, expected"),
        ("d", "boxes_0 is missing"),
    ):
        with pytest.raises(ModelFileError, match=told):
            compare_stored(small, tmp_path / f"{name}.npz")
    with pytest.raises(DataNotFoundError, match="no such file of results"):
        compare_stored(small, tmp_path / "e.npz")
