"""What each checked number is the value of: equations, adjoint, and the formula of each gradient.

Written for one line beside a number. From z' = F(t, z; θ) and L's Lagrangian, the adjoint
a = dL/dz(t) obeys a' = −(∂F/∂z)ᵀa, jumps by ∂L/∂z(tᵢ) at tᵢ, and dL/dθ = ∫ (∂F/∂θ)ᵀa dt.
docs/derive/adjoints.md has every step.
"""

from __future__ import annotations

import dataclasses

GENERAL = (
    "L(z(t₁), …, z(tₙ)) under z' = F(t, z; θ):   ℒ = L + ∫ aᵀ(F − z') dt.",
    "ℒ is stationary in z where a' = −(∂F/∂z)ᵀ a, with a(T) = ∂L/∂z(T) and a jump ∂L/∂z(tᵢ) at each tᵢ.",
    "What is left is the gradient: dL/dz(t₀) = a(t₀), dL/dθ = ∫ (∂F/∂θ)ᵀ a dt.",
)


@dataclasses.dataclass(frozen=True)
class Derivation:
    """equations: of the model.
    adjoint: of each block, by quantity.
    parameters: integrands, by raw name.
    """

    equations: tuple[str, ...]
    adjoint: dict[str, str]
    parameters: dict[str, str]

    def of(self, quantity: str) -> str:
        """The formula of a block's adjoint or of a parameter's gradient."""
        if quantity in self.adjoint:
            return self.adjoint[quantity]
        return self.parameters.get(quantity, self.parameters["field"])


DERIVATIONS = {
    "node": Derivation(("h' = f(t, h)",), {"a_h": "a_h' = −f_hᵀ[a_h]"}, {"field": "dL/dθ = ∫ f_θᵀ[a_h] dt"}),
    "anode": Derivation(
        ("h' = f(t, h), h = [x, extra channels]",),
        {"a_h": "a_h' = −f_hᵀ[a_h]"},
        {"field": "dL/dθ = ∫ f_θᵀ[a_h] dt"},
    ),
    "sonode": Derivation(
        ("h' = v", "v' = f(t, [h, v])"),
        {"a_h": "a_h' = −f_hᵀ[a_v]", "a_v": "a_v' = −a_h − f_vᵀ[a_v]"},
        {"field": "dL/dθ = ∫ f_θᵀ[a_v] dt"},
    ),
    "hbnode": Derivation(
        ("h' = −m", "m' = −γm + f(t, h)"),
        {"a_h": "a_h' = −f_hᵀ[a_m]", "a_m": "a_m' = a_h + γa_m"},
        {"field": "dL/dθ = ∫ f_θᵀ[a_m] dt", "raw_gamma": "dL/dθ_γ = γ(1−γ) ∫ −a_m·m dt"},
    ),
    "ghbnode": Derivation(
        ("h' = σ(−m)", "m' = −γm + f(t, h) + ξh"),
        {"a_h": "a_h' = −f_hᵀ[a_m] − ξa_m", "a_m": "a_m' = σ'(−m)⊙a_h + γa_m"},
        {
            "field": "dL/dθ = ∫ f_θᵀ[a_m] dt",
            "raw_gamma": "dL/dθ_γ = γ(1−γ) ∫ −a_m·m dt",
            "raw_xi": "dL/dθ_ξ = sigmoid(θ_ξ) ∫ a_m·h dt",
        },
    ),
    "adamnode": Derivation(
        (
            "h' = −m⊙D(v)",
            "m' = (1−α)(−f(t, h) − m)",
            "v' = (1−β)(f(t, h)² − v)",
            "c = −(1−α)a_m + 2(1−β) f⊙a_v   (printed: c = −a_m + a_v)",
        ),
        {
            "a_h": "a_h' = −f_hᵀ[c]",
            "a_m": "a_m' = D(v)⊙a_h + (1−α)a_m",
            "a_v": "a_v' = m⊙D'(v)⊙a_h + (1−β)a_v",
        },
        {
            "field": "dL/dθ = ∫ f_θᵀ[c] dt",
            "raw_alpha": "dL/dθ_α = α(1−α) ∫ a_m·(−f − m) dt",
            "raw_beta": "dL/dθ_β = β(1−β) ∫ a_v·(f² − v) dt",
        },
    ),
    "nesterovnode": Derivation(
        ("h' = −m", "m' = −(3/t)m + f(t, h)"),
        {"a_h": "a_h' = −f_hᵀ[a_m]", "a_m": "a_m' = a_h + (3/t)a_m"},
        {"field": "dL/dθ = ∫ f_θᵀ[a_m] dt"},
    ),
    "gnesterovnode": Derivation(
        (
            "h' = ρ(t)h − κ(t)σ(m)",
            "m' = −m + σ(f(t, h)) + ξh",
            "κ = σ(t^(−3/2) e^(t/2)), ρ = κ'/κ",
        ),
        {
            "a_h": "a_h' = −f_hᵀ[σ'(f)⊙a_m] − ρa_h − ξa_m",
            "a_m": "a_m' = κσ'(m)⊙a_h + a_m",
        },
        {
            "field": "dL/dθ = ∫ f_θᵀ[σ'(f)⊙a_m] dt",
            "raw_xi": "dL/dθ_ξ = sigmoid(θ_ξ) ∫ a_m·h dt",
        },
    ),
    "momentumnode": Derivation(
        ("h' = −m", "m' = −γ(t)m + f(t, h)", "γ(t) = γ, 3/t or γ + r/t"),
        {"a_h": "a_h' = −f_hᵀ[a_m]", "a_m": "a_m' = a_h + γ(t)a_m"},
        {
            "field": "dL/dθ = ∫ f_θᵀ[a_m] dt",
            "raw_gamma": "dL/dθ_γ = γ(1−γ) ∫ −a_m·m dt",
            "raw_r": "dL/dθ_r = sigmoid(θ_r) ∫ −a_m·m/t dt",
        },
    ),
}
