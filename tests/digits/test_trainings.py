"""Every part of the demo world after two steps of training: what is written is what its users load."""

from pathlib import Path

import torch

from resalign.config.digits import DIGITS, DigitsConfig
from resalign.data.prompts import Prompt
from resalign.diffusion.loaded_pipeline import load_pipeline
from resalign.diffusion.sampling import sample_images
from resalign.digits.autoencoder import train_autoencoder
from resalign.digits.clip import train_clip
from resalign.digits.detectors import train_detector
from resalign.digits.generator import train_generator
from resalign.running.attempt import Attempt
from resalign.scorers import clip, image_classification

from .small_world import small_world

CONFIG = DigitsConfig.parse(small_world(2), where="digits")
PIXELS = CONFIG.image_pixels
IMAGES = torch.randint(0, 256, (2, 3, PIXELS, PIXELS), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_the_model_is_a_pipeline(tmp_path: Path) -> None:
    train_autoencoder(CONFIG, tmp_path / "autoencoder", Attempt())
    train_generator(CONFIG, tmp_path / "autoencoder", tmp_path / "model", Attempt())
    loaded = load_pipeline(tmp_path / "model")
    images = sample_images(
        loaded, [(Prompt("a", "a red seven"), 0)], sampling_seed=0, num_inference_steps=2, guidance_scale=2.0
    )
    assert images.shape == (1, 3, PIXELS, PIXELS)


def test_a_detector_is_a_classifier_of_digits_and_nothing(tmp_path: Path) -> None:
    found = train_detector(CONFIG, "digits-resnet", tmp_path, Attempt())
    assert 0 <= found["heldout_accuracy"] <= 1
    scorer = image_classification.load(image_classification.Config(folder="x"), tmp_path, "cpu")
    assert scorer.quantities == (*DIGITS, "nothing")
    assert scorer.score(IMAGES, ["", ""]).shape == (2, len(DIGITS) + 1)


def test_clip_is_an_open_clip_folder(tmp_path: Path) -> None:
    train_clip(CONFIG, tmp_path, Attempt())
    scores = clip.load(clip.Config(folder="x"), tmp_path, "cpu").score(IMAGES, ["a red seven", "a blue two"])
    assert torch.isfinite(scores).all()
