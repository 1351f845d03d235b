"""The shape of the code base: which way dependencies go, how large things are, what they are called."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import resalign
from resalign.bilevel import solving
from resalign.config import registry
from resalign.config.experiment import SETS
from resalign.config.tuning import SEARCHERS
from resalign.jobs import exhibit

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "resalign"

# From the bottom to the top: a part imports itself and parts of lower layers, never its own layer's others.
LAYERS = (
    {"lazy", "files", "pipes", "disclosure", "errors"},
    {"shards"},
    {"tracking", "hashes"},
    {"tensors"},
    {"config"},
    {"running", "bilevel"},
    {"data"},
    {"assets", "diffusion", "jobs"},
    {"objectives", "contracts"},
    {"unlearning", "attacks", "scorers"},
    {"metrics"},
    {"analysis"},
    {"display", "library"},
    {"accounting"},
    {"cards", "detector_audit", "ablations", "theory", "tuning"},
    {"exhibits", "report", "study"},
    {"artifact"},
    {"digits"},
    {"scripts", "cli"},
)
EXCEPTIONS: set[tuple[str, str]] = set()
SCIENCE = {
    "unlearning",
    "tuning",
    "attacks",
    "objectives",
    "bilevel",
    "diffusion",
    "data",
    "digits",
    "scorers",
    "metrics",
}
EVIDENCE = {"analysis", "display", "exhibits", "report", "cards", "study", "detector_audit", "theory", "ablations"}
# Exhibits are found by the same means, and no stage imports them: the stages' registry need not know.
FAMILIES = (*registry.FAMILIES, exhibit.FAMILY)
HEAVY = ("torch", "diffusers", "transformers", "peft", "open_clip", "torchvision", "torch_fidelity", "pandas", "numpy")


@dataclass(frozen=True)
class Module:
    """A module of the package, or a script."""

    name: str
    path: Path

    @property
    def part(self) -> str:
        """The package below ``resalign``, the module right below it, or ``scripts``."""
        return "scripts" if self.name.startswith("scripts.") else (self.name.split(".") + [""])[1]

    def tree(self) -> ast.Module:
        return ast.parse(self.path.read_text(encoding="utf-8"), filename=str(self.path))

    def imports(self) -> Iterator[str]:
        """Modules of the package that it imports, in function bodies too."""
        for node in ast.walk(self.tree()):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "resalign")
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{self.path}: relative import"
                if (node.module or "").split(".")[0] == "resalign":
                    for alias in node.names:
                        whole = f"{node.module}.{alias.name}"
                        yield whole if whole in NAMES else str(node.module)


def _modules() -> list[Module]:
    names = {path: path.relative_to(PACKAGE).with_suffix("").parts for path in PACKAGE.rglob("*.py")}
    found = [Module(".".join(("resalign", *parts)).removesuffix(".__init__"), path) for path, parts in names.items()]
    found += [Module(f"scripts.{path.stem}", path) for path in (ROOT / "scripts").glob("*.py")]
    return sorted(found, key=lambda module: module.name)


MODULES = _modules()
NAMES = {module.name for module in MODULES}
IMPORTS = [(module, imported) for module in MODULES for imported in module.imports()]


def layer_of(part: str) -> int:
    return next((index for index, parts in enumerate(LAYERS) if part in parts), -1)


def part_of(name: str) -> str:
    return (name.split(".") + [""])[1]


# --- dependencies -----------------------------------------------------------------------------------------------------


def test_the_walk_sees_the_package() -> None:
    assert len(MODULES) > 60
    assert ("resalign.objectives.simulated_hypergradient", "resalign.bilevel.hvp") in {(m.name, i) for m, i in IMPORTS}
    assert all(imported in NAMES for _, imported in IMPORTS)


def test_every_part_has_a_layer() -> None:
    assert {module.part for module in MODULES if module.part} <= set().union(*LAYERS)


def test_dependencies_go_one_way() -> None:
    wrong = [
        f"{module.name} imports {imported}"
        for module, imported in IMPORTS
        if part_of(imported) != module.part
        and layer_of(part_of(imported)) >= layer_of(module.part)
        and (module.name, imported) not in EXCEPTIONS
    ]
    assert not wrong


def test_members_of_a_family_never_import_each_other() -> None:
    wrong = [
        f"{module.name} imports {imported}"
        for module, imported in IMPORTS
        if module.part in FAMILIES and part_of(imported) in FAMILIES and not is_shared(imported)
    ]
    assert not wrong


def is_shared(name: str) -> bool:
    """Whether a module of a family's package is no member: what members share, under a name with an underscore."""
    return name.rpartition(".")[2].startswith("_")


def test_bilevel_knows_losses_and_tensors_and_nothing_of_diffusion() -> None:
    known = {part_of(imported) for module, imported in IMPORTS if module.part == "bilevel"}
    assert known <= {"bilevel", "tensors", "config", "lazy", "tracking"}
    words = ("unet", "latent", "timestep", "diffusion", "prompt")
    for module in MODULES:
        if module.part == "bilevel":
            names = {n.id for n in ast.walk(module.tree()) if isinstance(n, ast.Name)}
            names |= {a.arg for a in ast.walk(module.tree()) if isinstance(a, ast.arg)}
            assert not {name for name in names for word in words if word in name.lower()}, module.name


def test_the_evaluations_attacker_has_a_loop_of_its_own() -> None:
    assert not [m.name for m, i in IMPORTS if m.part == "attacks" and part_of(i) in ("bilevel", "unlearning")]
    assert not [m.name for m, i in IMPORTS if m.part in ("unlearning", "bilevel") and part_of(i) == "attacks"]


def test_the_demo_world_is_known_to_its_own_scripts_only() -> None:
    users = {module.name for module, imported in IMPORTS if part_of(imported) == "digits" and module.part != "digits"}
    assert not {name for name in users if not name.startswith("scripts.digits")}


def test_no_module_is_imported_by_nobody() -> None:
    # Members are found by their file; scripts and commands are started by name.
    started = {"resalign.config.schema", "resalign.cli", *resalign._DEFINED.values()}
    used = {imported for module, imported in IMPORTS if imported != module.name}
    families = (*FAMILIES, solving.FAMILY, SETS, SEARCHERS)
    used |= {f"resalign.{family}.{name}" for family in families for name in registry.members(family)}
    packages = {module.name for module in MODULES if module.path.name == "__init__.py"}
    rules = "".join(path.read_text() for path in [*(ROOT / "workflow").rglob("*.smk"), ROOT / "Makefile"])
    started |= set(re.findall(r"python -m (resalign[\w.]*)", rules))
    unused = {m.name for m in MODULES if m.part != "scripts"} - used - packages - started
    in_rules = {f"{package}.{name}" for package, name in re.findall(r"from (resalign[\w.]*) import (\w+)", rules)}
    assert not unused - in_rules


def test_importing_the_package_never_imports_torch() -> None:
    # The Snakefile validates every configuration in each of the workflow's processes.
    members = [f"resalign.{family}.{name}" for family in FAMILIES for name in registry.members(family)]
    plan = ["resalign.config.plan", "resalign.config.closure", "resalign.contracts", "resalign.running.stage", *members]
    everything = sorted(module.name for module in MODULES if module.part != "scripts")
    code = (
        "import importlib, sys\n"
        f"for name in {plan}: importlib.import_module(name)\n"
        f"found = [name for name in {HEAVY} if name in sys.modules]\n"
        "if found: sys.exit(f'a configuration imports {found}')\n"
        f"for name in {everything}: importlib.import_module(name)\n"
        f"found = [name for name in {HEAVY[:7]} if name in sys.modules]\n"
        "if found: sys.exit(f'the package imports {found}')\n"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr


# --- sizes and names --------------------------------------------------------------------------------------------------


def lines_of(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def limit_of(module: Module) -> int:
    if module.part == "scripts":
        return 120
    return 250 if module.part in FAMILIES else 400


def test_the_science_outweighs_the_evidence() -> None:
    """What unlearns, attacks, measures and makes images has more lines than what shows it."""
    lines = {part: sum(lines_of(path) for path in (PACKAGE / part).rglob("*.py")) for part in SCIENCE | EVIDENCE}
    assert all(lines.values())
    assert sum(lines[part] for part in SCIENCE) > sum(lines[part] for part in EVIDENCE)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
def test_sizes(module: Module) -> None:
    assert lines_of(module.path) <= limit_of(module), f"{module.path.name}: {lines_of(module.path)} lines"
    long = {
        node.name: node.end_lineno - node.lineno + 1
        for node in ast.walk(module.tree())
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno
        and node.end_lineno - node.lineno + 1 > 60
    }
    assert not long, "functions of more than 60 lines"


def test_modules_are_named_by_their_subject() -> None:
    vague = {"utils", "util", "helpers", "helper", "common", "misc", "tools", "base"}
    files = [*(m.path for m in MODULES), *(ROOT / "tests").rglob("*.py")]
    assert not [str(path) for path in files if {*path.parts[len(ROOT.parts) :], path.stem} & vague]


def test_every_module_says_its_job() -> None:
    silent = [module.name for module in MODULES if not ast.get_docstring(module.tree()) and module.name != "resalign"]
    assert not [name for name in silent if lines_of(next(m.path for m in MODULES if m.name == name))]


def test_no_commented_out_code() -> None:
    starts = ("# import ", "# from ", "# return ", "# if ", "# for ", "# def ", "# print(", "# self.")
    found = [
        f"{module.path.name}:{number}"
        for module in MODULES
        for number, line in enumerate(module.path.read_text(encoding="utf-8").splitlines(), 1)
        if line.strip().startswith(starts) and line.rstrip().endswith((":", ")", "]"))
    ]
    assert not found
