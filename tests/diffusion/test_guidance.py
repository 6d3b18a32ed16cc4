import pytest
import torch

from musicinfuser.diffusion.guidance import text_guidance


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
