"""Computations that repeat with other numbers: recorded once as a list of tensor operations, and replayed.

A replay runs the operations of the first run on the same kernels in the same order, so that its bits are the same. What
it leaves out is the work between them: the modules' Python, autograd's bookkeeping, chains of views.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from resalign.tensors.cuda_graphs import Capture, cuda_graph
from resalign.tensors.params import Params
from resalign.tensors.recording import (
    Named,
    Product,
    Recording,
    TracingError,
    form_of,
    recorded,
    recorded_linear,
    tensors_of,
)

# Recording costs about as much time as so many runs save: 1 s, and 4 ms [dev/LOG.md, 2026-12-01].
WORTHWHILE = 200


class Traces:
    """The computations of one model that repeat, by what they compute and by the shapes of what they get."""

    def __init__(self, after: int = WORTHWHILE, capture: Capture | None = None) -> None:
        """Records a computation when it has run ``after`` times, and captures it as one launch where that is given."""
        self._after, self._capture = after, capture
        self._known: dict[Hashable, list[_Computation]] = {}

    def run(self, what: Hashable, function: Callable[..., Named], *inputs: Params) -> Named:
        """``function(*inputs)``.

        Args:
            what: Equal for functions that compute the same of equal inputs.
            function: Of named tensors, to named tensors that share no memory with an input. Closed-over tensors are
                constants, and may only be changed in place.
            inputs: Its inputs; those that need a gradient become leaves within ``function``.

        Raises:
            TracingError: If it cannot be captured. What cannot be recorded runs on as it is, which is logged.
        """
        known = self._computation(what, inputs)
        self._record(known, lambda: recorded(function, inputs, self._capture))
        return known.recording(tensors_of(inputs)) if known.recording else function(*inputs)

    def linear(
        self, what: Hashable, function: Callable[..., tuple[Named, Product]], vector: Params, *inputs: Params
    ) -> tuple[Named, Product]:
        """``function(*inputs)``: a value, and a linear map whose products with vectors share what they can.

        Args:
            what: As for :meth:`run`.
            function: Of named tensors, to the value and the map; otherwise as for :meth:`run`.
            vector: Names and shapes that the vectors have; its numbers do not matter.
            inputs: As for :meth:`run`.

        Raises:
            TracingError: If it cannot be captured, or a product is asked for when the map was taken at another point.
        """
        known = self._computation(what, [vector, *inputs])
        self._record(known, lambda: recorded_linear(function, inputs, vector, self._capture))
        if known.recording:
            return known.recording.linear(tensors_of(inputs))
        value, product = function(*inputs)

        def counted(x: Params) -> Named:
            known.runs += 1
            return product(x)

        return value, counted

    def _computation(self, what: Hashable, inputs: Sequence[Params]) -> _Computation:
        """The one with these shapes, found by comparison: hashing hundreds of shapes is slower."""
        form = [*map(form_of, inputs)]
        candidates = self._known.setdefault(what, [])
        found = next((known for known in candidates if known.form == form), None)
        if found is None:
            candidates.append(found := _Computation(form))
        return found

    def _record(self, known: _Computation, record: Callable[[], Recording]) -> None:
        """Counts a run, and records the computation if it is time and not known to be impossible."""
        known.runs += 1
        if known.runs <= self._after or known.recording or known.is_refused:
            return
        try:
            known.recording = record()
        except TracingError as error:
            if self._capture:
                raise
            known.is_refused = True
            logging.getLogger(__name__).warning("a repeated computation runs on unrecorded, slower: %s", error)


def captured() -> Traces:
    """Recordings that are CUDA graphs, made at the third run: what runs once or twice is not worth their memory."""
    return Traces(after=2, capture=cuda_graph)


@dataclass
class _Computation:
    """A computation on inputs of one form."""

    form: list[Any]
    runs: int = 0
    recording: Recording | None = None
    is_refused: bool = False
