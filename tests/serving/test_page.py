"""The page in a real browser: Debian's chromium, driven by Playwright, on a server of this process."""

from __future__ import annotations

import base64
import io
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from contracts.test_detectors import KEYPOINTS, SMALL
from export.test_exported import OUTPUTS, Runtime
from PIL import Image
from studies.diagnosis.planted import detector, scattered

import fpn
from fpn.detectors import Detector
from fpn.export.exported import ExportedDetector
from fpn.export.header import GraphInfo
from fpn.export.runtimes import Arrays
from fpn.heads.box import BoxHead
from fpn.inference.optimize import OptimizationInfo, OptimizedDetector
from fpn.serving import ServerSettings, build_app
from fpn.serving.models import ServedModel, ServedModels
from fpn.structures import Classes, Skeleton
from serving.conftest import listening

sync_api = pytest.importorskip("playwright.sync_api", reason="needs Playwright, of the extra dev")
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium (Debian's package of that name)")

# What a class may be called by somebody who wants a page to run it.
HOSTILE = "<img src=x onerror=alert(1)>"
WAIT = 10_000  # ms


def less_sure_of_dogs(head: BoxHead) -> None:
    """A cat's score is e^6 / (e^6 + e^3 + 2) = 0.95, a dog's e^3.5 / (e^3.5 + e^3 + 2) = 0.60."""
    head.scores.weight[1, 1] = 3.5


def planted() -> Detector:
    """Knows 16 objects of 256 x 256 pixels, 8 cats and 8 dogs."""
    made = detector(scattered(), head=less_sure_of_dogs, masks=True)
    made.classes = Classes.of((HOSTILE, "dog", "cow"))
    return OptimizedDetector(made, OptimizationInfo("float32", "cpu", folded=False, compiled=False))


class Points(Runtime):
    """Finds the box of the tests' runtime with three keypoints, the last of which it is not sure of."""

    def __call__(self, arrays: Arrays) -> list[np.ndarray]:
        found = super().__call__(arrays)
        points = np.zeros((*found[0].shape[:2], 3, 3), np.float32)
        points[:, 0] = [[10, 10, 0.9], [40, 60, 0.8], [50, 20, 0.01]]
        return [*found, points]


def with_keypoints() -> Detector:
    skeleton = Skeleton(("left", "right", "tip"), edges=((0, 1), (1, 2)))
    made = fpn.keypoint_rcnn(**SMALL, **{**KEYPOINTS, "skeleton": skeleton}, head_width=8)
    header = GraphInfo("original", (*OUTPUTS, "keypoints")).header(made)
    return ExportedDetector(Points(), header, where="b.onnx")


def exported() -> Detector:
    header = GraphInfo("original", OUTPUTS).header(detector([]))
    return ExportedDetector(Runtime(), header, where="a.onnx")


@contextmanager
def serving(folder: Path, settings: ServerSettings, **makers: Callable[[], Detector]) -> Iterator[str]:
    """The address of a server of these models."""
    models = []
    for name, maker in makers.items():
        (folder / name).write_bytes(b"loaded by a function")
        models.append(ServedModel(name, folder / name, lambda path, maker=maker: maker()))
    with listening(build_app(ServedModels(models), settings)) as address:
        yield address


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder, settings = tmp_path_factory.mktemp("models"), ServerSettings(wait_ms=0)
    with serving(folder, settings, planted=planted, exported=exported, points=with_keypoints) as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[sync_api.Browser]:
    with sync_api.sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield made
        made.close()


class Watched:
    """A page that notes what it should not do: errors, and requests to elsewhere."""

    def __init__(self, page: sync_api.Page, address: str) -> None:
        self.page, self.faults = page, []
        page.set_default_timeout(WAIT)
        page.on("console", lambda said: self._note(said.type in ("error", "warning"), said.text))
        page.on("pageerror", lambda error: self._note(True, str(error)))
        page.on("dialog", lambda dialog: (self._note(True, dialog.message), dialog.dismiss()))
        page.on("request", lambda asked: self._note(not asked.url.startswith((address, "blob:", "data:")), asked.url))
        page.goto(address)
        page.locator("#about:has-text('class')").wait_for()

    def _note(self, fault: bool, what: str) -> None:
        # What the server refuses chromium logs, too.
        if fault and not re.search(r"status of (401|422)", what):
            self.faults.append(what)


@pytest.fixture(scope="module")
def opened(browser: sync_api.Browser, address: str) -> Iterator[Watched]:
    # Colours are read as they stand, none on its way from another.
    context = browser.new_context(reduced_motion="reduce")
    yield Watched(context.new_page(), address)
    context.close()


@pytest.fixture
def page(opened: Watched) -> Iterator[sync_api.Page]:
    """The page as it is at first, but that another image may be shown: it is loaded once for all tests."""
    made = opened.page
    made.set_viewport_size({"width": 1280, "height": 800})
    made.get_by_label("Model").select_option("planted")
    made.locator("#tab-found").evaluate("(tab) => tab.click()")
    made.locator("#threshold").evaluate("(slider) => { slider.value = 0.5; slider.dispatchEvent(new Event('input')); }")
    opened.faults.clear()
    yield made
    assert opened.faults == []


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("images") / "sixteen.png"
    pixels = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def count(page: sync_api.Page, text: str) -> None:
    """Wait until the page says so in its live region."""
    sync_api.expect(page.get_by_role("status")).to_contain_text(text, timeout=WAIT)


def choose(page: sync_api.Page, photo: Path, said: str = "16 objects found; ") -> None:
    """Have an image looked at, unless the model has already seen it."""
    if said not in page.locator("#status").inner_text():
        page.set_input_files("#file", photo)
        count(page, said)


def set_slider(page: sync_api.Page, name: str, value: str) -> None:
    page.get_by_label(name).fill(value)


# --- detections -------------------------------------------------------------------------------------------------------


def test_a_dropped_image_is_counted_and_the_threshold_counts_anew_without_a_request(
    page: sync_api.Page, photo: Path
) -> None:
    transfer = page.evaluate_handle(
        """data => {
            const dropped = new DataTransfer();
            const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
            dropped.items.add(new File([bytes], "sixteen.png", { type: "image/png" }));
            return dropped;
        }""",
        base64.b64encode(photo.read_bytes()).decode(),
    )
    page.dispatch_event("#drop", "drop", {"dataTransfer": transfer})
    count(page, "16 objects found")
    asked: list[str] = []

    def note(request: sync_api.Request) -> None:
        asked.append(request.url)

    page.on("request", note)
    set_slider(page, "Score at least", "0.8")
    count(page, "8 objects found; ")
    assert page.locator("#table tbody tr:visible").count() == 8
    assert page.locator("#boxes g.mark").count() == 8
    set_slider(page, "Score at least", "1")
    count(page, "0 objects found")
    page.remove_listener("request", note)
    assert asked == []


def test_a_hostile_name_of_a_class_is_text(page: sync_api.Page, photo: Path) -> None:
    choose(page, photo)
    assert page.locator("#table tbody tr").first.get_by_role("button").inner_text() == HOSTILE
    assert page.locator("img").count() == 1
    assert f"{HOSTILE} 0.94" in page.locator("#boxes text").all_text_contents()


def test_a_row_of_the_table_shows_its_box_and_masks_are_drawn(page: sync_api.Page, photo: Path) -> None:
    choose(page, photo)
    page.locator("#table tbody tr").nth(2).get_by_role("button").press("Enter")
    assert page.locator("#boxes g.chosen").count() == 1
    assert page.locator("#table tr.chosen").count() == 1
    assert page.locator("#masks").is_visible()
    drawn = page.evaluate(
        "() => { const c = document.getElementById('masks');"
        "return c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some((value) => value); }"
    )
    assert drawn


def test_another_model_is_asked_about_the_same_image_and_its_keypoints_are_drawn(
    page: sync_api.Page, photo: Path
) -> None:
    choose(page, photo)
    page.get_by_label("Model").select_option("points")
    count(page, "1 object found.")
    # Two of three points are sure enough, and so is the line between them, which has a casing.
    assert page.locator("#boxes g.mark circle").count() == 2
    assert page.locator("#boxes g.mark line").count() == 2


def test_what_the_server_refuses_is_told_with_its_remedy(page: sync_api.Page, tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_bytes(b"no image at all")
    page.set_input_files("#file", tmp_path / "notes.png")
    sync_api.expect(page.get_by_role("alert")).to_contain_text("not an image of a known format", timeout=WAIT)
    sync_api.expect(page.get_by_role("status")).to_have_text("")


# --- inside -----------------------------------------------------------------------------------------------------------


def test_a_level_opens_with_its_map_its_anchors_and_equation_1(page: sync_api.Page, photo: Path) -> None:
    choose(page, photo)
    page.get_by_role("tab", name="Pyramid").click()
    levels = page.locator("#levels button")
    levels.first.wait_for()
    assert levels.count() == 5
    # Objects of 30 to 54 pixels, canonical 56: all are read from p3, which is open.
    assert [each.get_attribute("aria-pressed") for each in levels.all()] == ["false", "true", "false", "false", "false"]
    assert "16 found" in levels.nth(1).inner_text()
    assert page.locator("#map").is_visible()
    first = page.locator("#why button").first
    assert (page.locator("#why p").count(), first.get_attribute("aria-expanded")) == (0, "false")
    first.press("Enter")
    assert page.evaluate("() => document.activeElement.getAttribute('aria-expanded')") == "true"
    said = page.locator("#why li.chosen").inner_text()
    assert re.search(r"k = floor\(4 \+ log2\([\d.]+ / 56\)\) = floor\(3\.\d\d\) = 3, so p3", said)
    assert page.locator("#boxes g.chosen").count() == 1
    # The middle of 256 x 256 is the cell of row 16 and column 16 at stride 8.
    shape = page.locator("#stage").bounding_box()
    assert shape is not None
    page.mouse.click(shape["x"] + shape["width"] / 2 + 2, shape["y"] + shape["height"] / 2 + 2)
    assert [page.get_by_label(name, exact=True).input_value() for name in ("row", "column")] == ["16", "16"]
    assert "3 anchors" in page.locator("#cell-facts").inner_text()
    page.get_by_label("row", exact=True).fill("40")
    assert page.locator("#cell-facts").inner_text() == "p3 has rows 0 to 31 and columns 0 to 31."
    levels.nth(0).click()
    assert page.locator("#why").inner_text() == "None, at this threshold."


def test_proposals_are_counted_before_and_after_nms(page: sync_api.Page, photo: Path) -> None:
    choose(page, photo)
    page.get_by_role("tab", name="Proposals").click()
    before = page.get_by_label(re.compile("before NMS"))
    before.check()
    set_slider(page, "The surest", "30")
    assert page.locator("#boxes g.mark").count() == 30
    assert page.locator("#boxes rect.box.dashed").count() > 0
    page.get_by_label(re.compile("after NMS")).check()
    assert page.locator("#boxes rect.box.dashed").count() == 0
    # 64 x 64 cells of p2 with 3 anchors each; top-k leaves 200.
    cells = page.locator("#choice-table tbody tr").first.locator("th, td").all_inner_texts()
    assert cells[:3] == ["p2", "12,288", "200"]


def test_an_exported_file_says_that_its_inside_is_not_shown(page: sync_api.Page, photo: Path) -> None:
    page.get_by_label("Model").select_option("exported")
    choose(page, photo, "1 object found")
    page.get_by_role("tab", name="Pyramid").click()
    sync_api.expect(page.locator("#pyramid-note")).to_contain_text("This is an exported file", timeout=WAIT)


def test_a_token_is_asked_for_where_the_server_demands_one(browser: sync_api.Browser, tmp_path: Path) -> None:
    with serving(tmp_path, ServerSettings(token="secret"), exported=exported) as address:
        page = browser.new_page()
        page.goto(address)
        sync_api.expect(page.get_by_role("alert")).to_contain_text("no token was sent. Send", timeout=WAIT)
        for given in ("guessed", "secret"):
            page.get_by_label("This server asks for a token").fill(given)
            page.get_by_role("button", name="Use it").click()
            if given == "guessed":
                sync_api.expect(page.get_by_role("alert")).to_contain_text("the token is wrong", timeout=WAIT)
        page.locator("#about:has-text('class')").wait_for()
        assert page.locator("#token-form").is_hidden()
        assert page.evaluate("() => localStorage.length + sessionStorage.length + document.cookie.length") == 0
        page.close()


# --- for everybody ----------------------------------------------------------------------------------------------------

UNNAMED = re.compile(
    r"^\s*- (button|checkbox|slider|spinbutton|combobox|tab|radio|textbox|region|img|tabpanel|table|group)\b(?! \")"
)
# Of what has text or a value: the contrast of WCAG 2.2 between its colour and the first ground that is painted.
CONTRASTS = """() => {
  const light = (part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const luminance = (colour) => {
    const [red, green, blue] = numbers(colour).map((value) => light(value / 255));
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if ((numbers(colour)[3] ?? 1) > 0) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const found = [];
  for (const element of document.body.querySelectorAll("*:not(svg *)")) {
    const own = [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
    if (!(own || element.matches("input, select")) || !element.checkVisibility()) continue;
    const [one, other] = [luminance(getComputedStyle(element).color), luminance(ground(element))];
    const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    if (ratio < 4.5) found.push([element.tagName, element.id, element.textContent.slice(0, 20), ratio.toFixed(2)]);
  }
  return found;
}"""


def test_every_control_has_a_name_and_every_text_stands_out_in_light_and_dark(page: sync_api.Page, photo: Path) -> None:
    assert page.locator("html").get_attribute("lang") == "en"
    assert page.locator("h1").count() == 1
    choose(page, photo)
    for tab in ("Detections", "Pyramid", "Proposals"):
        page.get_by_role("tab", name=tab).click()
        page.locator("[role=tabpanel]:visible .controls").first.wait_for()
        lines = page.locator("body").aria_snapshot().splitlines()
        assert any(f'tab "{tab}" [selected]' in line for line in lines)
        assert [line for line in lines if UNNAMED.match(line)] == []
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            assert page.evaluate(CONTRASTS) == []


def test_tabs_change_by_arrow_keys_and_the_first_link_skips_to_the_image(page: sync_api.Page, photo: Path) -> None:
    first = page.locator("a[href], button, input, select").first
    assert (first.get_attribute("class"), first.get_attribute("href")) == ("skip", "#work")
    choose(page, photo)
    page.get_by_role("tab", name="Detections").focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("() => document.activeElement.id") == "tab-pyramid"
    assert page.get_by_role("tab", name="Pyramid").get_attribute("aria-selected") == "true"
    page.keyboard.press("Home")
    assert page.evaluate("() => document.activeElement.id") == "tab-found"


def test_a_phone_scrolls_in_one_direction_only(page: sync_api.Page, photo: Path) -> None:
    page.set_viewport_size({"width": 360, "height": 640})
    choose(page, photo)
    for tab in ("Detections", "Pyramid", "Proposals"):
        page.get_by_role("tab", name=tab).click()
        page.locator("[role=tabpanel]:visible .controls").first.wait_for()
        assert page.evaluate("() => document.documentElement.scrollWidth") == 360


@pytest.mark.parametrize(("width", "height", "screens"), [(1280, 800, 1.5), (390, 844, 2.5)])
def test_levels_stand_in_one_row_and_the_pyramid_does_not_scroll_for_long(
    page: sync_api.Page, photo: Path, width: int, height: int, screens: float
) -> None:
    page.set_viewport_size({"width": width, "height": height})
    choose(page, photo)
    page.get_by_role("tab", name="Pyramid").click()
    levels = page.locator("#levels button")
    levels.first.wait_for()
    assert len({box["y"] for each in levels.all() if (box := each.bounding_box()) is not None}) == 1
    assert "16 found" in levels.nth(1).inner_text()
    assert page.evaluate("() => document.documentElement.scrollHeight") < screens * height


def test_of_many_detections_of_a_level_some_are_listed_and_more_are_asked_for(page: sync_api.Page, photo: Path) -> None:
    choose(page, photo)
    page.get_by_role("tab", name="Pyramid").click()
    page.locator("#levels button").nth(1).click()
    page.locator("#threshold").evaluate("(slider) => { slider.value = 0; slider.dispatchEvent(new Event('input')); }")
    count(page, "objects found.")
    listed = page.locator("#why button.pick")
    at_first = listed.count()
    more = page.get_by_role("button", name=re.compile("^Show .* more of"))
    assert (at_first, more.count()) == (20, 1)
    more.press("Enter")
    assert listed.count() > 20
    assert page.evaluate("() => document.activeElement === document.querySelectorAll('#why button.pick')[20]")


# --- without a browser ------------------------------------------------------------------------------------------------


def test_the_page_is_served_with_a_policy_that_lets_nothing_else_in(address: str) -> None:
    import httpx

    with httpx.Client(base_url=address) as client:
        answer = client.get("/")
        assert answer.headers["content-security-policy"].startswith("default-src 'self'; img-src 'self' blob: data:;")
        assert not re.search(r"style=|<script(?! type=\"module\" src=)|\son\w+=", answer.text)
        for name in ("page.css", "page.js", "drawing.js", "pyramid.js"):
            file = client.get(f"/page/{name}")
            assert (file.status_code, file.headers["x-content-type-options"]) == (200, "nosniff")
            assert not re.search(r"innerHTML|insertAdjacentHTML|outerHTML|document\.write|eval\(", file.text)
        for name in ("index.html", "..%2Fpage.py", "%2Fetc%2Fpasswd"):
            assert client.get(f"/page/{name}").status_code == 404


def test_two_images_at_once_are_too_many_to_look_into(address: str, photo: Path) -> None:
    import httpx

    files = [("image", (name, photo.read_bytes())) for name in ("a.png", "b.png")]
    answer = httpx.post(f"{address}inside", files=files)
    assert answer.status_code == 413
    assert answer.json()["error"] == "2 images in one request"
    assert httpx.post(f"{address}inside?model=none", content=photo.read_bytes()).status_code == 404
    told = httpx.post(f"{address}inside", content=photo.read_bytes()).json()
    assert sum(each["score"] > 0.5 for each in told["detections"]) == 16
    assert Image.open(io.BytesIO(base64.b64decode(told["levels"][0]["map"].partition(",")[2]))).size == (64, 64)
