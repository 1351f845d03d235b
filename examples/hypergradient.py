"""The hypergradient of a quadratic through a simulated fine-tuning, compared with its closed form in float64."""

from functools import partial

import torch

from resalign.bilevel.hypergradient import FineTuned, merged_hypergradient
from resalign.bilevel.solvers import richardson

torch.manual_seed(0)
gamma, theta, centre = 0.5, *torch.randn(2, 4, dtype=torch.float64)
hessian = torch.diag(torch.tensor([-0.9, 0.1, 0.5, 1.2], dtype=torch.float64))  # indefinite, as a network's is
system = torch.eye(4, dtype=torch.float64) + gamma * hessian

# L_FT(θ) = ½ θᵀHθ; its proximal solution is θ* = (I + γH)⁻¹ θ [ResAlign, Eq. 5]. L_harm(θ) = ½ ‖θ − c‖².
adapted = torch.linalg.solve(system, theta)
tuned = FineTuned(
    theta={"w": theta},
    start={"change": torch.zeros(4, dtype=torch.float64)},
    adapted={"change": adapted - theta},
    weights=lambda theta, variables: {"w": theta["w"] + variables["change"]},
    loss=lambda weights: 0.5 * weights["w"] @ hessian @ weights["w"],
)
solve = partial(richardson.solve, config=richardson.Config(steps=100, rtol=0.0))
found = merged_hypergradient(
    lambda weights: 0.5 * (weights["w"] - centre).square().sum(), tuned, gamma=gamma, solve=solve
)
expected = torch.linalg.solve(system, adapted - centre)  # (I + γH)⁻¹ ∇L_harm(θ*) [ResAlign, Eq. 6]

difference = (found.value["w"] - expected).norm().item()
print(f"hypergradient {found.value['w'].tolist()}")
print(f"closed form   {expected.tolist()}")
print(f"difference    {difference:.1e} after {found.products} Hessian-vector products")
assert difference < 1e-10
