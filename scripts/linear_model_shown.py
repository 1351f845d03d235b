"""Writes what the linear model's table says, copies it to where a reader looks, or draws it in one format."""

from __future__ import annotations

import shutil
from pathlib import Path

from resalign.config.report import ReportConfig
from resalign.hashes import verified
from resalign.running.stage import parse_arguments, run_stage


def main() -> None:
    """Command line of the rule linear_model_shown."""
    from resalign.display import drawing
    from resalign.theory.linear_model_shown import page, ratio_figure, read

    arguments = parse_arguments(__doc__ or "")
    job, output = arguments.job, arguments.output / arguments.job["file"]
    table = Path(job["table"])
    if output.suffix == ".csv":
        shutil.copyfile(verified(table), output)
    elif output.suffix == ".md":
        output.write_text(page(read(table), job["samples"]), encoding="utf-8")
    else:
        settings = ReportConfig.parse(job["report"], where="report")
        figure = ratio_figure(read(table), settings)
        drawing.save(figure, output.with_suffix(""), settings, formats=(output.suffix.removeprefix("."),))


if __name__ == "__main__":
    run_stage(main)
