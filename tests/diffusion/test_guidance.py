import pytest
import torch

from musicinfuser.diffusion.guidance import guidance_away, once_per_step, text_guidance


class Counted:
    """v = scale * z + sigma, counting its calls."""

    def __init__(self, scale):
        self.scale = scale
        self.num_calls = 0

    def __call__(self, latents, sigma):
        self.num_calls += 1
        return self.scale * latents + sigma.reshape(-1, 1)


LATENTS = torch.tensor([[1.0, -2.0], [0.5, 4.0]])
SIGMA = torch.tensor([0.3, 0.7])


@pytest.mark.parametrize("scale", [0.5, 1.0 + 1e-6, 2.0, 6.0])
def test_extrapolates_from_unconditional_through_conditional(scale):
    conditional, unconditional = Counted(3.0), Counted(-1.0)
    guided = text_guidance(conditional, unconditional, scale)(LATENTS, SIGMA)
    for b in range(2):
        for i in range(2):
            z, s = LATENTS[b, i].item(), SIGMA[b].item()
            v_c, v_un = 3.0 * z + s, -1.0 * z + s
            assert guided[b, i].item() == pytest.approx(v_un + scale * (v_c - v_un), rel=1e-5)
    assert (conditional.num_calls, unconditional.num_calls) == (1, 1)


def test_scale_one_runs_only_the_conditional_branch():
    conditional, unconditional = Counted(3.0), Counted(-1.0)
    velocity = text_guidance(conditional, unconditional, 1.0)(LATENTS, SIGMA)
    assert torch.equal(velocity, Counted(3.0)(LATENTS, SIGMA))
    assert (conditional.num_calls, unconditional.num_calls) == (1, 0)


def test_scale_zero_runs_only_the_unconditional_branch():
    conditional, unconditional = Counted(3.0), Counted(-1.0)
    velocity = text_guidance(conditional, unconditional, 0.0)(LATENTS, SIGMA)
    assert torch.equal(velocity, Counted(-1.0)(LATENTS, SIGMA))
    assert (conditional.num_calls, unconditional.num_calls) == (0, 1)


def test_equal_branches_are_not_changed_by_guidance():
    velocity = text_guidance(Counted(2.0), Counted(2.0), 6.0)(LATENTS, SIGMA)
    assert torch.equal(velocity, Counted(2.0)(LATENTS, SIGMA))


@pytest.mark.parametrize("scale", [0.0, 0.5, 3.0])
def test_music_guidance_adds_the_share_of_the_music(scale):
    conditional, unconditional, silent = Counted(3.0), Counted(-1.0), Counted(2.0)
    remembered = once_per_step(conditional)
    guided = text_guidance(remembered, unconditional, 6.0)
    velocity = guidance_away(guided, remembered, silent, scale - 1)(LATENTS, SIGMA)
    for b in range(2):
        for i in range(2):
            z, s = LATENTS[b, i].item(), SIGMA[b].item()
            v_c, v_un, v_silent = 3.0 * z + s, -1.0 * z + s, 2.0 * z + s
            expected = v_un + 6.0 * (v_c - v_un) + (scale - 1) * (v_c - v_silent)
            assert velocity[b, i].item() == pytest.approx(expected, rel=1e-4)
    calls = (conditional.num_calls, unconditional.num_calls, silent.num_calls)
    assert calls == (1, 1, 1)


def test_music_scale_one_is_plain_guidance():
    conditional, silent = Counted(3.0), Counted(2.0)
    guided = text_guidance(conditional, Counted(-1.0), 6.0)
    assert guidance_away(guided, conditional, silent, 0.0) is guided
    assert silent.num_calls == 0


def test_without_text_guidance_music_scale_zero_is_silence():
    conditional, silent = Counted(3.0), Counted(2.0)
    velocity = guidance_away(conditional, conditional, silent, -1.0)(LATENTS, SIGMA)
    torch.testing.assert_close(velocity, Counted(2.0)(LATENTS, SIGMA))


def test_remembers_one_call_only():
    counted = Counted(3.0)
    remembered = once_per_step(counted)
    first = remembered(LATENTS, SIGMA)
    assert remembered(LATENTS, SIGMA) is first
    other = LATENTS + 1
    torch.testing.assert_close(remembered(other, SIGMA), Counted(3.0)(other, SIGMA))
    remembered(LATENTS, SIGMA)
    assert counted.num_calls == 3
    torch.testing.assert_close(remembered(LATENTS, 2 * SIGMA), Counted(3.0)(LATENTS, 2 * SIGMA))
