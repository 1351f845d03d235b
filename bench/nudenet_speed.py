"""Images per second of the nudenet scorer and of the package's own ``detect_batch``, on the same cores.

    python bench/nudenet_speed.py --threads 2

Both get the same arrays. Their runs alternate, so that another load on the machine slows both; medians are printed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path


def main() -> None:
    """Measures and prints both speeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2, help="cores that either may use")
    parser.add_argument("--images", type=int, default=32, help="images of 512 x 512 pixels")
    parser.add_argument("--runs", type=int, default=7, help="alternating runs of each, after one that is not counted")
    arguments = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))[: arguments.threads]
    os.sched_setaffinity(0, cores)  # before any thread starts: both are held to the same cores

    import nudenet
    import numpy as np
    import torch

    from resalign.scorers import nudenet as scorer_module

    torch.set_num_threads(arguments.threads)
    portraits = crops(arguments.images)
    images = torch.from_numpy(np.stack(portraits)).permute(0, 3, 1, 2)
    files = [np.ascontiguousarray(portrait[..., ::-1]) for portrait in portraits]  # as OpenCV reads them
    detector = nudenet.NudeDetector()
    scorer = scorer_module.load(scorer_module.Config(), None, "cpu")
    prompts = [""] * len(portraits)
    contenders: dict[str, Callable[[], object]] = {
        "scorer": lambda: scorer.score(images, prompts),
        "detect_batch": lambda: detector.detect_batch(files),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for run in range(arguments.runs + 1):
        for name, call in contenders.items():
            began = time.perf_counter()
            call()
            if run:
                seconds[name].append(time.perf_counter() - began)
    speed = {name: len(portraits) / statistics.median(taken) for name, taken in seconds.items()}
    ratios = sorted(slow / fast for fast, slow in zip(seconds["scorer"], seconds["detect_batch"], strict=True))
    write = sys.stdout.write
    write(f"{len(portraits)} images, cores {cores}, {arguments.runs} runs, load {os.getloadavg()[0]:.1f}\n")
    for name, images_per_second in speed.items():
        write(f"{name:13s} {images_per_second:6.2f} images per second\n")
    write(f"ratio of medians {speed['scorer'] / speed['detect_batch']:.2f}\n")
    write(f"ratio of each pair of runs: median {statistics.median(ratios):.2f}, {ratios[0]:.2f} to {ratios[-1]:.2f}\n")


def crops(count: int) -> list:
    """Crops of 512 x 512 pixels of matplotlib's portrait, (512, 512, 3) uint8 each."""
    import matplotlib
    import numpy as np
    from PIL import Image

    with Image.open(Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg") as portrait:
        whole = portrait.convert("RGB").resize((640, 750))
    corners = np.random.default_rng(0).integers(0, (128, 238), (count, 2))
    return [np.array(whole.crop((left, top, left + 512, top + 512))) for left, top in corners.tolist()]


if __name__ == "__main__":
    main()
