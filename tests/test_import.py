from __future__ import annotations

import subprocess
import sys

import pytest

SLOW = ("torch", "torchvision", "timm", "accelerate", "numpy", "PIL", "pydantic", "hotcoco", "jaxtyping", "rich")


def loaded_after(statement: str) -> set[str]:
    """Which of the slow packages a fresh interpreter has loaded after a statement."""
    script = f"import sys; {statement}; print(*(name for name in {SLOW} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_library_loads_nothing_that_is_slow() -> None:
    assert loaded_after("import fpn") == set()


@pytest.mark.parametrize("name", ["FpnError", "TrainConfig"])
def test_errors_and_settings_come_without_torch(name: str) -> None:
    assert not loaded_after(f"import fpn; fpn.{name}") & {"torch", "torchvision", "timm", "accelerate", "numpy"}


def test_torch_comes_when_a_dataset_is_opened() -> None:
    assert "torch" in loaded_after("import fpn; fpn.open_dataset")
