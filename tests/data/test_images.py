"""Reading images as a diffusion model is fed them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from resalign.data.images import CaptionedImages, DataError, mosaic, read_captioned_images, read_image, read_masks
from tests.conftest import write_captioned_images


def written(path: Path, pixels: np.ndarray, **options: object) -> Path:
    Image.fromarray(pixels.astype(np.uint8)).save(path, **options)
    return path


def test_channels_rows_and_columns_keep_their_places(tmp_path: Path) -> None:
    pixels = np.zeros((4, 4, 3))
    pixels[0, 3] = (255, 51, 0)  # top right, orange
    image = read_image(written(tmp_path / "image.png", pixels), 4)
    assert image.shape == (3, 4, 4)
    assert image[:, 0, 3].tolist() == pytest.approx([1.0, 0.2, 0.0])
    assert image.sum() == pytest.approx(1.2)


def test_load_is_centred_on_zero(tmp_path: Path) -> None:
    file = written(tmp_path / "image.png", np.tile(np.array([0, 255, 51]), (2, 2, 1)))
    images = CaptionedImages((file,), ("a",), 2).load()
    assert images.shape == (1, 3, 2, 2)
    assert images[0, :, 0, 0].tolist() == pytest.approx([-1.0, 1.0, -0.6])


def test_longer_edges_are_cropped_at_the_centre(tmp_path: Path) -> None:
    pixels = np.zeros((4, 12, 3))
    pixels[:, 4:8] = 255
    assert read_image(written(tmp_path / "wide.png", pixels), 4).min() == 1.0
    assert read_image(written(tmp_path / "tall.png", pixels.transpose(1, 0, 2)), 4).min() == 1.0


def test_resized_to_the_wanted_edge(tmp_path: Path) -> None:
    image = read_image(written(tmp_path / "large.png", np.full((40, 60, 3), 128)), 16)
    assert image.shape == (3, 16, 16)
    torch.testing.assert_close(image, torch.full((3, 16, 16), 128 / 255))


def test_captions_go_with_their_images_in_the_tables_order(tmp_path: Path) -> None:
    folder = write_captioned_images(tmp_path / "images", ("a", "b", "c"))
    (folder / "metadata.csv").write_text('prompt,file_name,note\n"c, the last",2.png,x\na,0.png,y\n')
    found = read_captioned_images(folder, pixels=16)
    assert [file.name for file in found.files] == ["2.png", "0.png"]
    assert found.prompts == ("c, the last", "a")
    assert len(found) == 2


def test_a_mosaic_has_the_mean_colour_of_each_tile() -> None:
    images = torch.rand((2, 3, 16, 16), generator=torch.Generator().manual_seed(0))
    tiles = images.reshape(2, 3, 4, 4, 4, 4).mean(dim=(3, 5), keepdim=True)
    torch.testing.assert_close(mosaic(images, 4), tiles.expand(-1, -1, -1, 4, -1, 4).reshape(2, 3, 16, 16))


def test_masks_are_shares_of_white_cropped_as_their_images_are(tmp_path: Path) -> None:
    pixels = np.zeros((8, 16, 3))
    pixels[:4, 4:8] = 255  # the upper left of the square in the middle
    pixels[4:6, 8:12] = 255  # the upper half of its lower right
    written(tmp_path / "a.png", pixels)
    images = CaptionedImages((tmp_path / "images" / "a.png",), ("a",), 8)
    assert read_masks(tmp_path, images, 2).tolist() == [[[1.0, 0.0], [0.0, 0.5]]]


def test_masks_without_white_and_of_two_images_are_refused(tmp_path: Path) -> None:
    pixels = np.zeros((8, 8, 3))
    pixels[0, 0] = 255  # a quarter of one of 4 × 4 parts
    written(tmp_path / "a.png", pixels)
    one, other = tmp_path / "one" / "a.png", tmp_path / "other" / "a.png"
    with pytest.raises(DataError, match=r"a\.png: more black than white in each of 4 × 4 parts"):
        read_masks(tmp_path, CaptionedImages((one,), ("a",), 8), 4)
    with pytest.raises(DataError, match="would be the mask of several images"):
        read_masks(tmp_path, CaptionedImages((one, other), ("a", "b"), 8), 4)
