"""`fpn explain`: shapes, receptive fields, anchors, equation 1 and differences, against numbers worked out by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from features.given import pyramid_of
from shell import Shell
from torch import nn

import fpn
from fpn.detectors.dialect import Dialect
from fpn.detectors.segment_toolkits import SEGMENT_DIALECTS
from fpn.detectors.toolkits import DETECTRON2, DIALECTS, FPN_PYTORCH, MATTERPORT, MINIMAL, PAPER, PYTORCH_FPN
from fpn.errors import ConfigError, DataNotFoundError
from fpn.features.extractor import BottomUp, FeatureExtractor
from fpn.shapes import Size
from fpn.structures import Level
from fpn.studies.explain.dialect_tables import compared, conventions, differences, whole
from fpn.studies.explain.equation_one import route
from fpn.studies.explain.geometry import Box, read_box, read_size, view
from fpn.studies.explain.pyramid import Explanation, dialects_page, explain_dialect, explain_model
from fpn.studies.explain.receptive_field import receptive_fields
from fpn.studies.explain.windows import windows_table
from fpn.studies.tables import TextTable

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="module")
def paper() -> Explanation:
    return explain_dialect(PAPER, Size(1000, 800), as_is=True)


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.setenv("COLUMNS", "80")
    return Shell(capsys)


def fields(explained: Explanation) -> dict[str, int | None]:
    return {facts.level.name: facts.receptive_field for facts in (*explained.bottom_up, *explained.levels)}


# --- shapes and anchors -----------------------------------------------------------------------------------------


def test_the_papers_image_has_199974_anchors(paper):
    assert [tuple(facts.size) for facts in paper.levels] == [(250, 200), (125, 100), (63, 50), (32, 25), (16, 13)]
    assert [facts.num_anchors for facts in paper.levels] == [150_000, 37_500, 9_450, 2_400, 624]
    assert paper.num_anchors == 199_974


def test_channels_and_strides_are_those_of_resnet50_and_the_pyramid(paper):
    assert [facts.level for facts in paper.bottom_up] == [
        Level("c2", 256, 4, 2),
        Level("c3", 512, 8, 3),
        Level("c4", 1024, 16, 4),
        Level("c5", 2048, 32, 5),
    ]
    assert {facts.level.channels for facts in paper.levels} == {256}
    assert [facts.level.stride for facts in paper.levels] == [4, 8, 16, 32, 64]


def test_kuangliu_at_600x900_has_the_shapes_of_its_readme():
    explained = explain_dialect(PYTORCH_FPN, Size(600, 900))
    assert [tuple(facts.size) for facts in explained.levels] == [(150, 225), (75, 113), (38, 57), (19, 29)]
    assert explained.num_anchors == 0


def test_the_three_level_net_at_256():
    explained = explain_dialect(MINIMAL, Size(256, 256))
    assert [(f.level.name, f.size.height, f.level.channels) for f in explained.levels] == [
        ("p1", 128, 32),
        ("p2", 64, 32),
        ("p3", 32, 32),
    ]


def test_fpn_pytorch_says_that_its_anchors_of_p5_are_too_far_apart():
    explained = explain_dialect(FPN_PYTORCH, Size(480, 640), backbone="resnet26")
    assert [facts.level.stride for facts in explained.levels] == [4, 8, 16, 16, 32]
    notes = explained.table().notes
    assert "p5: cells are 16 pixels apart, but its anchors 32." in notes
    assert "p6: cells are 32 pixels apart, but its anchors 64." in notes


# --- how an image enters ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dialect", "network", "padded"),
    [
        ("paper", (800, 1067), (800, 1088)),  # 640 * 800 / 480 = 1066.67, up to a multiple of 32
        ("torchvision", (800, 1066), (800, 1088)),  # rounded down
        ("fpn_pytorch", (600, 800), (600, 800)),
        ("matterport", (768, 1024), (1024, 1024)),  # min(800 / 480, 1024 / 640), then a square
    ],
)
def test_a_480x640_image_enters(dialect, network, padded):
    seen = view(DIALECTS[dialect], Size(480, 640), as_is=False)
    assert (tuple(seen.network), tuple(seen.padded)) == (network, padded)


def test_as_is_nothing_is_scaled_or_padded():
    seen = view(PAPER, Size(481, 639), as_is=True)
    assert (seen.padded, seen.scale) == (Size(481, 639), (1.0, 1.0))


def test_sizes_are_width_by_height():
    assert read_size("640x480") == Size(height=480, width=640)
    assert read_size("640 X 480") == read_size("640\u00d7480") == Size(480, 640)
    assert read_size("cells.safetensors") is None
    assert read_box("40x60.5") == Box(width=40, height=60.5)


# --- receptive fields -------------------------------------------------------------------------------------------


def test_resnet50_with_the_stride_on_the_3x3_sees_427(paper):
    # 7/2, pool 3/2: 11 at step 4. Three 3x3 at step 4: 11 + 3 * 8 = 35. A stride-2 3x3 at 4 and three at 8:
    # 35 + 8 + 3 * 16 = 91. One at 8, five at 16: 91 + 16 + 5 * 32 = 267. One at 16, two at 32: 267 + 32 + 2 * 64.
    own = fields(paper)
    assert [own[name] for name in ("c2", "c3", "c4", "c5")] == [35, 91, 267, 427]


def test_the_top_down_path_makes_every_level_see_what_p5_sees(paper):
    # p5: a 3x3 at step 32: 427 + 64. Finer: three cells of a merge lie on two of the coarser one: 427 + 32.
    own = fields(paper)
    assert [own[name] for name in ("p2", "p3", "p4", "p5", "p6")] == [459, 459, 459, 491, 491]


def test_resnet50_with_the_stride_on_the_1x1_sees_483():
    # All 3x3 of a stage at its own step: 35 + 4 * 16 = 99, + 6 * 32 = 291, + 3 * 64 = 483, as published for ResNet v1.
    own = fields(explain_dialect(DETECTRON2, Size(64, 64), as_is=True))
    assert [own[name] for name in ("c2", "c3", "c4", "c5")] == [35, 99, 291, 483]


def test_the_three_level_net_sees_31_39_47():
    # c1..c3: 3, 7, 15. p3: 3x3 at step 8: 15 + 16. Every finer level: its 3x3 lies on two cells of the one above.
    assert fields(explain_dialect(MINIMAL, Size(64, 64))) == {"c1": 3, "c2": 7, "c3": 15, "p1": 47, "p2": 39, "p3": 31}


def test_bilinear_top_down_sees_a_cell_further_than_nearest():
    class Halving(BottomUp):
        levels = (Level("c2", 3, 4, 2), Level("c3", 3, 8, 3))

        def forward(self, x):
            return {"c2": nn.functional.avg_pool2d(x, 4), "c3": nn.functional.avg_pool2d(x, 8)}

    def p2(top_down):
        with torch.device("meta"):
            neck = pyramid_of(Halving.levels, channels=3, top_down=top_down)
            features = FeatureExtractor(backbone=Halving(), neck=neck)
        return receptive_fields(features)["p2"]

    # Three cells of p2 lie on 2 cells of c3 with nearest. Bilinear reads two neighbours for each: 3 cells.
    assert (p2("nearest"), p2("bilinear")) == (16, 24)


def measured(*layers, name="x"):
    with torch.device("meta"):
        net = nn.Sequential(*layers).eval()
    return receptive_fields(lambda pixels: {name: net(pixels)})


def test_dilation_and_padding_count():
    assert measured(nn.Conv2d(3, 4, 3, dilation=2), nn.ReLU(), nn.Conv2d(4, 4, 5)) == {"x": 9}  # 1 + 2 * 2 + 4


def test_a_squeeze_and_excite_gate_sees_the_whole_image():
    class Gate(nn.Module):
        def forward(self, x):
            return x * x.mean((2, 3), keepdim=True).sigmoid()

    assert measured(nn.Conv2d(3, 4, 3), Gate()) == {"x": None}


def test_a_norm_over_channels_sees_no_further():
    class ChannelNorm(nn.Module):
        def forward(self, x):
            return nn.functional.layer_norm(x.permute(0, 2, 3, 1), (4,)).permute(0, 3, 1, 2)

    assert measured(nn.Conv2d(3, 4, 3), ChannelNorm(), nn.GELU()) == {"x": 3}


def test_windows_of_attention_see_themselves_only():
    class Windows(nn.Module):
        def forward(self, x):
            b, c, h, w = x.shape
            tokens = x.view(b, c, h, w // 8, 8).permute(0, 2, 3, 4, 1).reshape(-1, 8, c)
            tokens = (tokens @ tokens.transpose(1, 2)).softmax(-1) @ tokens
            return tokens.view(b, h, w // 8, 8, c).permute(0, 4, 1, 2, 3).reshape(b, c, h, w)

    assert measured(Windows()) == {"x": 8}
    assert measured(Windows(), nn.Conv2d(3, 3, 3)) == {"x": 16}


def test_attention_over_all_patches_sees_the_whole_image():
    class Attention(nn.Module):
        def forward(self, x):
            tokens = x.flatten(2).transpose(1, 2)[:, None]  # (B, 1, cells, C)
            found = nn.functional.scaled_dot_product_attention(tokens, tokens, tokens)
            return found[:, 0].transpose(1, 2).reshape(x.shape)

    assert measured(nn.Conv2d(3, 4, 16, stride=16), Attention()) == {"x": None}


def test_cells_that_a_transposed_convolution_makes_of_one_see_what_it_sees():
    halved, doubled = nn.Conv2d(3, 4, 2, stride=2), nn.ConvTranspose2d(4, 4, 2, stride=2)
    assert measured(halved, doubled) == {"x": 2}
    assert measured(halved, doubled, nn.Conv2d(4, 4, 3)) == {"x": 4}  # three cells are of two


def test_a_neck_that_came_later_is_explained_like_the_pyramid():
    explained = explain_dialect(PAPER, Size(64, 64), backbone="resnet18", neck="simple_pyramid", as_is=True)
    assert explained.subject == "paper, simple_pyramid over resnet18"
    # c4 sees 211 pixels, and the 3x3 convolution of p4 a cell more on either side.
    assert fields(explained)["c4"] == 211
    assert fields(explained)["p4"] == 211 + 2 * 16
    assert [facts.level.stride for facts in explained.levels] == [4, 8, 16, 32, 64]


def test_an_operation_without_a_rule_is_admitted():
    class Sorted(nn.Module):
        def forward(self, x):
            return x.sort(dim=3).values

    assert measured(Sorted()) == {}


# --- equation 1 -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dialect", "edges"),
    [
        (PAPER, (112.0, 224.0, 448.0)),
        (FPN_PYTORCH, (49.98, 135.86, 369.31)),  # 224 * exp(-1.5), exp(-0.5), exp(0.5)
        (MATTERPORT, (79.20, 158.39, 316.78)),  # 224 * 2 ** -1.5, 2 ** -0.5, 2 ** 0.5
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_levels_change_at(dialect, edges):
    found = route(dialect).edges
    assert list(found) == ["p3", "p4", "p5"]
    assert list(found.values()) == pytest.approx(list(edges), abs=0.01)


def test_a_box_of_40x60_in_a_480x640_image():
    # paper: sqrt(2400) * 800 / 480 = 81.6 < 112; fpn.pytorch: * 600 / 480 = 61.2 > 50; matterport: * 1.6 = 78.4 < 79.2
    def level(dialect: Dialect) -> str:
        return route(dialect, [Box(40, 60)], seen=view(dialect, Size(480, 640), as_is=False)).levels[0]

    assert [level(PAPER), level(FPN_PYTORCH), level(MATTERPORT)] == ["p2", "p3", "p2"]


def test_an_edge_belongs_to_the_coarser_level():
    assert route(PAPER, [Box(223.9, 223.9), Box(224, 224), Box(448, 112), Box(5000, 5000)]).levels == (
        "p3",
        "p4",
        "p4",
        "p5",
    )


# --- dialects ---------------------------------------------------------------------------------------------------


def test_each_convention_comes_with_its_meaning():
    by_path = {each.path: each for each in conventions()}
    assert by_path["roi.canonical_level"].meaning == "k0 of equation 1."
    assert (by_path["roi.canonical_level"].section, by_path["pixels.channel_order"].section) == ("roi", "pixels")
    assert by_path["rpn.sampling.count"].of(PAPER) == 256


def test_only_what_differs_is_shown():
    rows = {row[0].partition("\n")[0]: row[1:] for row in differences(PAPER, DETECTRON2).rows}
    assert rows["pixels.channel_order"] == ("rgb", "bgr")
    assert rows["backbone.stride_on"] == ("3x3", "1x1")
    assert rows["roi.sampling_ratio"] == ("2", "0")
    assert "anchors.sizes" not in rows
    assert differences(PAPER, PAPER).rows == ()


def test_a_pyramid_without_a_detector_has_no_conventions_about_boxes():
    assert [table.title for table in whole(MINIMAL)] == ["backbone: bottom-up path", "neck: pyramid"]
    everyone = {table.title: table for table in compared()}
    assert not any("minimal" in row[1] for row in everyone["anchors: shapes and places"].rows)
    assert any("minimal" in row[1] for row in everyone["neck: pyramid"].rows)


def test_the_page_in_docs_is_fresh():
    written = (DOCS / "dialects.md").read_text(encoding="utf-8")
    assert written == dialects_page() + "\n", "run: fpn explain --dialects --markdown > docs/dialects.md"


def test_markdown_keeps_its_columns_whatever_a_cell_holds():
    table = TextTable(title="T", columns=("a", ">b"), rows=(("name\nwhy", "x | y"),), notes=("n",))
    assert table.markdown() == "## T\n\n| a | b |\n| --- | ---: |\n| **name**<br>why | x \\| y |\n\nn"


def test_the_papers_windows_are_for_objects_of_32_to_724_pixels():
    explained = explain_dialect(
        SEGMENT_DIALECTS["paper"], Size(64, 64), kind="segment_proposals", backbone="resnet18", as_is=True
    )
    rows = windows_table(explained).rows
    assert rows[:3] == (
        ("p2", "5x5", "32", "40", "256"),
        ("p2", "7x7", "45", "57", "256"),
        ("p3", "5x5", "64", "80", "64"),
    )
    assert rows[-1] == ("p6", "7x7", "724", "905", "1")
    assert windows_table(explain_dialect(PAPER, Size(64, 64), backbone="resnet18", as_is=True)) is None


# --- the command ------------------------------------------------------------------------------------------------


def test_explain_a_size_at_80_columns(shell):
    shown = shell("explain", "256x256", "--dialect", "minimal").out
    assert "minimal over three convolutions: an image of 256x256" in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_explain_a_model_and_what_it_changed(shell, tmp_path):
    torch.manual_seed(0)
    detector = fpn.faster_rcnn(
        classes=["cell"], backbone="resnet18", weights=None, channels=8, head_width=8, short_side=320
    )
    path = fpn.save(detector, tmp_path / "cells.safetensors")
    explained = explain_model(path, Size(480, 640))
    assert explained.view.padded == Size(320, 448)  # 426.7 up to a multiple of 32
    assert [facts.num_anchors for facts in explained.levels] == [26_880, 6_720, 1_680, 420, 105]
    shown = shell("explain", path, "--against", "paper", "--box", "30x30", "200x200", "--markdown").out
    assert "this model and paper differ in 7 of" in shown
    assert "| this model | 0.67 | p2 | p3 |" in shown  # 200 * 2 / 3 = 133
    assert "| paper | 1.67 | p2 | p4 |" in shown  # 200 * 5 / 3 = 333


def test_two_dialects_side_by_side(shell):
    shown = shell("explain", "--dialect", "fpn_pytorch", "--against", "paper").out
    assert "bilinear_corners" in shown
    assert "round(4 + ln(s / 224))     50  136  369" in shown
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "nothing to explain: name an image size, such as 640x480, a model file"),
        (["640x480", "--dialect", "torchvison"], "Did you mean 'torchvision'?"),
        (["64ox480"], "'64ox480': neither a size (width x height, such as 640x480) nor a model file"),
        (["0x480"], "size 0x480: a side is 0"),
        (["99999x99999"], "10000 million pixels, more than the limit of 134"),
        (["64x64", "--dialect", "minimal", "--box", "4x4"], "--box: minimal is a pyramid without a detector"),
        (["64x64", "--dialect", "minimal", "--backbone", "resnet18"], "dialect minimal has a backbone of its own"),
        (["1x1", "--as-is", "--dialect", "fpn_pytorch", "--backbone", "resnet26"], "size 1x1 is too small"),
        (["m.safetensors"], "m.safetensors: no such model file"),
        (["--dialects", "--against", "paper"], "--against: has no meaning here"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_words_are_answered(shell, words, said):
    assert said in shell.fails("explain", *words)


def test_what_a_model_says_itself_is_not_taken_from_an_option(shell, tmp_path):
    (tmp_path / "m.safetensors").touch()
    assert "--backbone: has no meaning here" in shell.fails(
        "explain", tmp_path / "m.safetensors", "--backbone", "resnet18"
    )


@pytest.mark.parametrize("text", ["0x3", "3", "axb", "4x", "-4x4"])
def test_a_bad_box_is_refused(text):
    with pytest.raises(ConfigError, match=r"such as 40x60"):
        read_box(text)


def test_a_missing_model_is_not_found(tmp_path):
    with pytest.raises(DataNotFoundError):
        explain_model(tmp_path / "none.safetensors", Size(480, 640))
