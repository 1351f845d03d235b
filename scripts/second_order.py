"""Tables and figures of the second-order audit: hypergradient estimators held against finite fine-tuning."""

from __future__ import annotations

from pathlib import Path

from resalign.jobs.second_order import FIGURES, TABLES, SecondOrderJob
from resalign.running.stage import parse_arguments, run_stage, running


def main() -> None:
    """Command line of the rule second_order."""
    import pandas as pd

    from resalign.display import drawing
    from resalign.theory.second_order_figures import audit_figure, gamma_figure, horizon_figure
    from resalign.theory.second_order_tables import costs_table, horizon_tables, markdown_tables

    arguments = parse_arguments(__doc__, SecondOrderJob)
    output, settings = arguments.output, arguments.job.report
    with running(arguments, inputs=arguments.job.paths()):
        frames = []
        for name in TABLES:
            draws = [pd.read_csv(Path(folder) / f"{name}.csv") for folder in arguments.job.draws]
            frames.append(pd.concat(draws, ignore_index=True))
            frames[-1].to_csv(output / f"{name}.csv", index=False, float_format="%.8g")
        audit, gamma, compared, cost = frames
        text = markdown_tables(audit, gamma) + "\n" + horizon_tables(compared)
        (output / "table.md").write_text(text, encoding="utf-8")
        (output / "costs.md").write_text(costs_table(cost), encoding="utf-8")
        figures = (
            audit_figure(audit, gamma, settings),
            gamma_figure(gamma, settings),
            horizon_figure(compared, settings),
        )
        for name, figure in zip(FIGURES, figures, strict=True):
            drawing.save(figure, output / name, settings)


if __name__ == "__main__":
    run_stage(main)
