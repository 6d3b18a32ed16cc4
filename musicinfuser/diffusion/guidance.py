"""Classifier-free guidance as a combinator over denoiser callables (eq. 3)."""

from collections.abc import Callable

from torch import Tensor

Denoiser = Callable[[Tensor, Tensor], Tensor]
"""(latents ``(B, C, T, H, W)``, sigma ``(B,)``) -> velocity of the same shape, fp32."""


def text_guidance(conditional: Denoiser, unconditional: Denoiser, scale: float) -> Denoiser:
    """V = v_un + scale * (v_c - v_un); eq. 3 in velocities.

    Both branches hear the music (authors' code). A scale of 1 runs only the conditional branch, 0
    only the unconditional one.
    """
    if scale == 1.0:
        return conditional
    if scale == 0.0:
        return unconditional

    def guided(latents: Tensor, sigma: Tensor) -> Tensor:
        v_unconditional = unconditional(latents, sigma)
        v_conditional = conditional(latents, sigma)
        return v_unconditional + scale * (v_conditional - v_unconditional)

    return guided
