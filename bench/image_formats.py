"""Bytes and seconds of one image in the lossless formats that Pillow writes, on photographs of 512 pixels.

    python bench/image_formats.py

The pictures are those of scikit-learn and matplotlib, resized to the experiment's 512 x 512 pixels. Generated images
are smoother than photographs and take less. Whether a format gives back every bit is checked, not assumed.
"""

from __future__ import annotations

import argparse
import io
import statistics
import time

import numpy as np
from matplotlib.cbook import get_sample_data
from PIL import Image
from sklearn.datasets import load_sample_images

from resalign.data.images import fitted

# (format, what it is asked for); the first is how images were always kept.
OPTIONS = [
    ("PNG", {}),
    ("PNG", {"optimize": True}),
    *(("WEBP", {"lossless": True, "method": method}) for method in (0, 1, 2, 4, 6)),
    ("WEBP", {"lossless": True, "method": 0, "quality": 0}),
    ("WEBP", {"lossless": True, "method": 4, "quality": 100}),
    ("JPEG2000", {}),
    ("TIFF", {"compression": "tiff_adobe_deflate"}),
    ("AVIF", {"quality": 100, "subsampling": "4:4:4"}),
]


def main() -> None:
    """Prints a row for each format."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pixels", type=int, default=512)
    parser.add_argument("--runs", type=int, default=5, help="of which the median is taken")
    arguments = parser.parse_args()
    with get_sample_data("grace_hopper.jpg") as file:
        photographs = [*load_sample_images().images, np.asarray(Image.open(file).convert("RGB"))]
    images = [fitted(Image.fromarray(photograph), arguments.pixels) for photograph in photographs]
    print(f"| {arguments.pixels} pixels | bytes a pixel (of each) | of PNG | write, ms | read, ms | same bits |")
    print("|---|---|---|---|---|---|")
    reference = 0.0
    for kind, options in OPTIONS:
        # CPU time: another process on the same core counts for nothing.
        sizes, write, read, same = [], [], [], True
        for image in images:
            for _ in range(arguments.runs):
                buffer, start = io.BytesIO(), time.process_time()
                image.save(buffer, kind, **options)
                written = time.process_time()
                decoded = Image.open(buffer).convert("RGB")
                decoded.load()
                write.append(written - start)
                read.append(time.process_time() - written)
            sizes.append(buffer.tell() / arguments.pixels**2)
            same &= np.array_equal(np.asarray(decoded), np.asarray(image))
        mean = statistics.mean(sizes)
        reference = reference or mean
        times = " | ".join(f"{1000 * statistics.median(taken):.0f}" for taken in (write, read))
        words = ", ".join(f"{key} {value}" for key, value in options.items())
        each = ", ".join(f"{size:.2f}" for size in sizes)
        print(
            f"| {kind} {words} | {mean:.2f} ({each}) | {mean / reference:.2f} | {times} | {'yes' if same else 'no'} |"
        )


if __name__ == "__main__":
    main()
