"""The page in a real browser, served by the real command."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from musicinfuser.app.__main__ import main
from tests.conftest import ROOT

PATIENCE_MS = 60_000
PLAYS = """async () => {
  const [first, second] = document.querySelectorAll('#videos video');
  await first.play();
  await new Promise((resolve) => { first.onended = resolve; });
  return {
    soundBytes: first.webkitAudioDecodedByteCount, width: first.videoWidth,
    seconds: first.duration, secondSeconds: second.duration, secondIsMuted: second.muted,
    secondPlayed: second.played.length,
  };
}"""


@pytest.fixture
def served(small_parts, adapter, tmp_path):
    """``(process, address)`` of a page on small random parts."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [
            sys.executable, "-m", "musicinfuser.app", f"--model={small_parts}",
            "--adapter", f"random={adapter}", "--height=32", "--width=48", "--num_steps=2",
            "--max_seconds=1", "--max_megabytes=1", "--device=cpu", f"--port={port}",
        ],
        cwd=ROOT,
        env={
            "PATH": os.environ["PATH"], "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1",
            "TMPDIR": str(tmp_path), "HOME": str(tmp_path),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )  # fmt: skip
    killer = threading.Timer(240, process.kill)
    killer.start()
    said = []
    for line in process.stdout:
        said.append(line)
        if found := re.search(r"the page is at (\S+)", line):
            break
    else:
        pytest.fail("".join(said))
    yield process, found[1]
    killer.cancel()
    process.kill()
    process.wait()


def test_upload_generate_and_play(browser, served, songs, tmp_path):
    process, address = served
    port = int(address.rstrip("/").rpartition(":")[2])
    listening = re.findall(
        rf": (\w+):{port:04X} 00000000:0000 0A", Path("/proc/net/tcp").read_text()
    )
    assert listening == ["0100007F"]  # 127.0.0.1, and no other address
    context = browser.new_context()
    page, complaints = context.new_page(), []
    page.set_default_timeout(PATIENCE_MS)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "request",
        lambda request: (
            None
            if request.url.startswith((address, "data:", "blob:"))
            else complaints.append(request.url)
        ),
    )
    page.goto(address)
    upload = page.locator("#song input[type=file]")
    upload.set_input_files(songs / "notes.mp3")
    page.wait_for_selector("#part .problem:has-text('notes.mp3: cannot be read as audio')")
    page.locator("#go").click()
    page.wait_for_selector("#status .problem:has-text('notes.mp3: cannot be read as audio')")
    page.locator("#song button[aria-label='Clear']").click()
    (tmp_path / "large.wav").write_bytes(bytes(2**20 + 1))
    upload.set_input_files(tmp_path / "large.wav")
    page.wait_for_selector("text=exceed the maximum allowed size")

    upload.set_input_files(songs / "song.wav")
    page.wait_for_selector("#part audio")
    length = page.locator("#seconds input[type=number]")
    length.fill("0.2")
    length.press("Enter")
    page.locator("#go").click()
    page.wait_for_selector("#status :text('Done: 0.2 s, seed 0, 2 steps')")
    played = page.evaluate(PLAYS)
    assert played["soundBytes"] > 0 and played["width"] == 48
    assert played["seconds"] == pytest.approx(7 / 30, abs=0.05) == played["secondSeconds"]
    assert played["secondIsMuted"] and played["secondPlayed"]
    assert "Traceback" not in page.content()
    context.close()
    assert not complaints

    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[0]
    assert "Traceback" not in said
    assert not list(tmp_path.glob("musicinfuser-page-*"))


def test_without_gradio_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs gradio; `pip install '\.\[demo\]'`"):
        main(["--adapter", "a/b"])


def test_the_shell_gets_one_sentence(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "musicinfuser.app", "--model", "else/where"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("app: there is no adapter for else/where")
    assert len(done.stderr.splitlines()) == 1
