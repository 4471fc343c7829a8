"""Methods that look at examples: ESAM, BiSAM, SAF and MESA ask for logits, not for a loss alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch.nn import functional as F
from torch.optim import Optimizer

from danskin.errors import InputError
from danskin.optim.info import StepInfo
from danskin.optim.sharpness import SharpnessAware

#: rows of the batch, or None for all of it -> their logits (n, classes), with a graph.
Forward = Callable[[Tensor | None], Tensor]
#: (logits, labels) -> (n,) losses.
Loss = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """(n,) losses."""
    return F.cross_entropy(logits, labels, reduction="none")


class PerExample(SharpnessAware):
    """A sharpness-aware optimiser whose step takes ``forward`` and labels in place of a closure.

        opt.step(lambda rows: model(x if rows is None else x[rows]), y)

    Args:
        base: one optimiser, or several.
        loss: (logits, labels) -> (n,) losses that are minimised in the mean.
        options: those of `SharpnessAware`.
    """

    def __init__(self, base: Optimizer | Sequence[Optimizer], *, loss: Loss = cross_entropy, **options: Any) -> None:
        super().__init__(base, **options)
        self.loss = loss
        self._forwards = 0.0

    def _backward(self, value: Tensor) -> None:
        (value if self.scaler is None else self.scaler.scale(value)).backward()

    def _first_pass(self, forward: Forward, labels: Tensor, index: Tensor | None) -> Tensor:
        """The pass at the weights: calls `_backward`, returns the loss."""
        value = self._losses(forward(None), labels).mean()
        self._backward(value)
        return value

    def _second_pass(self, forward: Forward, labels: Tensor) -> Tensor:
        """The pass at the shifted weights."""
        value = self._losses(forward(None), labels).mean()
        self._backward(value)
        return value

    def _losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        name = type(self).__name__
        if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(labels):
            got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise InputError(f"{name}.step: expected logits ({len(labels)}, classes) from forward, got {got}")
        losses = self.loss(logits, labels)
        if losses.shape != labels.shape:
            raise InputError(
                f"{name}.loss: expected one loss per example, shape {tuple(labels.shape)}, got {tuple(losses.shape)}; "
                "use reduction='none'"
            )
        return losses

    def step(  # type: ignore[override]
        self, forward: Forward | None = None, labels: Tensor | None = None, index: Tensor | None = None
    ) -> Any:
        """One step.

        Args:
            forward: rows (or None for all) -> logits of these rows of the batch, with a graph; called here.
            labels: (n,) int64.
            index: (n,) int64 places of the examples in the data set, for methods that remember them (`SAF`).

        Returns:
            The loss at the weights.

        Raises:
            InputError: no labels, or logits that do not fit them.
        """
        if forward is None:
            return self._without_closure()
        if not isinstance(labels, Tensor):
            raise InputError(
                f"{type(self).__name__}.step: expected forward and labels, got {type(labels).__name__} for labels; "
                "write step(lambda rows: model(x if rows is None else x[rows]), y)"
            )
        calls, self._forwards = 0, 0.0

        def closure() -> Tensor:
            nonlocal calls
            calls += 1
            if calls == 1:
                return self._first_pass(forward, labels, index)
            return self._second_pass(forward, labels)

        loss = super().step(closure)
        assert self.last is not None
        self.last = StepInfo(**{**vars(self.last), **self._spent(self.last)})
        return loss

    def _spent(self, info: StepInfo) -> dict[str, float]:
        """What the counts are, where they are not whole passes."""
        return {"forwards": self._forwards}
