import base64
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from musicinfuser.app import handlers as handlers_module
from musicinfuser.app.handlers import UNKNOWN, Handlers, song_seconds
from musicinfuser.errors import UserError
from musicinfuser.media.audio import read_audio, write_wav
from musicinfuser.media.video_writing import write_video
from musicinfuser.memory.out_of_memory import OutOfMemoryError, named_out_of_memory


@pytest.fixture
def handlers(generator):
    handlers = Handlers(generator, max_seconds=2.0)
    handlers.begin("a visitor")
    return handlers


def last_of(handlers, form, *, compare=False):
    states = list(handlers.generate(form, "a visitor", compare=compare))
    return states[-1]


def test_two_videos_one_after_the_other(handlers, form):
    states = []
    for state in handlers.generate(form, "a visitor", compare=True):
        states.append(state)
        for path in filter(None, (state.with_music, state.without_music)):
            assert len(read_audio(path)) >= int(7 / 30 * 16_000)
    bars = [re.search(r'">(.*): (.*?)<.*value="(\d)"', s.status) for s in states[:-1]]
    assert [bar.groups() for bar in bars] == [
        (doing, what, str(step))
        for doing in ("With music", "The same without music")
        for step, what in enumerate(("step 0 of 2", "step 1 of 2", "decoding"))
    ]
    assert [bool(s.with_music) for s in states] == [False] * 3 + [True] * 4
    assert [bool(s.without_music) for s in states] == [False] * 6 + [True]
    assert "Done: 0.2 s, seed 3, 2 steps" in states[-1].status
    # Nothing that was made stays on the server's disk.
    assert not Path(states[-1].with_music).exists()


def test_stopping_ends_after_the_step_in_work(handlers, form):
    states = []
    for state in handlers.generate(replace(form, num_steps=100), "a visitor", compare=True):
        states.append(state)
        if len(states) == 2:
            handlers.stop("another visitor")
            handlers.stop("a visitor")
    assert "Stopped." in states[-1].status and states[-1].with_music is None
    assert len(states) < 10
    # Stopped while it waited for its turn: nothing is computed.
    handlers.begin("a visitor")
    handlers.stop("a visitor")
    assert "Stopped." in last_of(handlers, form).status


def test_a_closed_page_ends_its_work(handlers, form, generator):
    generated = handlers.generate(replace(form, num_steps=100), "a visitor", compare=True)
    next(generated)
    generated.close()
    assert not generator._lock.locked()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"song": ""}, "Drop a song first."),
        ({"song": "FOLDER/notes.mp3"}, "notes.mp3: cannot be read as audio (Invalid data"),
        ({"song": "FOLDER/still.wav"}, "still.wav is silent from 0.5 s to 0.7 s"),
        ({"start_seconds": 2.9}, "song.wav has 0.1 s of sound from 2.9 s on, but the video is to"),
        ({"start_seconds": 9.0}, "song.wav has 0.0 s of sound from 9 s on"),
        ({"start_seconds": -1.0}, "The start is -1 s; give 0 or more."),
        ({"seconds": 2.2}, "2.2 s were asked for; videos here last up to 2 s."),
        ({"prompt": "  "}, "Write a prompt first"),
        ({"seed": -1}, "The seed is -1"),
        ({"num_steps": 1000}, "1000 steps were asked for"),
        ({"adapter": "other"}, "There is no adapter &#x27;other&#x27;; choose random."),
        ({"guidance_scale": -1.0}, "guidance_scale is -1.0; it must be at least 0."),
    ],
)
def test_what_does_not_fit_is_a_sentence_on_the_page(
    handlers, form, songs, capfd, changes, message
):  # fmt: skip
    changes = {k: v.replace("FOLDER", str(songs)) if k == "song" else v for k, v in changes.items()}
    state = last_of(handlers, replace(form, **changes))
    assert message in state.status and 'role="alert"' in state.status
    assert str(songs) not in state.status and state.with_music is None
    assert "Traceback" not in capfd.readouterr().err


def test_an_upload_is_heard_before_it_is_danced_to(handlers, songs, tmp_path):
    video = tmp_path / "a <video>.mp4"
    write_video(
        video, torch.zeros(60, 16, 16, 3, dtype=torch.uint8), fps=30,
        audio=0.1 * torch.randn(2 * 16_000), audio_rate_hz=16_000,
    )  # fmt: skip
    assert "a &lt;video&gt;.mp4, 0:02." in handlers.preview(str(video), 0.0, 1.0)
    shown = handlers.preview(str(songs / "song.wav"), 1.0, 1.0)
    (tmp_path / "part.wav").write_bytes(base64.b64decode(re.search('base64,([^"]*)', shown)[1]))
    part = read_audio(tmp_path / "part.wav", rate_hz=44_100)
    assert len(part) == round(31 / 30 * 44_100)
    whole = read_audio(songs / "song.wav", rate_hz=44_100)
    assert (part - whole[44_100 : 44_100 + len(part)]).abs().max() < 1e-3
    assert handlers.preview(None, 0.0, 1.0) == ""
    assert "still.wav is silent" in handlers.preview(str(songs / "still.wav"), None, 1.0)
    assert "song.wav has 1.5 s of sound from 1.5 s on" in handlers.preview(
        str(songs / "song.wav"), 1.5, 2.0
    )


def test_the_part_of_a_song_needs_sound_not_the_whole(tmp_path):
    sound = 0.1 * torch.randn(3 * 16_000)
    sound[16_000:32_000] = 0
    song = tmp_path / "rest.wav"
    write_wav(song, sound, rate_hz=16_000)
    assert song_seconds(str(song), start_seconds=0.5, span_seconds=1.0) == 3.0
    with pytest.raises(UserError, match=r"rest\.wav is silent from 1 s to 2\.0 s"):
        song_seconds(str(song), start_seconds=1.0, span_seconds=1.0)


def test_a_song_of_hours_is_refused(handlers, songs, monkeypatch):
    monkeypatch.setattr(handlers_module, "MAX_SONG_SECONDS", 2)
    assert "song.wav is longer than 0:02" in handlers.preview(str(songs / "song.wav"), 0.0, 1.0)


@pytest.mark.parametrize(
    ("part", "offload", "option"),
    [
        ("transformer", "none", "sampling: ask for a shorter video, or start the page with "
         "--offload model."),
        ("transformer", "model", "with --offload group."),
        ("transformer", "group", "sampling: ask for a shorter video."),
        ("text_encoder", "none", "encoding prompt and music: ask"),
        ("vae", "none", "decoding the latents: ask for a shorter video, or start the page with "
         "--vae_tiling."),
    ],
)  # fmt: skip
def test_a_full_memory_names_the_option(handlers, form, monkeypatch, part, offload, option):
    def fail(module, inputs):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 52 GiB. More text")

    pipeline = handlers.generator.pipeline
    module = {
        "transformer": pipeline.transformer.proj_out,
        "text_encoder": pipeline.text_encoder,
        "vae": pipeline.vae.decoder,
    }[part]
    monkeypatch.setattr(handlers.generator, "offload", offload)
    monkeypatch.setattr(pipeline, "maybe_free_model_hooks", lambda: None)
    hook = module.register_forward_pre_hook(fail)
    try:
        assert option in last_of(handlers, form).status
    finally:
        hook.remove()


def test_what_nobody_foresaw_stays_in_the_terminal(handlers, form, monkeypatch, capfd):
    def fail(*arguments, **settings):
        raise RuntimeError("an error of a library, with /its/paths")

    monkeypatch.setattr(handlers.generator, "generate", fail)
    shown = last_of(handlers, form).status
    assert UNKNOWN[1:] in shown and "/its/paths" not in shown
    assert "/its/paths" in capfd.readouterr().err


def test_a_full_host_is_told_from_other_errors():
    with pytest.raises(OutOfMemoryError, match="too small for this: do that.*allocate memory"):
        with named_out_of_memory("this", "do that"):
            torch.empty(2**55)
    with pytest.raises(RuntimeError, match="a shape"), named_out_of_memory("this", "do that"):
        raise RuntimeError("a shape that does not fit")


def test_what_is_cut_from_a_prompt_is_said_at_the_end(handlers, form):
    prompt = 30 * "turning round "
    with pytest.warns(UserWarning, match="are cut"):
        shown = last_of(handlers, replace(form, prompt=prompt))
    assert "Done: " in shown.status and f"has {len(prompt) + 1} tokens, of which" in shown.status
