"""RoI pooling over four levels: ours against torchvision.ops.roi_align, in one process, in turns.

    python benchmarks/roi_pooling.py [--rois 2048] [--repeats 7] [--threads 2] [--output FILE.json]

`fpn benchmark --parts pooling` with both layouts of our maps, and with bfloat16 wherever it runs; see
`fpn.studies.benchmark.pooling` for what is compared. Seconds are medians; `ratio` is torchvision's over ours; `CPU
ratio` is the same for the time that the processor spent on this process alone, which other programs on the machine
disturb less. With one thread the two are the same on an idle machine; with more, threads that wait for one another
count as busy.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import machine
import torch

from fpn.studies.benchmark.pooling import HEIGHT, WIDTH, WORKS, Pooling, compare, draw_maps, draw_rois, ours

__all__ = ["draw_maps", "draw_rois", "ours"]  # what growth.py times


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rois", type=int, default=2048)
    parser.add_argument("--channels", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=7, help="turns; the median is reported")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--output", type=Path, help="JSON file to write")
    return parser.parse_args()


def as_dict(row: Pooling) -> dict[str, object]:
    return {
        "work": row.work,
        "dtype": row.dtype,
        "maps": row.maps,
        "ours_seconds": row.ours.seconds,
        "torchvision_seconds": row.theirs.seconds,
        "ratio": row.theirs.seconds / row.ours.seconds,
        "cpu_ratio": row.theirs.busy_seconds / row.ours.busy_seconds,
        "largest_difference": row.difference,
    }


def main() -> None:
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    rois = draw_rois(arguments.rois)
    asked = {name: getattr(arguments, name) for name in ("rois", "channels", "repeats")}
    about = machine.describe_machine() | {"command": machine.command(), "image": [HEIGHT, WIDTH], **asked}
    about["rois_a_level"] = rois.levels.bincount(minlength=4).tolist()
    print("\n".join(f"{key}: {value}" for key, value in about.items()))
    print("\n| work | type | our maps | ours (ms) | torchvision (ms) | ratio | CPU ratio | largest difference |")
    print("|---|---|---|---:|---:|---:|---:|---:|")
    rows = []
    for dtype in (torch.float32, torch.bfloat16):
        for work in WORKS:
            for last in (True, False):
                options = {"channels": arguments.channels, "repeats": arguments.repeats}
                row = as_dict(compare(work, dtype, rois, channels_last=last, **options))
                rows.append(row)
                print(
                    f"| {work} | {row['dtype']} | {row['maps']} | {row['ours_seconds'] * 1e3:.1f} | "
                    f"{row['torchvision_seconds'] * 1e3:.1f} | {row['ratio']:.1f} | {row['cpu_ratio']:.1f} | "
                    f"{row['largest_difference']:.1g} |",
                    flush=True,
                )
    if arguments.output:
        arguments.output.write_text(json.dumps(about | {"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
