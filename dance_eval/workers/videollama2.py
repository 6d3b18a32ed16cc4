"""VideoLLaMA 2.1 with sound, the authors' judge, as a worker in an environment of its own.

It pins versions of torch and transformers that do not go with ours, and is no package of an index:

    git clone https://github.com/DAMO-NLP-SG/VideoLLaMA2 --branch audio_visual
    python3.10 -m venv ENV
    ENV/bin/pip install -r VideoLLaMA2/requirements.txt
    ENV/bin/pip install -e VideoLLaMA2          # and ffmpeg on the PATH

`dance_eval.judges.videollama2.VideoLLaMA2Judge` starts it, by hand it is

    ENV/bin/python -m dance_eval.workers.videollama2 --model DAMO-NLP-SG/VideoLLaMA2.1-7B-AV

A request ``{"video": FILE.mp4, "question": TEXT}`` names a file with picture and sound; the answer
is ``{"text": ...}``. Calls and settings are those of the authors' code: greedy, up to 2048 tokens.
"""

from __future__ import annotations

from typing import Any

from dance_eval.workers.serving import Answer, serve


def load_judge(model: str) -> Answer:
    """What turns a request into an answer; loads the weights."""
    from videollama2 import mm_infer, model_init

    network, processor, tokenizer = model_init(model)
    last: dict[str, Any] = {}

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        video = request["video"]
        if video not in last:
            # Eleven questions about one clip follow each other.
            last.clear()
            last[video] = processor["video"](video, va=True)
        text = mm_infer(
            last[video],
            request["question"],
            model=network,
            tokenizer=tokenizer,
            modal="video",
            do_sample=False,
        )
        return {"text": text}

    return answer


if __name__ == "__main__":
    serve(load_judge, model=None)
