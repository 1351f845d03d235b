"""The report: tables with intervals, figures, and one self-contained page, all made from tidy frames, without torch."""
