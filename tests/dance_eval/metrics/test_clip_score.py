from dataclasses import replace

import pytest
import torch
from transformers import CLIPModel, CLIPTokenizer

from dance_eval.metrics.clip import ScoredClip
from dance_eval.metrics.clip_score import ClipScore, clip_score
from dance_eval.metrics.image_encoders import ClipEncoder
from tests.dance_eval.metrics.sets import entry
from tests.small_encoders import noise

FRAMES = torch.cat(
    [noise(3, 36, 61), noise(2, 36, 61) // 4, torch.full((1, 36, 61, 3), 200).byte()]
)


def clip_of(prompt, frames=FRAMES):
    return ScoredClip(
        frames=frames, fps=30.0, waveform=None, rate_hz=1, name="clip.mp4", seed=0, prompt=prompt
    )


def test_cosines_are_cut_at_zero_and_scaled():
    angles = torch.tensor([0.0, torch.pi / 3, torch.pi / 2, torch.pi])
    pictures = 7 * torch.stack([angles.cos(), angles.sin()], dim=-1)
    scores = clip_score(pictures, torch.tensor([[0.1, 0.0]]))
    torch.testing.assert_close(scores, torch.tensor([2.5, 1.25, 0.0, 0.0]), atol=1e-6, rtol=0)


def test_a_clips_score_is_the_mean_over_frames_for_the_prefixed_prompt(clip_folder):
    metric = ClipScore(encoder=ClipEncoder(clip_folder))
    model = CLIPModel.from_pretrained(clip_folder)
    tokenizer = CLIPTokenizer.from_pretrained(clip_folder)
    pictures = ClipEncoder(clip_folder).embed_images(FRAMES, antialias=True)
    scores = []
    for prompt in ("hello", "man"):
        tokens = tokenizer(f"A photo depicts {prompt}", return_tensors="pt")
        with torch.no_grad():
            output = model.text_model(input_ids=tokens.input_ids)
            text = output.last_hidden_state[0, -1] @ model.text_projection.weight.T
        cosines = [float(one @ text / one.norm() / text.norm()) for one in pictures]
        # Some frames go against the prompt; they count as nothing.
        assert min(cosines) < -0.05 and max(cosines) > 0.05
        values = metric.score_clip(clip_of(prompt))
        scores.append(sum(2.5 * max(cosine, 0) for cosine in cosines) / len(cosines))
        assert values == {"score": pytest.approx(scores[-1], abs=1e-5), "prompt_cut": 0}
    assert abs(scores[0] - scores[1]) > 0.05


def test_the_prompt_of_a_stranger_is_scored_too(clip_folder):
    metric = ClipScore(encoder=ClipEncoder(clip_folder))
    clips = [
        entry(file=f"{number}.mp4", prompt=prompt)
        for number, prompt in enumerate(("hello", "hello", None, "man"))
    ]
    metric.prepare(clips, seed=0)
    # The next one that has another prompt, all round.
    assert [metric.clip_key(clip) for clip in clips] == ["man", "man", None, "hello"]
    own, other = (
        metric.score_clip(replace(clip_of(prompt), path=clip.path))
        for prompt, clip in (("hello", clips[0]), ("man", clips[3]))
    )
    assert own["to_other"] == pytest.approx(other["score"], abs=1e-6)
    assert other["to_other"] == pytest.approx(own["score"], abs=1e-6)
    assert own["prompt_cut"] == 0
    metric.prepare(clips[:2], seed=0)
    assert "to_other" not in metric.score_clip(replace(clip_of("hello"), path=clips[0].path))


def test_long_prompts_are_counted(clip_folder):
    metric = ClipScore(encoder=ClipEncoder(clip_folder))
    for prompt in ("a dance", "abc " * 30, "abc " * 40):
        metric.update(clip_of(prompt))
    average = metric.compute()
    assert average["prompt_cut"] == pytest.approx(2 / 3)
    assert torch.isfinite(average["score"])


def test_a_clip_without_prompt_or_frames_cannot_be_scored(clip_folder):
    metric = ClipScore(encoder=ClipEncoder(clip_folder))
    with pytest.raises(ValueError, match=r"clip.mp4: has no prompt .* clips.csv\.$"):
        metric.score_clip(clip_of(None))
    with pytest.raises(ValueError, match="without frames"):
        metric.score_clip(clip_of("a dance", FRAMES[:0]))
    assert metric.fingerprints() == {"weights": ClipEncoder(clip_folder).fingerprint()}
