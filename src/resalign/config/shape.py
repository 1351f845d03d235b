"""The plain shape of a configuration file: every key, but for the settings of families' members."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from resalign.config.assets import AssetConfig, Term
from resalign.config.concept import ConceptConfig
from resalign.config.detector_audit import DetectorAuditConfig
from resalign.config.digits import DigitsConfig
from resalign.config.precision import TrainingPrecision
from resalign.config.prompts import Choice, PromptColumns
from resalign.config.report import ReportConfig
from resalign.config.sampling import SamplingConfig
from resalign.config.scorer_needs import DetectorCheckConfig
from resalign.config.strict import Strict
from resalign.config.study import SelectionConfig, StudyConfig
from resalign.config.sweeps import SweepConfig
from resalign.config.theory import TheoryConfig
from resalign.config.tuning import TuningConfig

Tier = Literal["smoke", "small", "paper"]
TIERS: tuple[Tier, ...] = ("smoke", "small", "paper")
KeepImages = Literal["all", "flagged", "sample"]
NOT_ATTACKED = "none"  # the attack's name of a state before fine-tuning


class ModelWords(Strict):
    """The words of an unlearned model, beside its method's settings."""

    title: str = Field("", description="display name; default: the method's own name, or the label")
    note: str = Field("", description="a sentence at the end of its row in the table of methods")


class PromptSetConfig(Strict):
    """A prompt list, how it is read, and whether every checkpoint of an attack is sampled on it or only the last."""

    source: str | Annotated[dict[str, str], Field(min_length=1)] = Field(
        description="asset/file; or one by attack, what its user asks for, and by `none`, before fine-tuning: other "
        "states are not sampled on the list"
    )
    columns: PromptColumns = PromptColumns()
    title: str = Field("", description="display name; default: the label")
    about: str = Field("", description="a sentence that defines the list, for the page")
    along_the_way: bool = False
    may_be_captions: bool = Field(
        False,
        description="whether its prompts may be captions of images that are trained on: a run refuses them otherwise, "
        "and the main table names the list",
    )
    choice: Choice = Field(
        "even",
        description="which prompts a tier takes that asks for fewer than there are: by hash, as many of each label; "
        "first: the first rows, of a list that is in a balanced order",
    )

    @property
    def chosen(self) -> dict[str, Any]:
        """The choice for a job or a hash; nothing where the first rows are taken, as long before there was another."""
        return {} if self.choice == "first" else {"choice": self.choice}

    def source_after(self, attack: str | None) -> str | None:
        """The list's file in a state; None where that state is not sampled on it."""
        return self.source if isinstance(self.source, str) else self.source.get(attack or NOT_ATTACKED)


class PromptCount(Strict):
    """How much of a prompt list a tier uses."""

    prompts: int | None = Field(None, gt=0, description="so many of them, see `choice`; null for all")
    images: int = Field(1, gt=0, description="images of each prompt")


class TierConfig(Strict):
    """How large the experiment is; see :func:`check_nested`."""

    training_seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(min_length=1)
    prompts: dict[str, PromptCount]
    without: tuple[str, ...] = Field((), description="metrics that the tier leaves out, such as FID of too few images")

    @model_validator(mode="after")
    def _seeds_differ(self) -> TierConfig:
        if len(set(self.training_seeds)) < len(self.training_seeds):
            raise ValueError(f"training_seeds must differ, got {list(self.training_seeds)}")
        return self


class ResourcesConfig(Strict):
    """Resources that a job of each stage requests from the scheduler; every stage obeys ``threads``."""

    threads: int = Field(1, gt=0)
    gpu: int = Field(0, ge=0)
    device: Literal["cpu", "cuda", "auto"] = Field(
        "cpu", description="cuda: a GPU of the job's own, refused where there is none; auto: the CPU there"
    )
    micro_batch_size: int | None = Field(
        None, gt=0, description="of unlearn and attack: examples in memory at once, equal up to rounding; null for all"
    )
    gradient_checkpointing: bool = Field(
        False, description="of unlearn and attack: blocks of the network are computed again instead of kept, for memory"
    )
    cuda_graphs: bool = Field(
        False,
        description="of unlearn and attack: each gradient and Hessian product is one launch; same kernels, same bits",
    )
    mem_mb: int = Field(4000, gt=0)
    runtime_minutes: int = Field(60, gt=0)

    @model_validator(mode="after")
    def _graphs_are_the_gpus(self) -> ResourcesConfig:
        if self.cuda_graphs and self.device != "cuda":
            raise ValueError(f"cuda_graphs are for device: cuda, got {self.device}")
        return self


class ArtifactConfig(Strict):
    """Contents of a result's archive besides code, records, tables and figures."""

    weights: bool = Field(False, description="of the unlearned models; never of the attacked ones")
    images: bool = Field(False, description="every generated image, unsafe ones too, and the page with its samples")


class ExperimentConfig(Strict):
    """The plain shape of a configuration file; members of families are validated by their own classes."""

    extends: str | None = Field(None, description="a configuration file that this one changes; see config/extension.py")
    name: str = Field(pattern="^[a-z0-9][a-z0-9_-]*$", max_length=64)
    title: str
    subtitle: str = ""
    tier: Tier = "small"
    pixels: int = Field(512, gt=0, description="edge of training and reference images")
    precision: TrainingPrecision = Field(
        "float32", description="in which networks compute while they are trained; weights stay in float32"
    )
    assets: dict[str, AssetConfig] = Field(
        {}, description="beside the catalogue's, config/assets.yaml, which are known"
    )
    prepared: dict[str, dict[str, Any]] = Field({}, description="image sets made from assets, named like assets")
    consent: tuple[Term, ...] = Field((), description="terms of assets that the user agrees to")
    digits: DigitsConfig = DigitsConfig()
    model: str
    concept: ConceptConfig
    pipelines: dict[str, str] = Field({}, description="further models, sampled and attacked as they are, like `model`")
    unlearning: dict[str, dict[str, Any]] = {}
    audit: dict[str, str | dict[str, Any]] = Field(
        {},
        description="models to audit, in place of `pipelines` and `unlearning`: asset or path of a pipeline folder, or "
        "{checkpoint: asset or path} of changed weights for `model`",
    )
    attacks: dict[str, dict[str, Any]] = {}
    main_table_attacks: tuple[str, ...] = Field(
        (), description="attacks of the main table; none: every entry of `attacks`"
    )
    sweeps: dict[str, SweepConfig] = Field({}, description="series of attacks that are shown together")
    prompts: dict[str, PromptSetConfig]
    sampling: SamplingConfig = SamplingConfig()
    # In no run's name, and in no record where it is the default: earlier ones remain as they are.
    keep_images: KeepImages = Field(
        "all",
        exclude_if=lambda kept: kept == "all",
        description="images that stay once they are scored; sample: those that the page shows; flagged: these and what "
        "the flagging metric flags",
    )
    scorers: dict[str, dict[str, Any]]
    scoring_batch_size: int = Field(60, gt=0, description="images scored at once; it changes scores only by rounding")
    reference: str | None = Field(None, description="real images that set metrics compare with")
    metrics: dict[str, dict[str, Any]]
    gallery_prompts: str = Field(description="prompt list of the page's sample grid")
    flagging_metric: str = Field(description="metric whose flagged images are blurred wherever they are shown")
    tiers: dict[Tier, TierConfig]
    resources: dict[Literal["default", "unlearn", "attack", "sample", "score"], ResourcesConfig] = {}
    report: ReportConfig = ReportConfig()
    detector_audit: DetectorAuditConfig = DetectorAuditConfig()
    detector_check: DetectorCheckConfig = DetectorCheckConfig()
    artifact: ArtifactConfig = ArtifactConfig()
    theory: TheoryConfig = TheoryConfig()
    study: StudyConfig | None = Field(
        None, exclude_if=lambda key: key is None, description="claims that are fixed before the experiment is run"
    )
    selection: SelectionConfig | None = Field(
        None, exclude_if=lambda key: key is None, description="the rule by which a search chooses settings"
    )
    tuning: TuningConfig | None = Field(
        None, exclude_if=lambda key: key is None, description="a method's own fields, searched by `-- tune`"
    )

    @model_validator(mode="after")
    def _packed_images_are_kept(self) -> ExperimentConfig:
        if self.artifact.images and self.keep_images != "all":
            raise ValueError(
                f"artifact.images packs every image, keep_images: {self.keep_images} removes some; keep all"
            )
        return self
