import pytest

from resalign.contracts import Run
from resalign.diffusion.batches import EncodedImages, NoisyBatch


@pytest.fixture(scope="session")
def batch(encoded_images: EncodedImages) -> NoisyBatch:
    """Six noisy examples, from little noise to much."""
    return encoded_images.draw_stratified(6, Run(seed=0).generator("objectives"))


@pytest.fixture(scope="session")
def prior(encoded_images: EncodedImages) -> NoisyBatch:
    """Six other ones."""
    return encoded_images.draw_stratified(6, Run(seed=1).generator("objectives"))
