"""A worker that gives the mean brightness of frames, and misbehaves on demand."""

import os
import sys
import time

import numpy as np

from dance_eval.workers.serving import serve


def answer(request):
    misdeed = request.get("misdeed")
    if misdeed == "die once":
        if not os.path.exists(request["mark"]):
            open(request["mark"], "w").close()
            print("out of memory, they say", file=sys.stderr)
            os._exit(7)
    elif misdeed == "die":
        print("out of memory, they say", file=sys.stderr, flush=True)
        os._exit(7)
    elif misdeed == "sleep":
        print("thinking it over", file=sys.stderr, flush=True)
        time.sleep(600)
    elif misdeed == "nonsense":
        os.write(CHANNEL, b"Loading checkpoint shards: 100%\n")
    elif misdeed == "half":
        os.write(CHANNEL, b'{"id": 1, "brigh')
        os._exit(0)
    elif misdeed == "list":
        os.write(CHANNEL, b"[1, 2]\n")
    elif misdeed == "other id":
        os.write(CHANNEL, b'{"id": 77}\n')
    elif misdeed == "raise":
        raise ValueError("these frames are upside down")
    print("a library that talks")
    frames = np.load(request["frames"], allow_pickle=False)
    return {"brightness": float(frames.mean()), "pid": os.getpid()}


def load():
    if "--broken" in sys.argv:
        print("first word\nno module named judge", file=sys.stderr)
        sys.exit(3)
    if "--slow" in sys.argv:
        time.sleep(600)
    print("loading loudly")
    return answer


if "--rude" in sys.argv:
    print("Welcome!", flush=True)
CHANNEL = os.dup(1)
serve(load)
