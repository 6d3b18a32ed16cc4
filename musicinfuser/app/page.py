"""The page itself, in gradio's words."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from musicinfuser.app.generator import FormInput
from musicinfuser.app.handlers import MAX_STEPS, Handlers, note
from musicinfuser.errors import UserError

INTRODUCTION = "# MusicInfuser\nDrop a song, say who dances where, and get a video of it."
FONTS = ("system-ui", "sans-serif")
NEW_SEED = "() => Math.floor(Math.random() * 2 ** 31)"
PIXELATED_BELOW = 256
PATIENT_VISITORS = 8


def build_page(handlers: Handlers, *, max_megabytes: float) -> Any:
    """A `gradio.Blocks` on a loaded generator; the limit is for a label, `open_page` holds it."""
    import gradio as gr

    defaults = handlers.generator.defaults
    names, prompts = list(handlers.generator.adapters), list(defaults.prompts.values())
    step_seconds = handlers.generator.seconds_per_latent
    longest = int(handlers.max_seconds / step_seconds + 1e-6) * step_seconds
    is_small = defaults.height < PIXELATED_BELOW

    def ready(is_ready: bool) -> tuple[Any, Any]:
        return gr.update(interactive=is_ready), gr.update(interactive=not is_ready)

    def begin(request: gr.Request) -> tuple[Any, ...]:
        handlers.begin(str(request.session_hash))
        return *ready(False), note("Waiting for the turn …"), None, None

    def generate(
        song: str | None, prompt: str, start: float | None, seconds: float, seed: float | None,
        adapter: str, steps: float, guidance: float, music_guidance: float, compare: bool,
        image: str | None, request: gr.Request,
    ) -> Iterator[tuple[Any, ...]]:  # fmt: skip
        form = FormInput(
            song=song or "", prompt=prompt or "", seed=int(seed or 0), seconds=float(seconds),
            start_seconds=float(start or 0.0), adapter=adapter, num_steps=int(steps),
            guidance_scale=float(guidance), music_guidance_scale=float(music_guidance),
            image=image,
        )  # fmt: skip
        before: list[str | None] = []
        for shown in handlers.generate(form, str(request.session_hash), compare=bool(compare)):
            videos = [shown.with_music, shown.without_music]
            # A video that is there already is not sent again.
            is_old = [new == old for new, old in zip(videos, before, strict=False)] or [False] * 2
            changed = (gr.skip() if old else new for new, old in zip(videos, is_old, strict=True))
            yield shown.status, *changed
            before = videos

    def stop(request: gr.Request) -> None:
        handlers.stop(str(request.session_hash))

    def video(name: str, text: str) -> Any:
        with gr.Column(min_width=240):
            gr.Markdown(text, container=False)
            return gr.Video(
                show_label=False, elem_id=name, interactive=False, buttons=["download"],
                elem_classes=["small-frames"] if is_small else [],
            )  # fmt: skip

    with gr.Blocks(title="MusicInfuser", analytics_enabled=False, delete_cache=(600, 3600)) as page:
        gr.Markdown(INTRODUCTION, elem_id="title")
        with gr.Row():
            with gr.Column(scale=4, min_width=320):
                label = f"Song or video, up to {max_megabytes:g} MB"
                song = gr.File(label=label, height=150, elem_id="song")
                part = gr.HTML(padding=False, elem_id="part")
                prompt = gr.Textbox(
                    prompts[0], label="Prompt", lines=3, max_length=1000, elem_id="prompt"
                )
                gr.Examples(
                    [[text] for text in prompts], prompt, label="Prompts to try",
                    example_labels=list(defaults.prompts), examples_per_page=5,
                    api_visibility="private",
                )  # fmt: skip
                image = gr.File(
                    label="First picture, if you like; its middle is used", height=100,
                    visible=handlers.generator.geometry.takes_image, elem_id="image",
                )  # fmt: skip
                seconds = gr.Slider(
                    step_seconds, longest, min(2.4, longest), step=step_seconds,
                    label="Length in seconds", elem_id="seconds",
                )  # fmt: skip
                with gr.Row():
                    start = gr.Number(0, label="Start in seconds", minimum=0, min_width=110)
                    seed = gr.Number(0, label="Seed", precision=0, minimum=0, min_width=110)
                    new_seed = gr.Button(
                        "New seed", size="sm", scale=0, min_width=100, elem_id="new-seed"
                    )
                adapter = gr.Dropdown(
                    names, value=names[0], label="Adapter", visible=len(names) > 1
                )
                compare = gr.Checkbox(True, label="Also without music, for comparison")
                with gr.Accordion("Steps and guidance", open=False):
                    steps = gr.Slider(
                        1, MAX_STEPS, defaults.num_steps, step=1, label="Steps", elem_id="steps"
                    )
                    guidance = gr.Slider(
                        0, 15, defaults.guidance_scale, step=0.5, label="Text guidance"
                    )
                    music_guidance = gr.Slider(
                        0, 10, defaults.music_guidance_scale, step=0.5,
                        label="Music guidance (1 is none; more follows the music more)",
                    )  # fmt: skip
            with gr.Column(scale=6, min_width=320):
                with gr.Row():
                    go = gr.Button("Dance", variant="primary", min_width=120, elem_id="go")
                    cancel = gr.Button("Cancel", interactive=False, min_width=120, elem_id="cancel")
                status = gr.HTML(note("Nothing made yet."), padding=False, elem_id="status")
                with gr.Row(elem_id="videos"):
                    conditioned = "**With music**  \nconditioned on the song"
                    with_music = video("with-music", conditioned)
                    other = "**Without**  \nsame prompt and seed, no audio"
                    without_music = video("without-music", other)
        private: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        for event in (song.change, start.change, seconds.release):
            event(handlers.preview, [song, start, seconds], part, **private)
        new_seed.click(None, None, seed, js=NEW_SEED, api_visibility="private")
        asked = go.click(
            begin, None, [go, cancel, status, with_music, without_music], queue=False, **private
        )
        inputs = [
            song, prompt, start, seconds, seed, adapter, steps, guidance, music_guidance, compare,
            image,
        ]  # fmt: skip
        asked.then(
            generate, inputs, [status, with_music, without_music], concurrency_limit=1, **private
        ).then(lambda: ready(True), None, [go, cancel], queue=False, **private)
        cancel.click(stop, None, None, queue=False, **private)
        page.unload(stop)
    page.queue(max_size=PATIENT_VISITORS)
    return page


def open_page(handlers: Handlers, options: argparse.Namespace) -> Any:
    """Build the page and serve it as the command line says; returns at once, with the page.

    Raises:
        UserError: The port or the address is taken or not ours.
    """
    page = build_page(handlers, max_megabytes=options.max_megabytes)
    here, host, port = Path(__file__).parent, options.host, options.port
    try:
        page.launch(
            server_name=host, server_port=port, max_file_size=int(options.max_megabytes * 2**20),
            css=(here / "page.css").read_text(encoding="utf-8"), theme=_theme(),
            js=(here / "page.js").read_text(encoding="utf-8"), footer_links=["settings"],
            share=False, inbrowser=False, quiet=True, ssr_mode=False, run_history=False,
            enable_monitoring=False, mcp_server=False, pwa=False, prevent_thread_lock=True,
        )  # fmt: skip
    except OSError as error:
        place = f"{host}:{port}" if port else f"{host}, ports from 7860 on"
        raise UserError(f"nothing can listen on {place} ({error}); give another --port.") from error
    return page


def _theme() -> Any:
    import gradio as gr

    looks = {
        "background_fill": "transparent", "text_color": "*body_text_color", "text_weight": "600",
    }  # fmt: skip
    plain = {f"block_{part}_{k}": look for part in ("title", "label") for k, look in looks.items()}
    plain |= {f"{name}_dark": look for name, look in plain.items() if not name.endswith("weight")}
    # Fonts of the system: those of gradio's own themes would have to be fetched.
    theme = gr.themes.Soft(primary_hue="indigo", font=FONTS, font_mono="monospace")
    return theme.set(
        **plain, block_title_padding="0", block_label_shadow="none", block_border_width="1px",
        block_border_width_dark="1px", body_background_fill="*neutral_50",
    )  # fmt: skip
