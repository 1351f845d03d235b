"""The scorer against the package that it replaces: the same network, input and suppression, array by array."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from resalign.scorers import nudenet as scorer_module
from resalign.scorers._scorer import Scorer
from resalign.scorers.nudenet import CLASSES, Config, load, network_input

nudenet = pytest.importorskip("nudenet")

EXPOSED = (250, 40, 40)


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return load(Config(), None, "cpu")


@pytest.fixture(scope="module")
def detector() -> "nudenet.NudeDetector":
    """The package's, but for its threads: another number of them may add in another order."""
    detector = nudenet.NudeDetector()
    detector.onnx_session = scorer_module.open_session()
    return detector


@pytest.fixture(scope="module")
def photographs() -> list[np.ndarray]:
    """Three photographs (H, W, 3) that installed packages ship: a portrait, a temple and a flower."""
    import matplotlib
    from sklearn.datasets import load_sample_images

    with Image.open(Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg") as portrait:
        return [np.array(portrait.convert("RGB")), *(np.array(image) for image in load_sample_images().images)]


def tensor(image: np.ndarray) -> torch.Tensor:
    """(H, W, 3) as a batch of one, (1, 3, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None]


def reference(detector: "nudenet.NudeDetector", image: np.ndarray) -> np.ndarray:
    """The largest score of each class by the package's own ``detect``, which takes arrays as OpenCV reads them."""
    largest = np.zeros(len(CLASSES), dtype=np.float32)
    for box in detector.detect(np.ascontiguousarray(image[..., ::-1])):
        index = CLASSES.index(box["class"])
        largest[index] = max(largest[index], box["score"])
    return largest


def as_the_package_says(box: scorer_module.Box) -> dict[str, object]:
    return {"class": box.name, "score": box.score, "box": list(box.pixels)}


def views(photograph: np.ndarray, count: int) -> list[np.ndarray]:
    """Crops of a photograph, some mirrored, darkened or noisy, of many shapes."""
    rng = np.random.default_rng(5)
    height, width = photograph.shape[:2]
    found = []
    for index in range(count):
        top, left = rng.integers(0, (height // 4, width // 4))
        bottom, right = rng.integers((3 * height // 5, 3 * width // 5), (height, width))
        view = photograph[top:bottom, left:right]
        if index % 2:
            view = view[:, ::-1]
        if index % 3 == 1:
            view = (view * rng.uniform(0.6, 1)).astype(np.uint8)
        if index % 5 == 2:
            view = np.clip(view + rng.normal(0, 8, view.shape), 0, 255).astype(np.uint8)
        found.append(np.ascontiguousarray(view))
    return found


@pytest.mark.slow
def test_fifty_images_have_the_packages_boxes_one_for_one(
    detector: "nudenet.NudeDetector", photographs: list[np.ndarray]
) -> None:
    session, shown = scorer_module.open_session(), 0
    images = [*views(photographs[0], 44), *views(photographs[1], 3), *views(photographs[2], 3)]
    assert len(images) == 50
    for image in images:
        [boxes] = scorer_module.detect(session, tensor(image))
        wanted = detector.detect(np.ascontiguousarray(image[..., ::-1]))
        assert [as_the_package_says(box) for box in boxes] == wanted
        shown += bool(wanted)
    assert shown >= 30, "too few images have a box for the comparison to mean anything"


def test_classes_are_the_packages_in_its_order(scorer: Scorer) -> None:
    assert list(CLASSES) == vars(nudenet.nudenet)["__labels"]
    assert scorer.quantities == CLASSES


def test_scores_equal_the_packages_on_photographs(
    scorer: Scorer, detector: "nudenet.NudeDetector", photographs: list[np.ndarray]
) -> None:
    images = [image for photograph in photographs for image in (photograph, photograph[:, ::-1])]
    images += views(photographs[0], 6)
    shown = 0
    for image in images:
        wanted = reference(detector, image)
        # Same network, same input, same library for both: not a rounding apart.
        np.testing.assert_array_equal(scorer.score(tensor(image), [""])[0].numpy(), wanted)
        shown += bool(wanted.any())
    assert shown >= 6, "too few images have a box for the comparison to mean anything"


@pytest.mark.parametrize("shape", [(64, 64), (97, 41), (33, 320), (1, 1)])
def test_scores_equal_the_packages_on_synthetic_images(
    scorer: Scorer, detector: "nudenet.NudeDetector", shape: tuple[int, int]
) -> None:
    rng = np.random.default_rng(1)
    noise = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    for image in (noise, np.zeros_like(noise), np.full_like(noise, 255), np.full_like(noise, EXPOSED)):
        np.testing.assert_array_equal(scorer.score(tensor(image), [""])[0].numpy(), reference(detector, image))


def test_a_batch_scores_as_its_images_do(scorer: Scorer, photographs: list[np.ndarray]) -> None:
    resized = [np.array(Image.fromarray(photograph).resize((256, 320))) for photograph in photographs]
    batch = scorer.score(torch.cat([tensor(image) for image in resized]), [""] * len(resized))
    assert batch.shape == (len(resized), len(CLASSES))
    assert batch.any()
    alone = torch.cat([scorer.score(tensor(image), [""]) for image in resized])
    # Each image is a batch of its own to the network, whatever its company.
    assert torch.equal(batch, alone)


@pytest.mark.parametrize(("height", "width"), [(512, 512), (480, 640), (90, 31)])
def test_suppression_is_the_packages(height: int, width: int) -> None:
    """On crowds of overlapping boxes, many across the image's edges and into its padding, as no photograph has them."""
    rng = np.random.default_rng(2)
    edge, changed = max(height, width), 0
    for _ in range(40):
        output = np.zeros((4 + len(CLASSES), 300), dtype=np.float32)
        output[:2] = rng.uniform(-20, 340, (2, 300))
        output[2:4] = rng.uniform(5, 200, (2, 300))
        output[4:] = rng.uniform(0, 1, (len(CLASSES), 300)) ** 20
        boxes = nudenet.nudenet._postprocess(
            [output[None]], edge - width, edge - height, edge / width, edge / height, width, height, 320, 320
        )
        wanted = np.zeros(len(CLASSES), dtype=np.float32)
        for box in boxes:
            wanted[CLASSES.index(box["class"])] = max(wanted[CLASSES.index(box["class"])], box["score"])
        ours = scorer_module._boxes(output, height, width)
        assert [as_the_package_says(box) for box in ours] == boxes
        unsuppressed = np.where(output[4:] == output[4:].max(axis=0), output[4:], 0).max(axis=1)
        changed += not np.array_equal(wanted, unsuppressed)
    assert changed > 20, "suppression must make a difference for the comparison to mean anything"


def test_a_weak_box_counts_for_nothing() -> None:
    """Between the score a box needs to be considered and the one it needs to be kept lies no survivor, not all."""
    output = np.zeros((4 + len(CLASSES), 2), dtype=np.float32)
    output[:4] = 50
    output[4] = 0.21
    assert not scorer_module._boxes(output, 100, 100)
    output[4, 1] = 0.5
    assert [(box.name, box.score) for box in scorer_module._boxes(output, 100, 100)] == [(CLASSES[0], 0.5)]


@pytest.mark.parametrize(("colour", "arrives"), [((255, 0, 0), (0, 0, 1)), ((0, 0, 255), (1, 0, 0))])
def test_channels_arrive_as_the_package_feeds_a_file(
    tmp_path: Path, colour: tuple[int, ...], arrives: tuple[int, ...]
) -> None:
    image = np.full((40, 40, 3), colour, dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "plain.png")
    ours = network_input(tensor(image))
    assert tuple(ours[0, :, 5, 5]) == arrives
    np.testing.assert_array_equal(ours, nudenet.nudenet._read_image(str(tmp_path / "plain.png"))[0])


def test_another_network_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scorer_module, "NETWORK_SHA256", "0" * 64)
    with pytest.raises(ValueError, match=r"320n.onnx: sha256 c15d8273.*, expected 0000.*nudenet==3.4.2"):
        load(Config(), None, "cpu")
