"""Searchers, one a file: each has a class ``Search`` with the interface of :class:`resalign.tuning.search.Search`."""
