"""Attempts to have a folder's own code run: each leaves a file, the marker, if it succeeds."""

import hashlib
import json
import pickle
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tests.json_files import edit_json
from tests.scorers.conftest import LABELS, onnx_weights, write_dino, write_safety_checker
from tests.scorers.onnx_file import write_onnx

# What Python, pytest, setuptools, torch.hub and transformers each would run if they came across it.
MODULES = (
    *("own_code.py", "sitecustomize.py", "usercustomize.py", "conftest.py", "setup.py", "hubconf.py", "__init__.py"),
    *("pipeline.py", "diffusers.py", "transformers.py", "custom_generate/generate.py"),
)
OWN = "own_code"


@dataclass(frozen=True)
class Trap:
    """What leaves the marker, in every form."""

    marker: Path

    @property
    def code(self) -> str:
        """A module's text."""
        return f"open({str(self.marker)!r}, 'w').close()\n"

    def __reduce__(self) -> Any:
        """As a pickle."""
        return exec, (self.code,)

    def lay(self, folder: Path) -> None:
        """Modules into a folder, each of a name that something might import."""
        for name in MODULES:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(self.code)


Plant = Callable[[Path, Trap], object]


@dataclass(frozen=True)
class Attempt:
    """One.

    Attributes:
        kind: Of folder.
        how: It is tried.
        stage: Which stages read the folder; see test_markers.py.
        where: The folder, in the world of the tiny experiment.
        plant: Puts what points at the code into it; the modules lie there already.
        changes: To the configuration, by dotted key.
        refused: Whether the stages must refuse it; what merely lies there is none of their business.
        slow: Whether another kind's attempt is the same by another route.
    """

    kind: str
    how: str
    stage: str
    where: str
    plant: Plant = lambda folder, trap: None
    changes: dict[str, Any] = field(default_factory=dict)
    refused: bool = True
    slow: bool = False


def rewritten(file: Path, text: str) -> None:
    """A file anew: that of the world is linked to, not copied."""
    file.unlink(missing_ok=True)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def says(name: str, **settings: Any) -> Plant:
    """More settings in a JSON file of the folder; a key ``a__b`` stands within ``a``."""
    return lambda folder, trap: edit_json(folder / name, **settings)


def pickled(name: str, *, instead_of: str = "", whole: Callable[[Trap], Any] = lambda trap: {"a": trap}) -> Plant:
    """A pickle that runs the code, in place of another file."""

    def plant(folder: Path, trap: Trap) -> None:
        for old in (name, instead_of or name):
            (folder / old).unlink(missing_ok=True)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        torch.save(whole(trap), folder / name)

    return plant


def plain_pickle(name: str) -> Plant:
    """A pickle as Python itself writes it."""
    return lambda folder, trap: (folder / name).write_bytes(pickle.dumps(trap))


def below(name: str, plant: Plant) -> Plant:
    """In a folder of it."""
    return lambda folder, trap: plant(folder / name, trap)


def also(*plants: Plant) -> Plant:
    """Several of them."""
    return lambda folder, trap: [plant(folder, trap) for plant in plants]


# --- pipelines and their parts ----------------------------------------------------------------------------------------

CLASS = {"AutoModel": f"{OWN}.Own", "AutoConfig": f"{OWN}.Own", "AutoTokenizer": [f"{OWN}.Own", f"{OWN}.Own"]}
INDEX, CONFIG, TOKENIZER = "model_index.json", "config.json", "tokenizer_config.json"


def pipeline(how: str, plant: Plant, **others: Any) -> Attempt:
    return Attempt("pipeline", how, "model", "model", plant, **others)


def part(name: str, how: str, plant: Plant, **others: Any) -> Attempt:
    return Attempt(f"pipeline: {name}", how, "model", f"model/{name}", plant, **others)


def networks(make: Callable[..., Attempt], weights: str, *, again: bool = False) -> list[Attempt]:
    """What every library's network may be told; ``again``, in a folder of the same library as before."""
    pickle_name = "diffusion_pytorch_model.bin" if weights.startswith("diff") else "pytorch_model.bin"
    elsewhere = json.dumps({"metadata": {}, "weight_map": {"a": f"../{OWN}.safetensors"}})
    found = [
        make("`auto_map`", says(CONFIG, auto_map=CLASS)),
        make("`trust_remote_code`", says(CONFIG, trust_remote_code=True)),
        make("`quantization_config`", says(CONFIG, quantization_config={"quant_method": OWN, "modules": [OWN]})),
        make("a kernel as `attn_implementation`", says(CONFIG, attn_implementation=f"{OWN}/kernels:own")),
        make("an adapter of another model", says("adapter_config.json", base_model_name_or_path=OWN)),
        make("weights as a pickle", pickled(pickle_name, instead_of=weights)),
        make("a pickle called safetensors", pickled(weights)),
        make("shards elsewhere", lambda folder, trap: rewritten(folder / f"{weights}.index.json", elsewhere)),
    ]
    return [replace(attempt, slow=again and number > 0) for number, attempt in enumerate(found)]


PIPELINES = [
    pipeline("modules that lie there", lambda folder, trap: None, refused=False),
    pipeline("a module as `_class_name`", says(INDEX, _class_name=[OWN, "Own"])),
    pipeline("`custom_pipeline`", says(INDEX, custom_pipeline=f"./{OWN}.py")),
    pipeline("`auto_map`", says(INDEX, auto_map={"DiffusionPipeline": f"{OWN}.Own"})),
    pipeline("a part that there is not", says(INDEX, own=[OWN, "Own"])),
    *(
        pipeline(f"a module as the library of `{name}`", also(says(INDEX, **{name: [OWN, kind]})))
        for name, kind in (("unet", "UNet2DConditionModel"), ("vae", "AutoencoderKL"), ("tokenizer", "CLIPTokenizer"))
    ),
    pipeline("a module as the library of `text_encoder`", says(INDEX, text_encoder=[OWN, "CLIPTextModel"])),
    pipeline("a module as the library of `scheduler`", says(INDEX, scheduler=[OWN, "DDIMScheduler"])),
    pipeline("a network as `scheduler`", says(INDEX, scheduler=["diffusers", "AutoencoderKL"])),
    pipeline("an Auto class as `tokenizer`", says(INDEX, tokenizer=["transformers", "AutoTokenizer"])),
    pipeline("a function as `text_encoder`", says(INDEX, text_encoder=["transformers", "pipeline"])),
    pipeline("a module as a part that is not loaded", says(INDEX, safety_checker=[OWN, "Own"]), refused=False),
    part("scheduler", "`auto_map`", says("scheduler_config.json", auto_map={"AutoModel": f"{OWN}.Own"})),
    part("scheduler", "a module's name", says("scheduler_config.json", module=OWN)),
    part("scheduler", "a module of its library's name", lambda folder, trap: None, refused=False),
    *networks(partial(part, "unet"), "diffusion_pytorch_model.safetensors"),
    *networks(partial(part, "vae"), "diffusion_pytorch_model.safetensors", again=True),
    *networks(partial(part, "text_encoder"), "model.safetensors", again=True),
    part("tokenizer", "`auto_map`", says(TOKENIZER, auto_map=CLASS)),
    part("tokenizer", "`trust_remote_code`", says(TOKENIZER, trust_remote_code=True)),
    part("tokenizer", "`tokenizer_class`", says(TOKENIZER, tokenizer_class="AutoModel")),
    part("tokenizer", "`init_inputs`", says(TOKENIZER, init_inputs=[OWN])),
    part("tokenizer", "another file as `vocab_file`", says(TOKENIZER, vocab_file=f"../../{OWN}.json")),
    part("tokenizer", "`auto_map` in a `config.json`", says(CONFIG, model_type="clip", auto_map=CLASS)),
    part("tokenizer", "a template that calls", says(TOKENIZER, chat_template="{{ ''.__class__ }}"), refused=False),
]


# --- scorers ----------------------------------------------------------------------------------------------------------


def scorer(kind: str, settings: dict[str, Any], where: str = "own") -> Callable[..., Attempt]:
    """Attempts on a further detector, whose folder is ``own``; a head on the experiment's CLIP is so, too."""
    changes = {"scorers.own": settings, "assets.own": {"path": "own"}}

    def make(how: str, plant: Plant, **others: Any) -> Attempt:
        others["changes"] = {**changes, **others.get("changes", {})}
        return Attempt(kind, how, "scorer", where, plant, **others)

    return make


def made(write: Callable[[Path], Path], plant: Plant) -> Plant:
    """On a folder that is written first."""

    def both(folder: Path, trap: Trap) -> None:
        write(folder)
        plant(folder, trap)

    return both


def classifier(how: str, plant: Plant, **others: Any) -> Attempt:
    return Attempt("image classifier", how, "scorer", "net", plant, **others)


def clip(how: str, plant: Plant, **others: Any) -> Attempt:
    return Attempt("CLIP (open_clip)", how, "scorer", "clip", plant, **others)


def text(**settings: Any) -> Plant:
    return says("open_clip_config.json", **{f"model_cfg__text_cfg__{key}": value for key, value in settings.items()})


PROCESSOR, PROCESSORS = "preprocessor_config.json", {"AutoImageProcessor": f"{OWN}.Own"}
dino = scorer("DINO", {"scorer": "dino", "folder": "own"})
checker = scorer("safety checker", {"scorer": "sd_safety_checker", "folder": "own/safety_checker"})
network = scorer("ONNX file", {"scorer": "onnx_classifier", "folder": "own", "classes": list(LABELS), "pixels": 32})


def own_tokenizer(**settings: Any) -> Plant:
    """An open_clip folder with a tokenizer of transformers, as those with another vocabulary have it."""

    def plant(folder: Path, trap: Trap) -> None:
        for file in (folder.parent / "model" / "tokenizer").glob("*.json"):
            shutil.copy(file, folder)
        text(hf_tokenizer_name=OWN)(folder, trap)
        says(TOKENIZER, **settings)(folder, trap)

    return plant


def onnx(**graph: Any) -> Plant:
    return lambda folder, trap: write_onnx(folder / "model.onnx", *onnx_weights(), **graph)


def heads() -> list[Attempt]:
    """Pickled heads, whose hash is what the configuration says where it says one."""
    found = []
    for name, file in (
        ("aesthetic", "head.pth"),
        ("laion_nsfw", "head.pt"),
        ("mhsc", "sexual.pt"),
        ("q16", "prompts.p"),
        ("inception", "weights.pth"),
    ):
        settings: dict[str, Any] = {"scorer": name, **{"folder" if name == "inception" else "head": "own"}}
        settings |= {} if name == "inception" else {"folder": "clip"}
        settings |= {"published": False, "categories": ["sexual"]} if name == "mhsc" else {}
        make = scorer(f"head: {name}", settings)
        hashed = {"sha256_of": file} if name in ("q16", "inception") else {}
        found += [
            make("a pickle of torch", pickled(file), changes=hashed, slow=True),
            make("a plain pickle", plain_pickle(file), changes=hashed),
        ]
    return found


SCORERS = [
    classifier("modules that lie there", lambda folder, trap: None, refused=False),
    *networks(classifier, "model.safetensors"),
    classifier("`auto_map` without a `model_type`", says(CONFIG, model_type=None, auto_map=CLASS)),
    classifier("timm's network of another address", says(CONFIG, model_type="timm_wrapper", architecture="hf-hub:a/b")),
    classifier("`auto_map` of a processor", says(PROCESSOR, auto_map=PROCESSORS)),
    classifier(
        "another Auto class as processor, which asks",
        also(says(PROCESSOR, image_processor_type="AutoTokenizer"), says(TOKENIZER, auto_map=CLASS)),
    ),
    classifier(
        "`auto_map` in `processor_config.json`", says("processor_config.json", image_processor={"auto_map": PROCESSORS})
    ),
    clip("modules that lie there", lambda folder, trap: None, refused=False),
    clip("another network as text tower", text(hf_model_name=f"./{OWN}")),
    clip(
        "`tokenizer_kwargs` with `trust_remote_code`",
        also(own_tokenizer(auto_map=CLASS), text(tokenizer_kwargs={"trust_remote_code": True})),
    ),
    clip("`auto_map` of a tokenizer", own_tokenizer(auto_map=CLASS)),
    clip(
        "another Auto class as tokenizer, which asks",
        also(own_tokenizer(tokenizer_class="AutoImageProcessor"), says(PROCESSOR, auto_map=PROCESSORS)),
    ),
    clip(
        "`auto_map` of a network beside a tokenizer",
        also(own_tokenizer(), says(CONFIG, model_type="clip", auto_map=CLASS)),
    ),
    clip("a tokenizer's own name", own_tokenizer(), refused=False),
    clip(
        "timm's network of another folder",
        says("open_clip_config.json", model_cfg__vision_cfg__timm_model_name=f"local-dir:./{OWN}"),
    ),
    clip("weights as a pickle", pickled("open_clip_model.bin", instead_of="open_clip_model.safetensors")),
    *(replace(a, plant=made(write_dino, a.plant)) for a in networks(dino, "model.safetensors", again=True)),
    *(
        replace(a, plant=made(write_safety_checker, below("safety_checker", a.plant)))
        for a in networks(checker, "model.safetensors", again=True)
    ),
    checker(
        "`auto_map` of its processor",
        made(write_safety_checker, says(f"feature_extractor/{PROCESSOR}", auto_map=PROCESSORS)),
    ),
    network("operators of a library of its own", onnx(ends_in="PyOp", domain="ai.onnx.contrib")),
    network("operators of another domain", onnx(ends_in="Own", domain=OWN)),
    network("an accelerator's context in another file", onnx(ends_in="EPContext", domain="com.microsoft")),
    network("weights in another folder", onnx(weight_file=f"../{OWN}.data")),
    network("weights at the root", onnx(weight_file="/etc/passwd")),
    network("settings of its session", onnx(metadata='{"session_options": {"enable_profiling": 1}}'), refused=False),
    network("a file outside its folder", onnx(), changes={"scorers.own.file": "../model.onnx"}),
    network("a pickle called ONNX", plain_pickle("model.onnx")),
    *heads(),
]


# --- checkpoints, data, configurations --------------------------------------------------------------------------------


def checkpoint(how: str, plant: Plant, **others: Any) -> Attempt:
    released = {"method": "imported", "checkpoint": "own", "covers": "some"}
    changes = {"assets.own": {"path": "own"}, "unlearning": {"released": released}}
    return Attempt(others.pop("kind", "imported checkpoint"), how, "checkpoint", "own", plant, changes, **others)


def lora(folder: Path, trap: Trap) -> None:
    """A LoRA with peft's own settings, and a configuration in its metadata that names code."""
    unet = load_file(folder.parent / "model" / "unet" / "diffusion_pytorch_model.safetensors")
    name = next(key for key in unet if key.endswith("to_q.weight"))
    rows, columns = unet[name].shape
    layer = f"unet.{name.removesuffix('.weight')}"
    tensors = {f"{layer}.lora_A.weight": torch.ones(1, columns), f"{layer}.lora_B.weight": torch.ones(rows, 1)}
    settings = {"unet.lora_alpha": 1, "unet.r": 1, "unet.auto_mapping": CLASS, "unet.corda_config": {"cache_file": OWN}}
    metadata = {"format": "pt", "lora_adapter_metadata": json.dumps(settings)}
    save_file(tensors, folder / "pytorch_lora_weights.safetensors", metadata=metadata)
    rewritten(folder / "adapter_config.json", json.dumps({"base_model_name_or_path": OWN, "auto_mapping": CLASS}))


CHECKPOINTS = [
    checkpoint("a pickle of torch as `a.pt`", pickled("a.pt")),
    *(checkpoint(f"a pickle of torch as `{name}`", pickled(name), slow=True) for name in ("a.bin", "a.ckpt", "a.pth")),
    checkpoint("a plain pickle", plain_pickle("a.pt")),
    checkpoint("a pickle called safetensors", pickled("model.safetensors"), slow=True),
    checkpoint("a pickle as a part's weights", pickled("unet/diffusion_pytorch_model.bin"), slow=True),
    checkpoint("code beside a `state_dict`", pickled("a.ckpt", whole=lambda t: {"state_dict": {}, "callbacks": t})),
    checkpoint("settings and metadata that name code", lora, kind="LoRA", refused=False),
    checkpoint("a pickle", pickled("pytorch_lora_weights.bin"), kind="LoRA", slow=True),
    checkpoint("a pickle", pickled("learned_embeds.bin"), kind="textual inversion"),
]


def prepared(kind: str, how: str, plant: Plant, changes: dict[str, Any] | None = None, **others: Any) -> Attempt:
    settings = {"set": "image_folder", "caption": "a", "source": f"own/data.{kind[:3]}"}
    found = {"assets.own": {"path": "own"}, "prepared.mine": changes or settings}
    return Attempt(kind, how, "set", "own", plant, found, **others)


def table_of_objects(folder: Path, trap: Trap) -> None:
    """A parquet file whose column holds pickles, and is of a type that another one describes."""
    import pyarrow
    import pyarrow.parquet

    own_type = {"ARROW:extension:name": "arrow.py_extension_type", "ARROW:extension:metadata": pickle.dumps(trap)}
    fields = [pyarrow.field("image", pyarrow.binary(), metadata=own_type), pyarrow.field("text", pyarrow.string())]
    table = pyarrow.Table.from_arrays([[pickle.dumps(trap)], ["a"]], schema=pyarrow.schema(fields))
    pyarrow.parquet.write_table(table, folder / "a.parquet")


def zipped(*names: str) -> Plant:
    """An archive of modules, itself or in a folder."""

    def plant(place: Path, trap: Trap) -> None:
        with zipfile.ZipFile(place if place.suffix else place / "data.zip", "w") as archive:
            for name in names:
                archive.writestr(name, trap.code)

    return plant


def tagged(tag: str) -> Plant:
    """A configuration whose name is an object of Python's."""
    return lambda file, trap: rewritten(file, f"name: {tag} [{trap.code!r}]\n")


POSTSCRIPT = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n"
DATA = [
    Attempt("image folder", "modules that lie there", "images", "images", refused=False),
    Attempt(
        "image folder",
        "a drawing that another program would run",
        "images",
        "images",
        lambda folder, trap: rewritten(folder / "0.png", f"{POSTSCRIPT}({trap.marker}) (w) file\n"),
    ),
    prepared("zip archive", "a module in it", zipped(f"{OWN}.py")),
    prepared("zip archive", "a name that leads out", zipped(f"../{OWN}.py")),
    prepared("tar archive", "a pickle called tar", plain_pickle("data.tar")),
    prepared("parquet files", "pickles as images", table_of_objects, {"set": "parquet_dataset", "source": "own"}),
    Attempt(
        "prompt list",
        "a formula",
        "images",
        "prompts.csv",
        lambda file, trap: rewritten(file, f"id,prompt,label\nnamed,\"=cmd|'{OWN}'!A1\",two\nhidden,days,three\n"),
        refused=False,
    ),
    Attempt(
        "prompt list",
        "a pickle called parquet",
        "images",
        "prompts.parquet",
        lambda file, trap: file.write_bytes(pickle.dumps(trap)),
        {"prompts.benign.source": "prompts/prompts.parquet"},
    ),
    *(
        Attempt("configuration", f"`{tag}`", "configuration", "mine.yaml", tagged(tag))
        for tag in ("!!python/object/apply:builtins.exec", f"!!python/name:{OWN}.own", f"!!python/module:{OWN}")
    ),
    Attempt("archive to verify", "modules in it", "archive", "data.zip", zipped(*MODULES)),
    Attempt("fetched file", "a pickle of torch", "fetch", "mirror/mine/unpinned", pickled("weights.pt")),
    Attempt("fetched file", "a plain pickle", "fetch", "mirror/mine/unpinned", plain_pickle("weights.pt")),
]

ATTEMPTS = {f"{a.kind}: {a.how}": a for a in (*PIPELINES, *SCORERS, *CHECKPOINTS, *DATA)}


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
