"""The command line ``resalign``: the library's functions on folders, and the workflow's commands."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from resalign import pipes
from resalign.config import registry
from resalign.config.concept import IMAGE_SETS
from resalign.config.strict import ConfigError, read_yaml, typed
from resalign.library.training import ATTACK_SETS
from resalign.tracking import log, tracked

ROOT = Path(__file__).resolve().parents[2]  # of a clone
WORLDS = {"digits": "config/demo.yaml", "conjunction": "config/conjunction.yaml"}
SNAKEMAKE = (sys.executable, "-m", "snakemake")
# What `make` runs too: each takes its own options, which --help lists.
SCRIPTS = {
    "doctor": ("scripts/doctor.py", "list what is missing for which table, and whether this machine suffices"),
    "costs": ("resalign.accounting.costs", "estimate jobs, device hours and disk of an experiment before running it"),
    "verify": ("scripts/verify.py", "check an archive of a result; without an archive, check every file in results/"),
    "recover": ("scripts/recover.py", "clean up after a workflow that was killed, so that it can go on"),
}
EPILOG = """\
examples:
  resalign demo
  resalign demo --world conjunction
  resalign unlearn path/to/pipeline --method esd --concept "a red seven" --output unlearned
  resalign attack unlearned --attack lora --train my/images --heldout my/other-images --output attacked
  resalign audit unlearned --configfile config/demo.yaml

Options after -- are passed on to Snakemake (demo, audit, export, compare-hypergradients, tune).
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; an error that the user can mend is one line.

    Returns:
        The exit status: 0, 1 after an error, or that of the process that was started.
    """
    from resalign.errors import DataError
    from resalign.running.devices import DeviceError
    from resalign.tensors.steps import DivergenceError
    from resalign.tensors.weights import WeightsError

    arguments = list(sys.argv[1:] if arguments is None else arguments)
    passed_on = arguments[arguments.index("--") + 1 :] if "--" in arguments else []
    own = arguments[: arguments.index("--")] if "--" in arguments else arguments
    if own and own[0] in SCRIPTS:  # its own parser reads the rest
        run = partial(_script, own[0], [*own[1:], *(["--", *passed_on] if passed_on else [])])
    else:
        options = parser().parse_args(own)
        if options.print_completion:
            sys.stdout.write(completion(options.print_completion))
            return 0
        if options.command is None:
            parser().print_help()
            return 2
        options.passed_on = passed_on
        run = partial(options.run, options)
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    log.setLevel(logging.INFO)
    pipes.end_with_the_reader()
    try:
        return run()
    except (ConfigError, DataError, WeightsError, DivergenceError, DeviceError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 130


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(
        prog="resalign",
        description="Unlearn a concept in a diffusion model, so that it stays unlearned under fine-tuning.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--print-completion", choices=("bash", "zsh"), help="print a completion script and exit")
    commands = top.add_subparsers(title="commands", dest="command", metavar="COMMAND")
    demo = _command(commands, "demo", _demo, "run a demo experiment and write its report.html")
    demo.add_argument("--world", choices=WORLDS, default="digits", help="digits (default), or red sevens: conjunction")
    unlearn = _command(commands, "unlearn", _unlearn, "unlearn a concept and write the new pipeline's folder")
    attack = _command(commands, "attack", _attack, "fine-tune a pipeline as an attack does, and write the result")
    audit = _command(commands, "audit", _audit, "attack a released model and write its resilience card")
    export = _command(commands, "export", _export, "write an unlearned model of an experiment, with a model card")
    convert = _command(commands, "convert", _convert, "write a pipeline folder of a checkpoint in CompVis' names")
    compare = _command(commands, "compare-hypergradients", _compare, "hold hypergradient estimators against exact ones")
    tune = _command(commands, "tune", _tune, "search a method's own settings and write a configuration with them")
    for name, (_, text) in SCRIPTS.items():
        commands.add_parser(name, help=text, add_help=False)
    _training(unlearn, "method", "unlearning", "resalign", IMAGE_SETS)
    unlearn.add_argument("--concept", action="append", default=[], metavar="PROMPT", help="a prompt; repeatable")
    unlearn.add_argument("--substitute", default="", metavar="PROMPT", help="what is to be shown in its place")
    unlearn.add_argument("--keep", action="append", default=[], metavar="PROMPT", help="a prompt to keep; repeatable")
    _training(attack, "attack", "attacks", "full", ATTACK_SETS)
    attack.add_argument("--base", type=Path, metavar="PIPELINE", help="before unlearning, for attacks that use it")
    audit.add_argument("pipeline", type=Path, nargs="?", help="pipeline folder; by default every model of CONFIGFILE")
    export.add_argument("model", nargs="?", help="a method of CONFIGFILE; by default every one, as a delta")
    export.add_argument("--seed", type=int, default=0, help="training seed; default: 0")
    forms = "a pipeline, or what differs; default: whole"
    export.add_argument("--form", choices=("whole", "delta"), default="whole", help=forms)
    export.add_argument("--push", metavar="REPO", help="upload to this repository of the Hugging Face hub: owner/name")
    export.add_argument("--public", action="store_true", help="make the repository public; it is private by default")
    convert.add_argument("checkpoint", type=Path, help="file with names as model.diffusion_model.…")
    convert.add_argument("--base", type=Path, required=True, metavar="PIPELINE", help="what it is a change of")
    convert.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to write")
    tune.add_argument("model", nargs="?", help="a model of CONFIGFILE; by default that of its key 'tuning'")
    searched = "a number to search, in place of the file's; repeatable"
    tune.add_argument("--field", action="append", default=[], metavar="NAME=LOW:HIGH", help=searched)
    guided = "one of them that pbt_hypergradient moves along its hypergradient; repeatable"
    tune.add_argument("--differentiable", action="append", default=[], metavar="NAME", help=guided)
    tune.add_argument("--budget", type=int, metavar="N", help="network evaluations of a search; a gradient is three")
    for workflow in (demo, audit, export, compare, tune):
        workflow.add_argument("--cores", type=int, default=os.cpu_count(), help="most cores to use; default: all")
        workflow.add_argument("-n", "--dry-run", action="store_true", help="print the plan and run nothing")
    for workflow in (audit, export, tune):
        workflow.add_argument("--configfile", type=Path, required=True, help="the experiment")
    return top


def _command(commands: Any, name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
    found: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text.capitalize() + ".")
    found.set_defaults(run=run)
    return found


def _training(command: argparse.ArgumentParser, kind: str, family: str, default: str, sets: Sequence[str]) -> None:
    """The options of a command that trains."""
    known = registry.members(family)
    command.add_argument("pipeline", type=Path, help="diffusers pipeline folder")
    members = f"one of {', '.join(known)}; default: {default}"
    command.add_argument(f"--{kind}", default=default, metavar="NAME", help=members)
    for name in sets:
        command.add_argument(f"--{name}", type=Path, metavar="DIR", help=f"folder of images: '{name}'; see below")
    setting, device = f"a setting of the {kind}; repeatable; see below", "where to train; default: cpu"
    command.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=setting)
    command.add_argument("--seed", type=int, default=0, help="training seed; default: 0")
    command.add_argument("--device", default="cpu", choices=("cpu", "cuda", "auto"), help=device)
    threads = "CPU threads; equal bits need an equal number; default: 1"
    command.add_argument("--threads", type=int, default=1, metavar="N", help=threads)
    command.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to write; it must not exist")
    command.epilog = (
        "A folder of images holds PNG, JPEG, WEBP, BMP, TIFF or GIF files and a table of captions, metadata.csv, with "
        f"the columns file_name and prompt. The settings of a {kind} and their defaults are the attributes of `Config` "
        f"in src/resalign/{family}/NAME.py; the documentation's page 'Configuration reference' lists them."
    )


# --- the library's commands -------------------------------------------------------------------------------------------


def _unlearn(options: argparse.Namespace) -> int:
    from resalign.library.weights import unlearn

    sets = {name: getattr(options, name) for name in IMAGE_SETS}
    words = {"prompts": options.concept, "substitute": options.substitute, "retain_prompts": options.keep}
    return _train(partial(unlearn, **sets, **words), options, "unlearning", options.method)


def _attack(options: argparse.Namespace) -> int:
    from resalign.library.weights import attack

    if options.train is None or options.heldout is None:
        raise ConfigError("attack: give --train and --heldout, two image folders")
    sets = {name: getattr(options, name) for name in ATTACK_SETS}
    return _train(partial(attack, **sets, base=options.base), options, "attacks", options.attack)


def _convert(options: argparse.Namespace) -> int:
    _check_pipeline(options.base)
    from resalign.diffusion.compvis import convert

    convert(options.checkpoint, options.base, options.output)
    log.info("wrote %s", options.output)
    return 0


def _train(train: Callable[..., Any], options: argparse.Namespace, family: str, name: str) -> int:
    """Trains, then writes a pipeline folder that has the history and the resolved settings in it.

    What only the options decide is refused before the libraries are loaded.
    """
    output, settings = options.output, settings_of(options.set)
    if output.exists():
        raise ConfigError(f"{output}: already exists; name a new folder")
    if options.threads < 1:
        raise ConfigError(f"--threads {options.threads}: expected at least 1")
    config = registry.config_class(family, name).parse(settings, where=f"--set, {options.command} '{name}'")
    _check_pipeline(options.pipeline)

    from importlib.metadata import version

    from resalign.config.closure import import_closure, source_hash
    from resalign.diffusion.export import write_pipeline
    from resalign.diffusion.loaded_pipeline import trainable_tensors
    from resalign.lazy import torch
    from resalign.library.weights import Computing
    from resalign.running.devices import lease, warn_of_threads
    from resalign.running.stage import progress_bar, write_json
    from resalign.tensors.weights import save_weights

    torch.set_num_threads(options.threads)
    warn_of_threads(options.threads)
    history = tracked(str(output))
    computing = Computing(lease(options.device).device, progress=progress_bar(f"{options.command} {name}"))
    pipeline = train(options.pipeline, name, seed=options.seed, computing=computing, history=history, **settings)
    with tempfile.TemporaryDirectory(prefix="resalign-") as folder:
        weights = Path(folder) / "weights.safetensors"
        save_weights(weights, trainable_tensors(pipeline))
        write_pipeline(options.pipeline, weights, output)
    history.write(output / "history.csv")
    source = source_hash(import_closure("resalign.cli", f"resalign.{family}.{name}"))
    made: dict[str, Any] = {options.command: {"name": name, **config.model_dump(mode="json")}}
    made |= {"seed": options.seed, "threads": options.threads, "source_sha256": source}
    write_json(output / "resalign.json", {**made, "version": version("resalign")})
    log.info("wrote %s", output)
    return 0


def _check_pipeline(folder: Path) -> None:
    """Refuses what cannot be a pipeline, at once.

    Raises:
        ConfigError: If the folder or its index is not there.
    """
    if not (folder / "model_index.json").is_file():
        reason = "no model_index.json in it" if folder.is_dir() else "no such folder"
        raise ConfigError(f"{folder}: no diffusers pipeline here ({reason}); give a folder that save_pretrained wrote")


def settings_of(pairs: Sequence[str]) -> dict[str, Any]:
    """``key=value`` pairs as settings; a dot in a key leads into a mapping.

    >>> settings_of(["lr=1e-3", "simulation.steps=[5, 10]"])
    {'lr': 0.001, 'simulation': {'steps': [5, 10]}}
    """
    settings: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f"--set {pair}: expected KEY=VALUE")
        *outer, last = key.split(".")
        place = settings
        for name in outer:
            place = place.setdefault(name, {})
        place[last] = typed(value)
    return settings


# --- the workflow's commands ------------------------------------------------------------------------------------------


def _demo(options: argparse.Namespace) -> int:
    quiet = [] if options.dry_run else ["--quiet", "rules", "host"]
    return _snakemake(options, Path(WORLDS[options.world]), quiet, "demo")


def _compare(options: argparse.Namespace) -> int:
    return _snakemake(options, Path(WORLDS["digits"]), [], "second_order")


def _audit(options: argparse.Namespace) -> int:
    configfile = options.configfile.resolve()
    if options.pipeline:
        _check_pipeline(options.pipeline)
        name = "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in options.pipeline.name)
        audited_experiment = read_yaml(configfile).get("name")
        if not isinstance(audited_experiment, str):
            raise ConfigError(f"{configfile}: no 'name'; give the experiment one")
        values = {"extends": str(configfile), "name": f"{audited_experiment}-audit-{name}"}
        configfile = _written({**values, "audit": {name: str(options.pipeline.resolve())}}, "audit.json")
    return _snakemake(options, configfile, [], "audit")


def _export(options: argparse.Namespace) -> int:
    from resalign.config.experiment import Experiment
    from resalign.config.plan import Plan
    from resalign.jobs import export

    configfile, target = options.configfile.resolve(), "export"
    if options.model:
        with contextlib.chdir(_clone()):  # there `extends` names its file, as in the workflow
            folder = export.folder(Plan(Experiment.read(configfile)))
        target = f"{folder}/{options.model}/seed-{options.seed}/{options.form}/model"
    elif options.push:
        raise ConfigError("export --push: name the model to upload")
    status = _snakemake(options, configfile, [], target)
    if options.push and not status and not options.dry_run:
        from resalign.library.publishing import push

        log.info("uploaded to %s", push(_clone() / target, options.push, private=not options.public))
    return status


def _tune(options: argparse.Namespace) -> int:
    from resalign.config.experiment import Experiment
    from resalign.config.tuning import options_of

    configfile = options.configfile.resolve()
    if changed := options_of(options.model, options.field, options.differentiable, options.budget):
        with contextlib.chdir(_clone()):  # there `extends` names its file, as in the workflow
            values = Experiment.read(configfile).values
        values["tuning"] = {**values.get("tuning", {}), **changed}
        configfile = _written(values, "tune.json")
    return _snakemake(options, configfile, [], "tune")


def _written(values: dict[str, Any], name: str) -> Path:
    """A configuration in its experiment's folder."""
    configfile: Path = _clone() / "results" / values["name"] / name
    configfile.parent.mkdir(parents=True, exist_ok=True)
    configfile.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")  # JSON is YAML
    log.info("the configuration: %s", configfile)
    return configfile


def _snakemake(options: argparse.Namespace, configfile: Path, more: Sequence[str], target: str) -> int:
    """Runs the workflow in the clone, whose stages one server starts."""
    command = [*SNAKEMAKE, "--cores", str(options.cores), "--configfile", str(configfile), "--rerun-incomplete", *more]
    command += ["--dry-run"] if options.dry_run else []
    return _call([sys.executable, "-m", "resalign.running.stage_server", *command, *options.passed_on, "--", target])


def _script(name: str, arguments: Sequence[str]) -> int:
    """Runs a script of the clone with the rest of the command line; paths are those of the present folder."""
    script = SCRIPTS[name][0]
    if name == "verify" and not [word for word in arguments if not word.startswith("-") or word in ("-h", "--help")]:
        script = "scripts/check_results.py"
    start = [script] if script.endswith(".py") else ["-m", script]
    if Path.cwd() != ROOT:
        arguments = [str(Path(word).resolve()) if Path(word).exists() else word for word in arguments]
    return _call([sys.executable, *start, *arguments])


def _call(command: Sequence[str]) -> int:
    """Runs a command in the clone's folder."""
    tools = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    try:
        return subprocess.call(command, cwd=_clone(), env={**os.environ, "PATH": tools})
    except KeyboardInterrupt:  # the command has had the signal too, and says so
        return 130


def _clone() -> Path:
    """The repository's root.

    Raises:
        ConfigError: If the package is not installed from a clone.
    """
    if not (ROOT / "workflow" / "Snakefile").is_file():
        raise ConfigError(
            "this command runs the workflow, which an installed package lacks; clone the repository and run it there"
        )
    return ROOT


# --- completion -------------------------------------------------------------------------------------------------------


def completion(shell: str) -> str:
    """A script that completes commands, options and files in bash, and in zsh by its support of bash's completion."""
    words = "\n".join(f'    {name}) known="{" ".join(options)}" ;;' for name, options in _words())
    load = "autoload -U +X bashcompinit && bashcompinit\n" if shell == "zsh" else ""
    return f"""{load}_resalign() {{
  local known word="${{COMP_WORDS[COMP_CWORD]}}"
  case "$([ "$COMP_CWORD" -gt 1 ] && echo "${{COMP_WORDS[1]}}")" in
{words}
  esac
  COMPREPLY=($(compgen -W "$known" -- "$word"))
}}
complete -o default -F _resalign resalign
"""


def _words() -> Iterator[tuple[str, list[str]]]:
    """A command (the empty one for the top) and the words that may follow it."""
    top = parser()
    commands = next(a.choices for a in top._actions if isinstance(a, argparse._SubParsersAction))
    yield '""', [*commands, *top._option_string_actions]
    for name, command in commands.items():
        yield name, list(command._option_string_actions)


if __name__ == "__main__":
    sys.exit(main())
