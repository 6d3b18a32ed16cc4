import pytest
import torch

from musicinfuser.diffusion.guidance import guidance_away, once_per_step, text_guidance


class Counted:
    """v = scale * z + sigma, counting its calls."""

    def __init__(self, scale):
        self.scale, self.num_calls = scale, 0

    def __call__(self, latents, sigma):
        self.num_calls += 1
        return self.scale * latents + sigma.reshape(-1, 1)


LATENTS = torch.tensor([[1.0, -2.0], [0.5, 4.0]])
SIGMA = torch.tensor([0.3, 0.7])


@pytest.mark.parametrize("w", [1.0, 4.5])
@pytest.mark.parametrize("s", [0.5, 1.0, 3.0])
def test_pushes_text_guidance_away_from_the_model_without_the_layer(w, s):
    conditional, unconditional, without = Counted(3.0), Counted(-1.0), Counted(2.5)
    remembered = once_per_step(conditional)
    guided = guidance_away(text_guidance(remembered, unconditional, w), remembered, without, s)
    found = guided(LATENTS, SIGMA)
    for b in range(2):
        for i in range(2):
            z, sigma = LATENTS[b, i].item(), SIGMA[b].item()
            v_c, v_un, v_without = 3.0 * z + sigma, -1.0 * z + sigma, 2.5 * z + sigma
            expected = v_un + w * (v_c - v_un) + s * (v_c - v_without)
            assert found[b, i].item() == pytest.approx(expected, rel=1e-5)
    calls = (conditional.num_calls, unconditional.num_calls, without.num_calls)
    assert calls == (1, int(w != 1.0), 1)


def test_a_scale_of_zero_is_no_guidance():
    guided, other = Counted(3.0), Counted(1.0)
    assert guidance_away(guided, other, other, 0.0) is guided
