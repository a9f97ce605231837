"""Muon: momentum, orthogonalised, for the weight matrices; AdamW for everything else."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Annotated, Any

import torch

from pggrpo_cli.ranges import Range

NOT_A_MATRIX = re.compile(r"embed|lm_head|\bwte\b|\bwpe\b")
"""Embeddings and output heads are tables with a row for each token: AdamW's, by Jordan's advice."""
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
RMS = 0.2
"""The size of an entry of a typical AdamW update."""


def orthogonalized(matrix: torch.Tensor, steps: int) -> torch.Tensor:
    """matrix [m, n] = U S Vᵀ → about U Vᵀ, singular values within about 0.7 … 1.2, by `steps` Newton–Schulz steps.

    X ← a X + (b X Xᵀ + c (X Xᵀ)²) X, from X = matrix / ‖matrix‖_F; a zero matrix stays zero. In bfloat16 on CUDA
    (it needs no more), in float32 on a CPU.
    """
    a, b, c = COEFFICIENTS
    x = matrix.to(torch.bfloat16 if matrix.is_cuda else torch.float32)
    x = x / (x.norm() + 1e-7)
    if tall := x.shape[0] > x.shape[1]:
        x = x.T
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.T if tall else x).to(matrix.dtype)


class Muon(torch.optim.Optimizer):
    """With G the gradient of a matrix W [m, n], μ momentum, η lr, λ weight_decay:

        M ← μ M + (1−μ) G
        O = orthogonalized( (1−μ) G + μ M  if nesterov, else M )
        W ← W − η λ W − η · 0.2 √max(m, n) · O

    Matrices are the 2-D parameters whose names say neither embedding nor output head; all others (vectors, convolutions,
    stacked experts) are torch.optim.AdamW's, with the same η and λ. The factor 0.2 √max(m, n) gives O the RMS of an
    AdamW update, so that one η serves both.

    `params` are (name, parameter) pairs, `module.named_parameters()`: without names embeddings could not be told apart.

    Source: Jordan, "Muon" (2024), https://kellerjordan.github.io/posts/muon; the factor and weight decay from Liu et
    al., arXiv:2502.16982. Differs: float32 iterations on a CPU.
    """

    def __init__(
        self,
        params: Iterable[tuple[str, torch.Tensor]],
        *,
        lr: Annotated[float, Range(ge=0)],
        weight_decay: Annotated[float, Range(ge=0)],
        momentum: Annotated[float, Range(ge=0, lt=1)],
        nesterov: bool,
        newton_schulz_steps: Annotated[int, Range(ge=1)],
        betas: list[float],
        eps: Annotated[float, Range(gt=0)],
    ) -> None:
        named = list(params)
        if not all(isinstance(one, tuple) for one in named):
            raise ValueError("Muon needs (name, parameter) pairs: pass module.named_parameters()")
        matrices = [(name, one) for name, one in named if one.ndim == 2 and not NOT_A_MATRIX.search(name)]
        taken = {name for name, _ in matrices}
        rest = [(name, one) for name, one in named if name not in taken]
        matrix_options = {"momentum": momentum, "nesterov": nesterov, "newton_schulz_steps": newton_schulz_steps}
        groups: list[dict[str, Any]] = []
        if matrices:
            groups.append({"params": matrices, **matrix_options})
        if rest:
            groups.append({"params": rest})
        super().__init__(groups, {"lr": lr, "weight_decay": weight_decay})
        self._adamw: torch.optim.AdamW | None = None
        if rest:
            vectors = self.param_groups[-1]
            # The very same group: schedulers and checkpoints that change it change it for AdamW too.
            self._adamw = torch.optim.AdamW([vectors], lr=lr, betas=(betas[0], betas[1]), eps=eps, fused=True)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            if "momentum" in group:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        self._update_matrix(parameter, parameter.grad, group)
        if self._adamw is not None:
            self._adamw.state = self.state
            self._adamw.param_groups = [group for group in self.param_groups if "momentum" not in group]
            self._adamw.step()
        return loss

    def _update_matrix(self, parameter: torch.Tensor, gradient: torch.Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        momentum: torch.Tensor = state["momentum_buffer"]
        momentum.lerp_(gradient, 1 - group["momentum"])
        direction = gradient.lerp(momentum, group["momentum"]) if group["nesterov"] else momentum
        update = orthogonalized(direction, group["newton_schulz_steps"])
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(update, alpha=-group["lr"] * RMS * max(parameter.shape) ** 0.5)
