import os
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from fpn.data.dataset import Dataset
from fpn.data.loading.augmentation.augment import Augment
from fpn.data.loading.loader import make_loader
from fpn.data.loading.order import Order
from fpn.data.loading.workers import default_workers
from fpn.errors import ConfigError, ImageError, TrainingError
from fpn.image_io import ImageWarning
from fpn.shapes import Size
from fpn.structures import Classes, ImageBatch, Masks, Targets


class Tiles(Dataset):
    """Images of one colour, the colour being their number; number 13 can't be read if `broken`."""

    def __init__(self, count, *, broken=False, upright=lambda index: False):
        self.classes, self.name, self.root = Classes.of(["a"]), "tiles", Path("tiles")
        self.count, self.broken, self.upright = count, broken, upright

    def __len__(self):
        return self.count

    def image_id(self, index):
        return index

    def path(self, index):
        return f"tiles/{index}.png"

    def size(self, index):
        return Size(12, 8) if self.upright(index) else Size(8, 12)

    def targets(self, index, *, masks=False):
        count = index % 3
        boxes = torch.tensor([[1.0, 2.0, 5.0, 6.0]]).repeat(count, 1)
        seen = Masks.of_boxes(boxes, self.size(index)) if masks else None
        return Targets(boxes, torch.full((count,), index % 2), masks=seen)

    def image(self, index):
        if self.broken and index == 13:
            raise ImageError("the image is damaged")
        size = self.size(index)
        return Image.new("RGB", (size.width, size.height), (index, index, index))


@dataclass(frozen=True)
class Ready:
    pixels: Tensor
    targets: Targets


def prepare(image: Image.Image, targets: Targets) -> Ready:
    return Ready(torch.from_numpy(np.array(image)).permute(2, 0, 1).float(), targets)


def collate(pixels: list[Tensor]) -> ImageBatch:
    sizes = torch.tensor([list(each.shape[-2:]) for each in pixels])
    batch = torch.zeros(len(pixels), 3, *sizes.amax(dim=0).tolist())
    for row, each in zip(batch, pixels, strict=True):
        row[:, : each.shape[1], : each.shape[2]] = each
    return ImageBatch(batch, sizes)


def loader_of(dataset, **settings):
    return make_loader(dataset, prepare=prepare, collate=collate, **{"num_workers": 0, **settings})


def contents(loader):
    return [
        (
            batch.indices,
            batch.images.pixels.tolist(),
            [(each.boxes.tolist(), each.labels.tolist(), each.ignore.tolist()) for each in batch.targets],
        )
        for batch in loader
    ]


# --- the order ---


def test_an_epoch_holds_every_image_once():
    batches = Order(count=10, batch_size=4).batches(0)
    assert [len(batch) for batch in batches] == [4, 4, 2]
    assert sorted(chain.from_iterable(batches)) == list(range(10))


def test_the_order_is_a_function_of_seed_and_epoch():
    def order(seed, epoch):
        return Order(count=50, batch_size=4, seed=seed).batches(epoch)

    assert order(0, 1) == order(0, 1)
    assert order(0, 0) != order(0, 1)
    assert order(0, 1) != order(1, 1)
    assert order(0, 1) != order(1, 0)


def test_without_shuffling_images_come_by_number():
    assert Order(count=5, batch_size=2, shuffle=False).batches(3) == [[0, 1], [2, 3], [4]]


def test_drop_last_leaves_out_the_incomplete_batch():
    assert Order(count=5, batch_size=2, shuffle=False, drop_last=True).batches(0) == [[0, 1], [2, 3]]
    assert len(Order(count=5, batch_size=2, drop_last=True)) == 2
    assert len(Order(count=5, batch_size=2)) == 3


def test_upright_and_lying_images_get_their_own_batches():
    upright = np.arange(30) % 3 == 0  # 10 upright, 20 lying
    batches = Order(count=30, batch_size=4, upright=upright).batches(0)
    assert sorted(chain.from_iterable(batches)) == list(range(30))
    assert len(batches) == 8
    mixed = [batch for batch in batches if len({bool(upright[number]) for number in batch}) == 2]
    # 10 = 2 * 4 + 2 and 20 = 5 * 4: nothing but the last batch has to be filled from what is left.
    assert mixed == []
    assert batches[-1] == [number for number in batches[-1] if upright[number]]


def test_grouping_without_shuffling_keeps_images_near_their_place():
    upright = np.array([False, True, False, True, True, False, True])
    assert Order(count=7, batch_size=2, shuffle=False, upright=upright).batches(0) == [[0, 2], [1, 3], [4, 6], [5]]


@pytest.mark.parametrize("count", [32, 33, 35, 38, 1])
def test_two_processes_together_take_what_one_would(count):
    one = Order(count=count, batch_size=4, seed=3).batches(1)
    shares = [Order(count=count, batch_size=2, seed=3, rank=rank, world_size=2).batches(1) for rank in (0, 1)]
    assert len(shares[0]) == len(shares[1]) == len(one)
    for whole, first, second in zip(one, *shares, strict=True):
        assert len(first) > 0
        assert len(second) > 0
        if len(whole) > 1:
            assert first + second == whole


def test_a_process_is_never_without_a_image():
    shares = [Order(count=9, batch_size=2, rank=rank, world_size=4, shuffle=False).batches(0) for rank in range(4)]
    # The ninth image goes to the first process; the others repeat the epoch's first images.
    assert [share[-1] for share in shares] == [[8], [0], [1], [2]]


# --- what the loader hands out ---


def test_a_batch_holds_pixels_targets_and_numbers():
    batch = next(iter(loader_of(Tiles(6), shuffle=False, batch_size=3)))
    assert batch.indices == [0, 1, 2]
    assert batch.images.pixels.shape == (3, 3, 8, 12)
    assert batch.images.pixels[:, 0, 0, 0].tolist() == [0, 1, 2]
    assert [len(each) for each in batch.targets] == [0, 1, 2]
    assert batch.targets[2].boxes.tolist() == [[1, 2, 5, 6], [1, 2, 5, 6]]
    assert [each.labels.tolist() for each in batch.targets] == [[], [1], [0, 0]]
    assert batch.targets[2].ignore.tolist() == [False, False]
    assert batch.targets[2].masks is None


def test_masks_come_when_asked_for():
    dataset = Tiles(6, upright=lambda index: index == 2)
    batch = next(iter(loader_of(dataset, shuffle=False, aspect_grouping=False, batch_size=3, masks=True)))
    shapes = [(len(each.masks), *each.masks.size) for each in batch.targets]
    assert shapes == [(0, 8, 12), (1, 8, 12), (2, 12, 8)]
    assert batch.targets[2].masks.boxes()[1].tolist() == [1, 2, 5, 6]


def test_workers_hand_out_what_this_process_would():
    settings = {"augment": Augment(scale=(0.5, 2.0), colour=1.0), "batch_size": 3, "seed": 5}
    alone = loader_of(Tiles(10), **settings)
    with loader_of(Tiles(10), num_workers=1, **settings) as helped:
        # The second round proves that the epoch reaches workers that live on.
        for epoch in (0, 1):
            alone.set_epoch(epoch)
            helped.set_epoch(epoch)
            assert contents(helped) == contents(alone)


def test_epochs_differ_in_order_and_changes():
    loader = loader_of(Tiles(10), augment=Augment(scale=(0.5, 2.0)), batch_size=1, shuffle=False)
    rounds = []
    for epoch in (0, 1):
        loader.set_epoch(epoch)
        rounds.append([tuple(batch.images.pixels.shape) for batch in loader])
    assert rounds[0] != rounds[1]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_going_on_inside_an_epoch_gives_the_rest_of_it(num_workers):
    settings = {"batch_size": 2, "augment": Augment(scale=(0.5, 2.0))}
    unbroken = loader_of(Tiles(11), **settings)
    unbroken.set_epoch(4)
    whole = contents(unbroken)
    with loader_of(Tiles(11), num_workers=num_workers, **settings) as stopped:
        stopped.set_epoch(4)
        for number, _ in enumerate(stopped):
            if number == 1:
                break
        # Workers have read further ahead by now; what counts is what was handed out.
        state = stopped.state()
    assert state == {"epoch": 4, "skip": 2}
    with loader_of(Tiles(11), num_workers=num_workers, **settings) as resumed:
        resumed.set_epoch(**state)
        assert contents(resumed) == whole[2:]
        assert resumed.state() == {"epoch": 4, "skip": 6}
        # Once only: the next round is a whole epoch again.
        resumed.set_epoch(5)
        assert len(contents(resumed)) == len(resumed) == 6


def test_an_epoch_that_is_over_has_no_rest():
    loader = loader_of(Tiles(4), batch_size=2)
    loader.set_epoch(0, skip=2)
    assert list(loader) == []


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_image_that_cannot_be_read_is_named(num_workers):
    with loader_of(Tiles(20, broken=True), num_workers=num_workers, shuffle=False, batch_size=4) as loader:
        seen = []
        with pytest.raises(ImageError) as caught:
            seen.extend(batch.indices for batch in loader)
    assert str(caught.value) == "tiles/13.png: the image is damaged"
    assert seen == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]


def test_torchs_own_source_is_left_alone():
    before = torch.get_rng_state()
    with loader_of(Tiles(4), num_workers=1, augment=Augment(colour=1.0)) as loader:
        contents(loader)
    assert torch.get_rng_state().equal(before)


def test_workers_use_one_thread():
    def count_threads(image, targets):
        return Ready(torch.full((3, 2, 2), float(torch.get_num_threads())), targets)

    with make_loader(Tiles(2), prepare=count_threads, collate=collate, num_workers=1) as loader:
        assert next(iter(loader)).images.pixels.max() == 1


def test_pixels_go_through_a_pipe_where_shared_memory_is_scarce(monkeypatch):
    class Scarce:
        f_bavail, f_frsize = 1, 512

    expected = contents(loader_of(Tiles(4)))
    monkeypatch.setattr(os, "statvfs", lambda path: Scarce)
    with loader_of(Tiles(4), num_workers=1) as loader:
        assert contents(loader) == expected


def test_default_workers_leave_half_of_the_cores_to_the_step(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(12), raising=False)
    assert default_workers() == 6
    assert default_workers(world_size=4) == 1
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(2), raising=False)
    assert default_workers() == 1
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(96), raising=False)
    assert default_workers() == 8


def test_nothing_to_train_on_is_an_error():
    with pytest.raises(TrainingError, match="0 images"):
        loader_of(Tiles(0))
    with pytest.raises(TrainingError, match="3 images make no batch of 4"):
        loader_of(Tiles(3), batch_size=4, drop_last=True)


@pytest.mark.parametrize("settings", [{"batch_size": 0}, {"num_workers": -1}, {"seed": -1}, {"rank": 1}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ConfigError):
        loader_of(Tiles(3), **settings)


# --- images that come together, and images that come again ---


def test_partners_are_drawn_by_the_images_own_chances_whoever_reads_them():
    everything = Augment(mosaic=0.5, mix_up=0.5, copy_paste=0.5, jitter=(0.5, 1.5), rotate=0.5)
    settings = {"augment": everything, "batch_size": 3, "seed": 5, "repeats": np.linspace(1, 2, 6)}
    alone = contents(loader_of(Tiles(6), **settings))
    assert len(alone) == 3
    with loader_of(Tiles(6), num_workers=2, **settings) as helped:
        assert contents(helped) == alone
        helped.set_epoch(0, skip=2)
        assert contents(helped) == alone[2:]


def test_an_image_that_comes_again_looks_different_and_has_its_own_number():
    augment = Augment(jitter=(0.3, 1.0))
    batches = contents(loader_of(Tiles(2), augment=augment, batch_size=4, repeats=np.array([1.0, 3.0])))
    [(numbers, _, targets)] = batches
    assert sorted(numbers) == [0, 1, 1, 1]
    assert len({str(boxes) for boxes, *_ in targets}) > 2


def test_masks_are_read_for_pasting_and_handed_out_only_when_asked_for():
    for asked in (False, True):
        [batch] = loader_of(Tiles(3), augment=Augment(copy_paste=1.0), batch_size=3, masks=asked)
        assert [each.masks is not None for each in batch.targets] == [asked] * 3


def test_a_partner_that_cannot_be_read_is_named_or_left_out():
    settings = {"augment": Augment(mosaic=1.0), "shuffle": False, "batch_size": 1}
    tiles = Tiles(20, broken=True).subset([0, 13])
    with pytest.raises(ImageError) as caught:
        contents(loader_of(tiles, **settings))
    assert str(caught.value) == "tiles/13.png: the image is damaged"
    loader = loader_of(tiles, skip_unreadable=True, **settings)
    with pytest.warns(ImageWarning, match=r"left out: tiles/13\.png"):
        assert [numbers for numbers, *_ in contents(loader)] == [[0], [0]]
    assert list(loader.unreadable) == ["tiles/13.png"]


def test_a_dataset_without_objects_gives_batches_without_objects():
    augment = Augment(mosaic=1.0, mix_up=1.0, copy_paste=1.0, crop=1.0, rotate=1.0)
    [batch] = loader_of(Tiles(10).subset([0, 3, 6]), augment=augment, batch_size=3)
    assert [each.boxes.shape for each in batch.targets] == [(0, 4)] * 3
