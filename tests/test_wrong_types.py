"""Values of types that nothing announces as accepted, in a process of its own: in this one type checks come first."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

CALLS = {
    "None": "read_image(None)",
    "int": "read_image(3)",
    "bytes": "read_image(b'jpeg')",
    "tensor": "read_image(torch.zeros(3, 4, 5, dtype=torch.uint8))",
    "floats": "read_image(torch.zeros(3, 4, 5))",
    "batch": "predict_images(None, [], batch_size=1.5)",
    "batch_text": "predict_images(None, [], batch_size='4')",
    "readers": "predict_images(None, [], readers=0.5)",
    "no_side": "adapt_dialect('paper', short_side=float('nan'))",
    "endless_side": "adapt_dialect('paper', short_side=float('inf'))",
    "text_side": "adapt_dialect('paper', short_side='wide')",
    "no_classes": "Classes.of(None)",
    "numbers": "Classes.of(['a', 3])",
}
SCRIPT = """
import json, torch
from fpn.detectors.prediction import predict_images
from fpn.detectors.presets import adapt_dialect
from fpn.image_io import read_image
from fpn.structures import Classes
said = {}
for name, call in CALLS.items():
    try:
        eval(call)
    except Exception as error:
        said[name] = f"{type(error).__name__}: {error}"
print(json.dumps(said))
"""
ANY = "expected a path, a PIL image or a NumPy array"


@pytest.fixture(scope="module")
def said() -> dict[str, str]:
    script = f"CALLS = {CALLS!r}\n{SCRIPT}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_what_is_no_image_is_told_how_it_becomes_one(said: dict[str, str]) -> None:
    assert said["None"] == f"ImageError: image of type NoneType: {ANY}"
    assert said["int"] == f"ImageError: image of type int: {ANY}"
    opened = "A file's bytes become one by fpn.image_io.ImageBytes(data)"
    assert said["bytes"] == f"ImageError: image of type bytes: {ANY}. {opened}"
    turned = "An RGB tensor (3, H, W) becomes one by tensor.permute(1, 2, 0).cpu().numpy()"
    assert said["tensor"] == f"ImageError: image of type Tensor: {ANY}. {turned}"
    assert "from 0 to 1 becomes one by (tensor * 255).round().byte().permute(1, 2, 0).cpu().numpy()" in said["floats"]


def test_settings_that_are_no_whole_numbers_are_refused(said: dict[str, str]) -> None:
    assert said["batch"] == "ConfigError: batch_size 1.5: expected a whole number, 1 or more"
    assert said["batch_text"] == "ConfigError: batch_size '4': expected a whole number, 1 or more"
    assert said["readers"] == "ConfigError: readers 0.5: expected a whole number, 0 or more"
    assert said["no_side"].startswith("ConfigError: pixels.short_side nan: ")
    assert said["endless_side"].startswith("ConfigError: pixels.short_side inf: ")
    assert said["text_side"].startswith("ConfigError: pixels.short_side 'wide': ")


def test_classes_are_a_list_of_texts(said: dict[str, str]) -> None:
    assert said["no_classes"] == "ConfigError: classes=None: expected a list of names, such as ['cell', 'platelet']"
    assert said["numbers"] == "ConfigError: classes[1]=3: expected a name, in quotes"
