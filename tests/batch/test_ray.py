"""Ray as the engine of a batch run. What starts a cluster takes a minute and runs with FPN_ALL_RAY=1."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from fpn.batch.ray_cluster import RayCluster, ShardMaker, _begin, _cause, _counted, _room, connect
from fpn.batch.running import run_batch
from fpn.batch.shards import ShardJob
from fpn.batch.sources import iterate_items
from fpn.errors import ConfigError, FpnError
from tests.batch.test_batch import ON_CPU, images, model  # noqa: F401  fixtures

pytest.importorskip("ray")
pytest.importorskip("pyarrow")

# A machine of two nodes; what is killed is the second, once the third shard is done.
CLUSTER = """
import sys
from pathlib import Path
import ray
from ray.cluster_utils import Cluster
from fpn.batch.running import run_batch
from fpn.batch.worker import BatchSettings

model, images, output, kill = sys.argv[1:]
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
second = cluster.add_node(num_cpus=1)
ray.init(address=cluster.address, logging_level="error", log_to_driver=False)
told = []

def progress(done, of):
    told.append(done)
    if kill == "kill" and len(told) == 4:
        cluster.remove_node(second, allow_graceful=False)

settings = BatchSettings(device="cpu", batch_size=2)
run_batch(model, [images], Path(output), settings, engine="ray", threads=1, shard_size=1, progress=progress)
print("told", told)
ray.shutdown()
cluster.shutdown()
"""


def _node(**resources: float) -> dict[str, Any]:
    return {"Alive": True, "Resources": resources}


def _shards(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.parquet")}


class TestRoom:
    def test_each_machine_has_room_for_whole_workers(self) -> None:
        machines = [_node(CPU=8.0), _node(CPU=5.0), _node(), {"Alive": False, "Resources": {"CPU": 64.0}}]
        ray = SimpleNamespace(nodes=lambda: machines)
        assert _room(ray, None, None) == RayCluster(workers=4 + 2, threads=2, gpus=0)
        assert _room(ray, 4, None) == RayCluster(workers=2 + 1, threads=4, gpus=0)
        with pytest.raises(ConfigError, match="fewer --threads"):
            _room(ray, 9, None)

    def test_a_machine_of_one_core_makes_workers_of_one_thread(self) -> None:
        ray = SimpleNamespace(nodes=lambda: [_node(CPU=1.0), _node(CPU=3.0)])
        assert _room(ray, None, None) == RayCluster(workers=4, threads=1, gpus=0)

    def test_gpus_are_taken_unless_the_cpu_is_asked_for(self) -> None:
        ray = SimpleNamespace(nodes=lambda: [_node(CPU=16.0, GPU=2.0), _node(CPU=16.0)])
        assert _room(ray, None, None) == RayCluster(workers=2, threads=2, gpus=1)
        assert _room(ray, None, "cpu") == RayCluster(workers=16, threads=2, gpus=0)

    def test_one_machines_second_gpu_is_nothing_a_cluster_can_be_asked_for(self) -> None:
        with pytest.raises(ConfigError, match="cpu or cuda"), connect(None, None, device="cuda:1", most=1):
            pass


class TestMaker:
    def test_a_worker_of_ray_writes_the_shard_that_a_local_one_writes(
        self,
        model: Path,  # noqa: F811
        images: Path,  # noqa: F811
        tmp_path: Path,
    ) -> None:
        run_batch(model, [str(images)], tmp_path / "local", ON_CPU, workers=1, threads=1, shard_size=3)
        (tmp_path / "ray").mkdir()
        identity = json.loads((tmp_path / "local" / "_batch.json").read_text(encoding="utf-8"))
        del identity["finished"]
        before = torch.get_num_threads()
        maker = ShardMaker(ShardJob(str(model), ON_CPU, tmp_path / "ray", 1, identity))
        items = pickle.dumps(list(iterate_items([str(images)]))[3:6])
        assert maker({"number": np.array([1]), "items": [items]}) == {"number": np.array([1])}
        torch.set_num_threads(before)
        name = "detections-000001.parquet"
        assert _shards(tmp_path / "ray") == {name: _shards(tmp_path / "local")[name]}

    def test_a_shard_that_is_there_is_left_as_it_is(self, model: Path, tmp_path: Path) -> None:  # noqa: F811
        (tmp_path / "detections-000001.parquet").write_bytes(b"made by a worker whose node was lost")
        before = torch.get_num_threads()
        maker = ShardMaker(ShardJob(str(model), ON_CPU, tmp_path, 1, {}))
        torch.set_num_threads(before)
        assert maker({"number": np.array([1]), "items": [pickle.dumps([])]}) == {"number": np.array([1])}
        assert _shards(tmp_path) == {"detections-000001.parquet": b"made by a worker whose node was lost"}


def test_a_machine_on_which_ray_does_not_start_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(address: str = "", **_: object) -> None:
        raise ConnectionError("none runs") if address else Exception("The current node timed out during startup.")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(
        FpnError, match=r"Ray does not start here: .*timed out during startup\. .*leave out --engine ray"
    ):
        _begin(SimpleNamespace(init=init))


def test_what_has_ended_its_process_five_times_is_given_up_until_the_next_run(tmp_path: Path) -> None:
    (tmp_path / "_begun-000001").write_bytes(b"....")
    with pytest.raises(MemoryError), _counted(tmp_path / "_begun-000001", "shard 1"):
        raise MemoryError  # as a process would end
    with (
        pytest.raises(FpnError, match="shard 1 has ended its worker 5 times"),
        _counted(tmp_path / "_begun-000001", "shard 1"),
    ):
        raise AssertionError("not begun")
    with _counted(tmp_path / "_begun-000001", "shard 1"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_of_an_error_within_errors_the_last_line_of_the_innermost_is_told() -> None:
    outer = RuntimeError("ray::MapWorker() failed")
    outer.__cause__ = ValueError("a trace\nmodel.safetensors: is no model")
    assert _cause(outer) == "model.safetensors: is no model"


@pytest.mark.skipif("FPN_ALL_RAY" not in os.environ, reason="starts Ray clusters, a minute: FPN_ALL_RAY=1")
class TestCluster:
    @pytest.mark.parametrize("kill", ["kill", "leave"])
    def test_two_nodes_give_the_rows_of_one_machine_even_if_one_is_killed(
        self,
        model: Path,  # noqa: F811
        images: Path,  # noqa: F811
        tmp_path: Path,
        kill: str,
    ) -> None:
        run_batch(model, [str(images)], tmp_path / "local", ON_CPU, workers=1, threads=1, shard_size=1)
        arguments = [str(model), str(images), str(tmp_path / "ray"), kill]
        ended = subprocess.run(
            [sys.executable, "-c", CLUSTER, *arguments], capture_output=True, text=True, check=False, timeout=300
        )
        assert ended.returncode == 0, ended.stderr
        assert f"told {list(range(9))}\n" in ended.stdout  # between what Ray says of the lost node
        assert len(_shards(tmp_path / "local")) == 8
        assert _shards(tmp_path / "ray") == _shards(tmp_path / "local")

    def test_without_a_cluster_the_command_makes_one_that_ends_with_it(
        self,
        model: Path,  # noqa: F811
        images: Path,  # noqa: F811
        tmp_path: Path,
    ) -> None:
        command = [sys.executable, "-m", "fpn", "batch", str(model), str(images), "--engine", "ray", "--threads", "1"]
        ended = subprocess.run(
            [*command, "--output", str(tmp_path / "out"), "--device", "cpu", "--shard-size", "3"],
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert ended.returncode == 1  # one file is no image
        assert "8 images: " in ended.stdout
        assert len(ended.stderr.splitlines()) == 2, ended.stderr  # that file; and a line of Ray's, on how quiet it is
        assert len(_shards(tmp_path / "out")) == 3
