"""IMMA's alternation, against its iterates in closed form and with its adversary off."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from resalign.config import registry
from resalign.config.strict import ConfigError
from resalign.contracts import Run, UnlearningData
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.diffusion.parametrisation import lora, named_weights, select
from resalign.running.attempt import Attempt
from resalign.tensors.weights import save_weights
from resalign.unlearning import imma
from tests.nearness import assert_near, differing
from tests.stopping import stopped_after_a_step
from tests.weight_names import of_denoiser

from .linear_model import NAME, linear_data, linear_pipeline, slope

SMALL = {"steps": 3, "lr": 1e-3, "batch_size": 2}


def config_of(**settings: Any) -> imma.Config:
    return imma.Config.parse({**SMALL, **settings}, where="test")


def trained(
    loaded: LoadedPipeline, data: UnlearningData, attempt: Attempt | None = None, **settings: Any
) -> dict[str, torch.Tensor]:
    run = Run(0, attempt=attempt or Attempt())
    return of_denoiser(loaded, imma.unlearn(loaded, data, config_of(**settings), run))


class Rule:
    """The update that an optimizer takes for a gradient, from its definition."""

    def __init__(self, optimizer: str, lr: float) -> None:
        self.is_adam, self.lr, self.t = optimizer == "adam", lr, 0
        self.m = self.v = torch.zeros(())

    def __call__(self, gradient: torch.Tensor) -> torch.Tensor:
        if not self.is_adam:
            return self.lr * gradient
        self.t += 1
        self.m, self.v = 0.9 * self.m + 0.1 * gradient, 0.999 * self.v + 0.001 * gradient**2
        mean, square = self.m / (1 - 0.9**self.t), self.v / (1 - 0.999**self.t)
        return self.lr * mean / (square**0.5 + 1e-8)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize(("adversary", "restart"), [("none", None), ("lora", None), ("lora", 2)])
def test_the_alternation_has_its_closed_form_iterates(optimizer: str, adversary: str, restart: int | None) -> None:
    loaded, data, run = linear_pipeline(), linear_data(), Run(0)
    rates = {"lr": 0.1, "adversary_lr": 0.3}
    config = config_of(
        steps=5,
        optimizer=optimizer,
        weight_decay=0.0,
        max_grad_norm=None,
        adversary=adversary,
        adversary_rank=2,
        restart=restart,
        **rates,
    )
    found = of_denoiser(loaded, imma.unlearn(loaded, data, config, run))[NAME]
    start = named_weights(loaded.denoiser)
    initial = lora(start, 2).initial(start, run.generator("imma", "adversary", "initial"))
    matrix, down, up = start[NAME], initial[f"lora_down.{NAME}"], initial[f"lora_up.{NAME}"]
    attacked, immunised = data.forget.halves()
    stream, adversary_stream = run.generator("imma"), run.generator("imma", "adversary")
    of_matrix, of_down, of_up = (Rule(optimizer, rates[name]) for name in ("lr", "adversary_lr", "adversary_lr"))
    for step in range(5):
        if adversary == "lora":
            if restart and step % restart == 0:
                down, up = initial[f"lora_down.{NAME}"], initial[f"lora_up.{NAME}"]
                of_down, of_up = Rule(optimizer, 0.3), Rule(optimizer, 0.3)
            gradient = slope(matrix + up @ down, attacked.draw(2, adversary_stream))
            down, up = down - of_down(up.T @ gradient), up - of_up(gradient @ down.T)
        # The ascent of the denoising loss is the descent of its negative.
        matrix = matrix - of_matrix(-slope(matrix + up @ down, immunised.draw(2, stream)))
    assert_near(found, matrix, 1e-9)
    assert not torch.allclose(found, start[NAME], atol=0.05)


def test_an_adversary_who_learns_nothing_is_none_bit_for_bit(
    loaded: LoadedPipeline, unlearning_data: UnlearningData
) -> None:
    idle, none, active = (
        trained(loaded, unlearning_data, **settings)
        for settings in ({"adversary_lr": 0.0}, {"adversary": "none"}, {"adversary_lr": 0.1})
    )
    assert not differing(idle, none)
    assert differing(active, none)
    assert idle.keys() == none.keys() == set(select(named_weights(loaded.denoiser), "attention"))


def test_it_starts_from_its_base(loaded: LoadedPipeline, unlearning_data: UnlearningData) -> None:
    base = {"method": "graddiff", "steps": 1, "lr": 1e-2, "batch_size": 2}
    method, config = registry.configured("unlearning", {"name": base.pop("method"), **base}, where="test")
    erased = of_denoiser(loaded, method.unlearn(loaded, unlearning_data, config, Run(0)))
    base["method"] = "graddiff"
    none = trained(loaded, unlearning_data, base=base, steps=0)
    assert not differing(none, erased)
    # A step of plain descent adds the same to either model as far as the step is small.
    found = trained(loaded, unlearning_data, base=base, steps=1, lr=1e-9)
    assert_near(found, erased, 1e-6)
    assert differing(found, erased)
    assert trained(loaded, unlearning_data, steps=0).keys() == set(select(erased, "attention"))


def test_a_run_that_stopped_after_its_base_goes_on_to_equal_bits(
    loaded: LoadedPipeline, unlearning_data: UnlearningData, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"base": {"method": "graddiff", "steps": 1, "batch_size": 2}, "steps": 2}
    whole = trained(loaded, unlearning_data, **settings)
    resumed = stopped_after_a_step(
        tmp_path, lambda attempt: trained(loaded, unlearning_data, attempt=attempt, **settings)
    )
    assert not differing(resumed, whole)
    assert resumed.keys() == whole.keys()


def test_steps_of_the_history_go_on_after_the_base(loaded: LoadedPipeline, unlearning_data: UnlearningData) -> None:
    run = Run(0)
    config = config_of(base={"method": "graddiff", "steps": 2, "batch_size": 2}, steps=3)
    imma.unlearn(loaded, unlearning_data, config, run)
    assert [step for step, name, _ in run.history.rows if name == "forget_loss"] == [0, 1]
    assert [step for step, name, _ in run.history.rows if name == "adversary_loss"] == [2, 3, 4]


# --- a base in a configuration ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base", "message"),
    [
        ({"method": "gradif"}, "key 'base': no unlearning named 'gradif'; did you mean 'graddiff'?"),
        ({"method": "esd", "varient": "x"}, "key 'base': esd: unknown key 'varient'; did you mean 'variant'?"),
        ({"lr": 0.1}, "key 'base': method is required"),
        ({"method": "imported"}, "key 'base': imported: key 'checkpoint' is required"),
    ],
)
def test_a_faulty_base_is_refused(base: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config_of(base=base)
    assert message in str(caught.value)


def test_what_a_base_is_counts_for_the_method() -> None:
    config = config_of(base={"method": "imported", "checkpoint": "released/unet", "covers": "some"})
    assert config.modules == ("resalign.unlearning.imported",)
    assert (config.checkpoint, config.covers) == ("released/unet", "some")
    within = config_of(base={"method": "imma", "base": {"method": "resalign", "harmful": "relabelling"}})
    assert within.needs() == ("substitute",)
    solver = "resalign.bilevel.solvers.richardson"
    assert within.modules == ("resalign.unlearning.imma", "resalign.unlearning.resalign", solver)
    assert imma.Config.parse(within.model_dump(mode="json"), where="again") == within
    assert (config_of().modules, config_of().needs(), config_of().checkpoint) == ((), (), None)


def test_a_base_that_changes_a_text_encoder_is_refused(
    loaded: LoadedPipeline, unlearning_data: UnlearningData, tmp_path: Path
) -> None:
    encoder = loaded.pipeline.text_encoder
    name, tensor = next(iter(encoder.named_parameters()))
    save_weights(tmp_path / "text.safetensors", {f"text_encoder.{name}": tensor.detach() + 1})
    data = replace(unlearning_data, checkpoint=tmp_path / "text.safetensors")
    with pytest.raises(ConfigError, match=r"base 'imported' changes text_encoder\."):
        trained(loaded, data, base={"method": "imported", "checkpoint": "x", "covers": "some"})


def test_a_base_must_support_the_pipeline(loaded: LoadedPipeline, unlearning_data: UnlearningData) -> None:
    flow = linear_pipeline()
    flow.architecture.name = "stable_diffusion_3"
    with pytest.raises(ConfigError, match="unlearning 'esd' supports"):
        imma.unlearn(flow, linear_data(), config_of(base={"method": "esd"}), Run(0))
