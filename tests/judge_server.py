"""A server that speaks the protocol of chat completions, with judges behind it, for tests."""

import base64
import json
import math
import threading
import wave
from collections import deque
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO

import torch

from dance_eval.metrics.beat_alignment import beat_alignment
from dance_eval.metrics.motion import frame_difference, kinematic_beats
from musicinfuser.media.video import probe_video, read_clip

MODEL = "small-judge"


class JudgeServer:
    """What the server does, and what it was sent.

    Attributes:
        answer: Gives a text, or a text and the log-probabilities of its tokens, for a request.
        finish_reason: Why answers end.
        faults: What goes wrong with the next requests, one after the other.
        requests: The bodies of all that was asked.
        release: Set to let "slow" requests go on.
    """

    def __init__(self, answer=lambda request: "7"):
        self.answer = answer
        self.finish_reason = "stop"
        self.faults = deque()
        self.requests = []
        self.headers = []
        self.probes = 0
        self.release = threading.Event()
        self.url = ""

    def texts(self):
        return [parts(request)["text"][-1] for request in self.requests]


def parts(request):
    """The content of a request: kind -> payloads, decoded."""
    found = {"video": [], "audio": [], "text": []}
    for part in request["messages"][-1]["content"]:
        if part["type"] == "text":
            found["text"].append(part["text"])
        elif part["type"] == "video_url":
            head, data = part["video_url"]["url"].split(",", 1)
            assert head == "data:video/mp4;base64"
            found["video"].append(base64.b64decode(data, validate=True))
        elif part["type"] == "input_audio":
            assert part["input_audio"]["format"] == "wav"
            found["audio"].append(base64.b64decode(part["input_audio"]["data"], validate=True))
        else:
            head, data = part["audio_url"]["url"].split(",", 1)
            assert (part["type"], head) == ("audio_url", "data:audio/wav;base64")
            found["audio"].append(base64.b64decode(data, validate=True))
    return found


def completion(text, positions=None, finish_reason="stop"):
    choice = {"index": 0, "finish_reason": finish_reason, "message": {"role": "assistant"}}
    choice["message"]["content"] = text
    if positions is not None:
        choice["logprobs"] = {
            "content": [
                {
                    "token": max(chances, key=chances.get),
                    "logprob": math.log(max(chances.values())),
                    "top_logprobs": [
                        {"token": token, "logprob": math.log(chance), "bytes": None}
                        for token, chance in chances.items()
                    ],
                }
                for chances in positions
            ]
        }
    return {"id": "1", "object": "chat.completion", "model": MODEL, "choices": [choice]}


@contextmanager
def serving(server):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, *arguments):
            pass

        def send(self, content, status=200, *, length=None, headers=()):
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content) if length is None else length))
            for name, value in headers:
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)
            self.close_connection = True

        def do_GET(self):
            assert self.path == "/v1/models"
            server.probes += 1
            self.send(json.dumps({"object": "list", "data": [{"id": MODEL}]}).encode())

        def do_POST(self):
            assert self.path == "/v1/chat/completions"
            body = self.rfile.read(int(self.headers["Content-Length"]))
            request = json.loads(body)
            server.requests.append(request)
            server.headers.append({name.lower(): value for name, value in self.headers.items()})
            fault = server.faults.popleft() if server.faults else None
            if isinstance(fault, int):
                self.send(b'{"error": "busy"}', fault, headers=[("Retry-After", "0.01")])
            elif fault == "slow":
                server.release.wait(20)
            elif fault == "drip":
                self.send(b"{", length=1000)
                while not server.release.wait(0.02):
                    self.wfile.write(b" ")
                    self.wfile.flush()
            elif fault == "hang up":
                self.close_connection = True
            else:
                self.send_answer(request, fault)

        def send_answer(self, request, fault):
            given = server.answer(request)
            text, positions = given if isinstance(given, tuple) else (given, None)
            content = json.dumps(completion(text, positions, server.finish_reason)).encode()
            if fault == "half":
                self.send(content[: len(content) // 2], length=len(content))
            elif fault == "no json":
                self.send(b"<html>502</html>")
            elif fault == "wrong json":
                self.send(b'{"choices": []}')
            elif fault == "list":
                self.send(b"[]")
            else:
                self.send(content)

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request, client_address):
            # Clients that gave up close their end.
            pass

    with Quiet(("127.0.0.1", 0), Handler) as http:
        server.url = f"http://127.0.0.1:{http.server_port}/v1"
        thread = threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.release.set()
            http.shutdown()
            thread.join()


def server_options(server, **options):
    """Arguments of a `ServerJudge` that asks it without waiting."""
    return {
        "base_url": server.url,
        "model": MODEL,
        "num_retries": 2,
        "time_limit_seconds": 10.0,
        **options,
    }


class BeatJudge:
    """Looks at the picture and listens to the sound that it is sent; nothing else counts."""

    def __init__(self, folder):
        self.folder = folder
        self.lock = threading.Lock()

    def __call__(self, request):
        sent = parts(request)
        assert len(sent["video"]) == len(sent["audio"])
        if "beat alignment" not in sent["text"][-1]:
            return "5"
        return str(round(10 * self.alignment(sent["video"][0], sent["audio"][0])))

    def alignment(self, video, sound):
        with self.lock:
            path = self.folder / "seen.mp4"
            path.write_bytes(video)
            info = probe_video(path)
            assert not info.has_audio
            frames = read_clip(
                path,
                start_seconds=0,
                num_frames=round(info.duration_seconds * info.average_fps),
                height=info.height,
                width=info.width,
                fps=info.average_fps,
                crop=None,
            )
        beats = kinematic_beats(frame_difference(frames), fps=info.average_fps)
        return float(beat_alignment(beats, clicks_in(sound)))


def clicks_in(wav):
    """Where a wav file of clicks gets loud, in seconds."""
    with wave.open(BytesIO(wav)) as file:
        assert (file.getnchannels(), file.getsampwidth()) == (1, 2)
        rate_hz = file.getframerate()
        samples = torch.frombuffer(bytearray(file.readframes(file.getnframes())), dtype=torch.int16)
    loud = (samples.float().abs() > 4000).nonzero().flatten() / rate_hz
    gaps = loud.diff(prepend=torch.tensor([-1.0]))
    return loud[gaps > 0.1].double()


class PictureJudge:
    """Judges by the picture alone."""

    def __call__(self, request):
        return str(4 + sum(parts(request)["video"][0]) % 5)
