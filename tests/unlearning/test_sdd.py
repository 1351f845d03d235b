"""What is special about SDD: the teacher is the average of the students, and no prompt is the target."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from resalign.config.concept import ConceptPrompts
from resalign.config.strict import ConfigError
from resalign.contracts import Run, UnlearningData
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.diffusion.parametrisation import named_weights, select
from resalign.diffusion.prediction import predict
from resalign.tensors.params import Params, detached
from resalign.unlearning import sdd
from resalign.unlearning._descent import descend
from tests.nearness import assert_near, differing
from tests.unlearning.recording import Recording
from tests.weight_names import of_denoiser

QUICK = {"steps": 5, "lr": 1e-3, "batch_size": 2, "num_inference_steps": 4}


def trained(loaded: LoadedPipeline, data: UnlearningData, **settings: Any) -> tuple[Params, list[Params]]:
    """The result, by the denoiser's names, and the student after each step."""
    attempt = Recording()
    config = sdd.Config.parse({**QUICK, **settings}, where="test")
    return of_denoiser(loaded, sdd.unlearn(loaded, data, config, Run(0, attempt=attempt))), [
        student for _, student in attempt.path
    ]


def test_the_result_is_the_average_of_the_students_path(
    loaded: LoadedPipeline, unlearning_data: UnlearningData
) -> None:
    teacher, path = trained(loaded, unlearning_data, decay=0.7, decay_steps=None)
    original = named_weights(loaded.denoiser)
    assert len(path) == 5
    assert set(teacher) == set(select(original, "cross_attention"))
    # Σ_k (1 − d) d^(n − k) θ_k + dⁿ θ₀, as changes of θ₀, which are small beside it.
    weights = [0.3 * 0.7 ** (4 - step) for step in range(5)]
    assert sum(weights) + 0.7**5 == pytest.approx(1)
    expected = {
        name: sum(
            weight * (student[name] - original[name]).double() for weight, student in zip(weights, path, strict=True)
        )
        for name in teacher
    }
    assert_near({name: (tensor - original[name]).double() for name, tensor in teacher.items()}, expected, 1e-3)


def test_without_decay_it_is_the_student_and_at_decay_1_the_original(
    loaded: LoadedPipeline, unlearning_data: UnlearningData
) -> None:
    teacher, path = trained(loaded, unlearning_data, decay=0.0)
    assert not differing(teacher, path[-1])
    assert differing(path[-1], {name: named_weights(loaded.denoiser)[name] for name in teacher})
    teacher, _ = trained(loaded, unlearning_data, decay=1.0)
    assert not differing(teacher, {name: named_weights(loaded.denoiser)[name] for name in teacher})


def test_the_teacher_of_a_run_is_what_samples(loaded: LoadedPipeline, unlearning_data: UnlearningData) -> None:
    # At a rate that moves the student far, a teacher that stays the original samples other images.
    far = {"lr": 0.3, "steps": 4, "num_inference_steps": 2}
    config, original = sdd.Config.parse({**QUICK, **far}, where="test"), named_weights(loaded.denoiser)
    names = select(original, "cross_attention")
    students = []
    for teacher in ({name: original[name] for name in names}, None):
        direction = sdd.step_gradient(loaded, unlearning_data, config, teacher)
        students.append(descend(original, names, direction, config, Run(0), method="sdd"))
    _, path = trained(loaded, unlearning_data, decay=1.0, **far)
    assert not differing(path[-1], students[0])
    assert differing(path[-1], students[1])


@pytest.mark.parametrize("steps", [1, 100, 1500])
def test_the_originals_share_does_not_depend_on_the_number_of_steps(steps: int) -> None:
    assert sdd.Config(steps=steps).step_decay ** steps == pytest.approx(0.999**1500)
    assert sdd.Config(steps=steps, decay_steps=None).step_decay == 0.999
    assert sdd.Config().step_decay == 0.999


def test_a_concept_that_is_no_prompt_changes_nothing(loaded: LoadedPipeline, unlearning_data: UnlearningData) -> None:
    data = replace(unlearning_data, concepts=(ConceptPrompts(prompts=("",)),))
    # Decoupled decay would shrink the weights without any gradient.
    _, path = trained(loaded, data, decay=0.0, weight_decay=0.0)
    original = named_weights(loaded.denoiser)
    assert not differing(path[-1], {name: original[name] for name in path[-1]})


def test_the_concept_comes_to_be_predicted_as_no_prompt(
    loaded: LoadedPipeline, unlearning_data: UnlearningData
) -> None:
    def guidance(weights: Params) -> torch.Tensor:
        batch = unlearning_data.forget.draw_stratified(16, Run(7).generator("test"))
        seven = replace(batch, conditioning=loaded.encode_prompts(["a red seven"]).expand(16))
        empty = replace(batch, conditioning=loaded.unconditional(16))
        with torch.no_grad():
            named, unnamed = (predict(loaded.denoiser, weights, each) for each in (seven, empty))
        return (named - unnamed).square().mean()

    original = named_weights(loaded.denoiser)
    teacher, _ = trained(loaded, unlearning_data, steps=40, decay=0.5, decay_steps=None)
    assert guidance({**original, **teacher}) < 0.7 * guidance(original)


def test_the_teacher_samples(loaded: LoadedPipeline, unlearning_data: UnlearningData) -> None:
    original = named_weights(loaded.denoiser)
    other = {name: tensor + 0.3 for name, tensor in original.items()}
    config = sdd.Config.parse(QUICK, where="test")
    losses: dict[str, list[float]] = {"none": [], "itself": [], "other": []}
    for name, teacher in {"none": None, "itself": original, "other": other}.items():
        direction = sdd.step_gradient(loaded, unlearning_data, config, teacher)
        variables = detached(original, requires_grad=True)
        losses[name] = [
            direction(variables, variables, Run(seed).generator("sdd"))[1]["concept_loss"] for seed in range(4)
        ]
    assert losses["none"] == losses["itself"]
    assert losses["none"] != losses["other"]


def test_prompts_that_are_cut_when_they_are_one_are_refused(
    loaded: LoadedPipeline, unlearning_data: UnlearningData
) -> None:
    many = ConceptPrompts(prompts=("a red seven", "a blue seven", "a green seven", "a white seven"))
    data = replace(unlearning_data, concepts=(many,))
    config = sdd.Config.parse({"steps": 1, "num_inference_steps": 2}, where="test")
    with pytest.raises(ConfigError, match=r"which has \d+ tokens; the text encoder reads 12: .* sampled_at: drawn"):
        sdd.unlearn(loaded, data, config, Run(0))
    assert sdd.unlearn(loaded, data, config.model_copy(update={"sampled_at": "drawn"}), Run(0))
