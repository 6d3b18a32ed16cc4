"""Classifier-free guidance as a combinator over denoiser callables (eq. 3)."""

from collections.abc import Callable

from torch import Tensor

Denoiser = Callable[[Tensor, Tensor], Tensor]
"""(latents ``(B, C, T, H, W)``, sigma ``(B,)``) -> velocity of the same shape, fp32."""


def text_guidance(conditional: Denoiser, unconditional: Denoiser, scale: float) -> Denoiser:
    """V = v_un + scale * (v_c - v_un); eq. 3 in velocities.

    Both branches are conditioned on the audio (authors' code). A scale of 1 runs only the
    conditional branch, 0 only the unconditional one.
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


def guidance_away(
    guided: Denoiser, conditional: Denoiser, without: Denoiser, scale: float
) -> Denoiser:
    """Away from what the model gives without a part: v + scale * (v_c - v_c_without).

    Without one of its blocks this is eq. 4 in velocities, as spatiotemporal skip guidance (arXiv
    2411.18664) adds it to that by text: v_un + w (v_c - v_un) + s (v_c - v_c_without). Without the
    music it is our addition. A scale of 0 changes nothing and costs nothing.

    Args:
        guided: What is guided further, e.g. by text.
        conditional: The whole model with prompt and music.
        without: With the same prompt, and one block an identity or ZICA switched off.
        scale: s; -1 takes the part's share away.
    """
    if scale == 0.0:
        return guided

    def further(latents: Tensor, sigma: Tensor) -> Tensor:
        influence = conditional(latents, sigma) - without(latents, sigma)
        return guided(latents, sigma) + scale * influence

    return further


def once_per_step(denoiser: Denoiser) -> Denoiser:
    """Remember the last call, for a branch that several guidance terms look at."""
    last: list[tuple[Tensor, Tensor, Tensor]] = []

    def remembered(latents: Tensor, sigma: Tensor) -> Tensor:
        if not last or last[0][0] is not latents or last[0][1] is not sigma:
            last[:] = [(latents, sigma, denoiser(latents, sigma))]
        return last[0][2]

    return remembered
