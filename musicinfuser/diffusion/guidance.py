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


def music_guidance(
    guided: Denoiser, conditional: Denoiser, without_music: Denoiser, scale: float
) -> Denoiser:
    """Towards the music: v_guided + (scale - 1) * (v_c - v_c_without_music); our addition.

    `layer_guidance` with the audio as what is left out.

    Args:
        guided: What is guided further, e.g. by text.
        conditional: With prompt and music.
        without_music: With the same prompt and ZICA switched off.
        scale: 1 is no music guidance, at no cost; 0 takes the music's share away.
    """
    return layer_guidance(guided, conditional, without_music, scale - 1)


def layer_guidance(
    guided: Denoiser, conditional: Denoiser, without_layer: Denoiser, scale: float
) -> Denoiser:
    """Away from what the model gives without one of its blocks: v + scale * (v_c - v_c_without).

    Eq. 4 in velocities, as spatiotemporal skip guidance (arXiv 2411.18664) adds it to that by text:
    v_un + w (v_c - v_un) + s (v_c - v_c_without). A scale of 0 changes nothing and costs nothing.

    Args:
        guided: What is guided further, e.g. by text.
        conditional: The whole model with the prompt.
        without_layer: With the same prompt and one block an identity.
        scale: s; 0 is no guidance by the layer.
    """
    if scale == 0.0:
        return guided

    def further(latents: Tensor, sigma: Tensor) -> Tensor:
        influence = conditional(latents, sigma) - without_layer(latents, sigma)
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
