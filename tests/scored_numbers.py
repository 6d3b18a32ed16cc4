"""A metrics.json with known numbers, without any clip behind it."""

from dance_eval.metrics.clip import ClipMetric
from dance_eval.metrics.intervals import bootstrap_mean

QUESTIONS = (
    "style_alignment", "beat_alignment", "body_representation", "movement_realism",
    "choreography_complexity", "imaging_quality", "aesthetic_quality", "overall_consistency",
    "style_capture", "creative_interpretation", "overall_prompt_satisfaction",
)  # fmt: skip


def record(system, number, values, *, prompt="a dancer", failures=None):
    return {
        "folder": f"videos/{system}",
        "file": f"{number}.mp4",
        "system": system,
        "track": f"music/{number}.wav",
        "track_offset_seconds": 0.0,
        "prompt": prompt,
        "values": values,
        "failures": failures or {},
    }


def document(clips):
    """What `evaluate.py score` would write about such clips."""
    systems = {}
    names = dict.fromkeys(
        (metric, value)
        for clip in clips
        for metric, values in clip["values"].items()
        for value in values
    )
    for system in dict.fromkeys(clip["system"] for clip in clips):
        own = [clip["values"] for clip in clips if clip["system"] == system]
        systems[system] = {}
        for metric, value in names:
            numbers = [v[metric][value] for v in own if value in v.get(metric, {})]
            interval = bootstrap_mean(numbers, seed=0, name=f"{metric}/{value}")
            systems[system][f"{metric}/{value}"] = {
                "mean": interval.mean,
                "low": interval.low,
                "high": interval.high,
                "n": interval.num_values,
                "num_failed": 0,
            }
    return {
        "systems": systems,
        "clips": list(clips),
        "seed": 0,
        "confidence": 0.95,
        "complete": True,
        "metrics": [],
        "unlisted": [],
    }


def judged(scores, *, judge="judge"):
    """Clips by system, each with one number for all questions or a number per question."""
    clips = []
    for system, numbers in scores.items():
        for number, score in enumerate(numbers):
            own = score if isinstance(score, dict) else dict.fromkeys(QUESTIONS, float(score))
            clips.append(record(system, number, {judge: own}))
    return document(clips)


class FixedJudge(ClipMetric):
    """Gives every clip a 6 for everything.

    Values per clip:
        beat_alignment: And the others.
            6 each.

    Args:
        name: Its name.
    """

    value_names = QUESTIONS

    def __init__(self, *, name: str = "judge"):
        super().__init__(name=name)

    def score_clip(self, clip):
        return dict.fromkeys(QUESTIONS, 6.0)

    def findings(self, records, *, seed, confidence):
        return {
            "ignores_audio": True,
            "printed": [f"{self.name}: <IGNORES> on {len(records)} clips."],
        }
