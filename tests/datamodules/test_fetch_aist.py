"""The fetch command against a server on this machine; nothing here reaches the network."""

import contextlib
import errno
import http.server
import os
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from datamodules.fetch_aist import TERMS_URL, fetch, main, read_names
from musicinfuser.errors import UserError

NAMES = (
    "gBR_sBM_c01_d04_mBR0_ch01",
    "gBR_sFM_c02_d05_mBR2_ch04",
    "gHO_sBM_c10_d20_mHO1_ch05",
    "sSH_c01_v0",
)


def video(number: int, num_bytes: int = 200_000) -> bytes:
    """The boxes of an mp4 file with other content per number."""
    first, last = b"\0\0\0\x10ftypisom\0\0\0\0", b"\0\0\0\x08moov"
    length = num_bytes - len(first) - len(last)
    return first + length.to_bytes(4) + b"mdat" + bytes([number]) * (length - 8) + last


VIDEOS = {name: video(number) for number, name in enumerate(NAMES)}


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    connect = socket.socket.connect

    def refuse(self: socket.socket, address: tuple) -> None:
        assert address[0] == "127.0.0.1", f"a test tried to reach {address}"
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setenv("no_proxy", "*")


@dataclass
class Server:
    url: str = ""
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    """Path and range of each request."""
    drops: dict[str, int] = field(default_factory=dict)
    """Requests of a name that break off in the middle."""
    statuses: dict[str, list[int]] = field(default_factory=dict)
    """Answers that come before the video."""
    knows_ranges: bool = True
    bodies: dict[str, bytes] = field(default_factory=lambda: dict(VIDEOS))
    headers: dict[str, str] = field(default_factory=dict)
    """Of every answer; an ETag is compared with If-Range."""
    tells_length: bool = True
    is_chunked: bool = False
    on_request: list[Callable[[], None]] = field(default_factory=list)
    """Run before an answer, one per request."""


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # noqa: N802
            asked = self.headers["Range"]
            state.requests.append((self.path, asked))
            if state.on_request:
                state.on_request.pop(0)()
            name = Path(self.path).stem
            statuses = state.statuses.get(name)
            if name not in state.bodies or statuses:
                self.send_error(statuses.pop(0) if statuses else 404)
                return
            body, start = state.bodies[name], 0
            is_same = self.headers["If-Range"] in (None, state.headers.get("ETag"))
            if asked and state.knows_ranges and is_same:
                start = int(asked.removeprefix("bytes=").removesuffix("-"))
                if start >= len(body):
                    self.send_error(416)
                    return
            self.send_response(206 if start else 200)
            for key, value in state.headers.items():
                self.send_header(key, value)
            if state.is_chunked:
                self.send_header("Transfer-Encoding", "chunked")
            elif state.tells_length:
                self.send_header("Content-Length", str(len(body) - start))
            if start and state.tells_length:
                self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            self.end_headers()
            rest = body[start:]
            if state.drops.get(name):
                state.drops[name] -= 1
                rest = rest[:70_000]
            if state.is_chunked:
                rest = b"%x\r\n%s\r\n0\r\n\r\n" % (len(rest), rest)
            with contextlib.suppress(ConnectionError):
                self.wfile.write(rest)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        state.url = f"http://127.0.0.1:{running.server_port}/video"
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield state
        running.shutdown()
        thread.join()


@pytest.fixture
def names_file(tmp_path: Path) -> Path:
    path = tmp_path / "video_list.txt"
    path.write_text("\n".join(NAMES) + "\n\n")
    return path


def fetched(server: Server, folder: Path, *names: str) -> object:
    return fetch(names, folder, url=server.url, pause_seconds=0, say=lambda line: None)


def files(folder: Path) -> dict[str, bytes]:
    """What is there besides notes on where it comes from."""
    paths = [path for path in folder.iterdir() if not path.name.endswith(".origin.json")]
    return {path.name: path.read_bytes() for path in paths}


def test_without_the_flag_only_the_terms_are_named(
    server: Server, names_file: Path, tmp_path: Path, capsys
) -> None:
    out = tmp_path / "videos"
    assert main(["--names", str(names_file), "--out", str(out)], url=server.url) == 1
    assert TERMS_URL in capsys.readouterr().out
    assert not server.requests and not out.exists()


def test_fetches_what_is_chosen(server: Server, names_file: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "videos"
    arguments = ["--names", str(names_file), "--out", str(out), "--accept-terms"]
    arguments += ["--pause-seconds", "0"]
    assert main([*arguments, "--cameras", "c01", "c10"], url=server.url) == 0
    chosen = (NAMES[0], NAMES[2], NAMES[3])
    assert files(out) == {f"{name}.mp4": VIDEOS[name] for name in chosen}
    assert [path for path, _ in server.requests] == [f"/video/10M/{n}.mp4" for n in chosen]
    assert "3 fetched, 0 there already, 0 failed" in capsys.readouterr().out
    assert main(arguments, url=server.url) == 0
    assert server.requests[3:] == [(f"/video/10M/{NAMES[1]}.mp4", None)], "what is there is kept"
    assert "1 fetched, 3 there already, 0 failed" in capsys.readouterr().out


def test_another_size_is_not_there_already(
    server: Server, names_file: Path, tmp_path: Path, capsys
) -> None:
    out = tmp_path / "videos"
    arguments = ["--names", str(names_file), "--out", str(out), "--accept-terms"]
    arguments += ["--pause-seconds", "0"]
    assert main(arguments, url=server.url) == 0
    assert main([*arguments, "--size", "2M"], url=server.url) == 1
    said = capsys.readouterr().out
    assert "0 fetched, 0 there already, 4 failed" in said
    place = f"{server.url}/10M/{NAMES[0]}.mp4, not from {server.url}/2M/{NAMES[0]}.mp4"
    assert f"{NAMES[0]}: is there already, but came from {place}; delete {out}/" in said
    # Of files that an earlier version fetched only the number of bytes can be compared.
    for note in out.glob(".*.origin.json"):
        note.unlink()
    server.bodies = dict.fromkeys(NAMES, video(9, 50_000)) | {NAMES[0]: VIDEOS[NAMES[0]]}
    assert main([*arguments, "--size", "2M"], url=server.url) == 1
    said = capsys.readouterr().out
    assert "0 fetched, 1 there already, 3 failed" in said
    assert "is there already with 200000 bytes, the server's has 50000; delete" in said
    assert files(out) == {f"{name}.mp4": VIDEOS[name] for name in NAMES}


def test_a_video_cut_short_since_is_not_there_already(server: Server, tmp_path: Path) -> None:
    fetched(server, tmp_path, NAMES[0])
    path = tmp_path / f"{NAMES[0]}.mp4"
    path.write_bytes(VIDEOS[NAMES[0]][:1000])
    done = fetched(server, tmp_path, NAMES[0])
    assert list(done.failed) == [NAMES[0]] and not done.there_already
    assert "is there already with 1000 bytes, the server's has 200000" in done.failed[NAMES[0]]


@pytest.mark.parametrize("headers", [{"ETag": '"1"'}, {"ETag": 'W/"1"'}, {}])
def test_a_part_of_a_file_that_changed_is_thrown_away(
    server: Server, tmp_path: Path, headers: dict[str, str]
) -> None:
    """Between two tries, where it is as long as before only if the server names versions."""
    server.headers = dict(headers)
    server.drops[NAMES[0]] = 1
    now = video(9, 200_000 if headers else 150_000)

    def change() -> None:
        server.bodies[NAMES[0]] = now
        server.headers = {key: value.replace("1", "2") for key, value in headers.items()}

    server.on_request = [lambda: None, change]
    assert fetched(server, tmp_path, NAMES[0]).new == [NAMES[0]]
    assert files(tmp_path) == {f"{NAMES[0]}.mp4": now}


def test_a_part_of_another_size_is_not_continued(server: Server, tmp_path: Path) -> None:
    server.drops[NAMES[0]] = 4
    server.knows_ranges = False
    assert fetched(server, tmp_path, NAMES[0]).failed
    server.knows_ranges = True
    server.url += "/2M"
    assert fetched(server, tmp_path, NAMES[0]).new == [NAMES[0]]
    assert server.requests[4:] == [(f"/video/2M/{NAMES[0]}.mp4", None)]


@pytest.mark.parametrize(
    ("kind", "page", "reason"),
    [
        ("text/html; charset=utf-8", b"<html>sign in</html>", "sent a page (text/html) in place"),
        ("video/mp4", b"<html>sign in</html>", "what the server sent is no mp4 file"),
        ("video/mp4", b"", "what the server sent is no mp4 file"),
        ("application/json", b"{}", "sent a page (application/json)"),
    ],
)
def test_a_page_is_no_video(
    server: Server, tmp_path: Path, kind: str, page: bytes, reason: str
) -> None:
    server.headers = {"Content-Type": kind}
    server.bodies[NAMES[0]] = page
    done = fetched(server, tmp_path, *NAMES[:1])
    assert reason in done.failed[NAMES[0]]
    assert files(tmp_path) == {} and len(server.requests) == 1
    # Nor is one that an earlier version took for a video.
    (tmp_path / f"{NAMES[1]}.mp4").write_bytes(b"<html>sign in</html>")
    server.headers = {"Content-Type": "video/mp4"}
    assert fetched(server, tmp_path, NAMES[1]).new == [NAMES[1]]
    assert files(tmp_path) == {f"{NAMES[1]}.mp4": VIDEOS[NAMES[1]]}


@pytest.mark.parametrize("is_chunked", [True, False])
def test_a_server_that_does_not_tell_the_length(
    server: Server, tmp_path: Path, is_chunked: bool
) -> None:
    server.tells_length, server.is_chunked = False, is_chunked
    server.drops[NAMES[1]] = 0 if is_chunked else 1
    assert fetched(server, tmp_path, *NAMES[:3]).new == list(NAMES[:3])
    assert files(tmp_path) == {f"{name}.mp4": VIDEOS[name] for name in NAMES[:3]}


def test_a_full_disk_ends_the_list(
    server: Server, names_file: Path, tmp_path: Path, monkeypatch
) -> None:
    opened = Path.open

    def full(path: Path, mode: str = "r", *args: object, **options: object) -> object:
        if mode == "ab":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return opened(path, mode, *args, **options)

    monkeypatch.setattr(Path, "open", full)
    out = tmp_path / "videos"
    arguments = ["--names", str(names_file), "--out", str(out), "--accept-terms"]
    said = r"mp4.part: cannot be written \(No space left on device\); make room, then repeat"
    with pytest.raises(UserError, match=said):
        main(arguments, url=server.url)
    assert len(server.requests) == 1 and files(out) == {}


def test_a_dropped_connection_is_taken_up_where_it_broke(server: Server, tmp_path: Path) -> None:
    server.drops[NAMES[0]] = 2
    done = fetched(server, tmp_path, NAMES[0])
    assert done.new == [NAMES[0]] and not done.failed
    assert files(tmp_path) == {f"{NAMES[0]}.mp4": VIDEOS[NAMES[0]]}
    assert [asked for _, asked in server.requests] == [None, "bytes=70000-", "bytes=140000-"]


def test_a_later_run_goes_on_from_the_part(server: Server, tmp_path: Path) -> None:
    server.drops[NAMES[2]] = 4
    server.statuses[NAMES[2]] = []
    server.on_request = [lambda: None, lambda: server.statuses[NAMES[2]].extend([500] * 3)]
    assert fetched(server, tmp_path, NAMES[2]).failed
    server.drops = {}
    fetched(server, tmp_path, NAMES[2])
    assert server.requests[-1] == (f"/video/{NAMES[2]}.mp4", "bytes=70000-")
    assert files(tmp_path) == {f"{NAMES[2]}.mp4": VIDEOS[NAMES[2]]}


def test_a_part_of_which_nothing_is_known_is_thrown_away(server: Server, tmp_path: Path) -> None:
    (tmp_path / f".{NAMES[2]}.mp4.part").write_bytes(b"x" * 5)
    fetched(server, tmp_path, NAMES[2])
    assert server.requests == [(f"/video/{NAMES[2]}.mp4", None)]
    assert files(tmp_path) == {f"{NAMES[2]}.mp4": VIDEOS[NAMES[2]]}


def test_a_server_without_ranges_starts_anew(server: Server, tmp_path: Path) -> None:
    server.knows_ranges = False
    server.drops[NAMES[1]] = 1
    fetched(server, tmp_path, NAMES[1])
    assert files(tmp_path) == {f"{NAMES[1]}.mp4": VIDEOS[NAMES[1]]}


def test_a_part_that_is_too_long_is_thrown_away(server: Server, tmp_path: Path) -> None:
    (tmp_path / f".{NAMES[1]}.mp4.part").write_bytes(bytes(300_000))
    assert fetched(server, tmp_path, NAMES[1]).new == [NAMES[1]]
    assert files(tmp_path) == {f"{NAMES[1]}.mp4": VIDEOS[NAMES[1]]}


def test_failures_are_listed_and_the_rest_is_fetched(
    server: Server, tmp_path: Path, capsys
) -> None:
    absent, weak = "gBR_sBM_c01_d04_mBR0_ch09", NAMES[1]
    server.drops[weak] = 99
    server.statuses[NAMES[2]] = [503]
    names = tmp_path / "names.txt"
    names.write_text("\n".join([absent, weak, NAMES[2]]))
    # With ranges the tries would be enough for the whole video.
    server.knows_ranges = False
    out = tmp_path / "videos"
    arguments = ["--names", str(names), "--out", str(out), "--accept-terms", "--pause-seconds=0"]
    assert main(arguments, url=server.url) == 1
    said = capsys.readouterr().out
    assert "1 fetched, 0 there already, 2 failed" in said
    assert f"{absent}: the server says 404" in said
    assert f"{weak}: the connection broke off after 70000 bytes." in said
    assert sum(absent in path for path, _ in server.requests) == 1, "404 is final"
    assert sum(NAMES[2] in path for path, _ in server.requests) == 2
    assert files(out).keys() == {f"{NAMES[2]}.mp4", f".{weak}.mp4.part"}


def test_no_server(tmp_path: Path) -> None:
    done = fetch(
        [NAMES[0]], tmp_path, url="http://127.0.0.1:9", pause_seconds=0, say=lambda line: None
    )
    assert "the connection failed" in done.failed[NAMES[0]]


def test_choices_of_a_list(names_file: Path) -> None:
    assert read_names(names_file) == list(NAMES)
    assert read_names(names_file, situations=["FM"]) == [NAMES[1]]
    assert read_names(names_file, genres=["BR"], cameras=["c01"]) == [NAMES[0]]
    names_file.write_text(f"{NAMES[0]}.mp4\r\n{NAMES[0]}\n")
    assert read_names(names_file) == [NAMES[0]]


@pytest.mark.parametrize(
    ("text", "choice", "message"),
    [
        ("gBR_sBM_cAll_d04_mBR0_ch01", {}, "line 1: .* is not the name of an AIST video"),
        (f"{NAMES[0]}\nholiday", {}, "line 2: 'holiday' is not the name"),
        (NAMES[0], {"cameras": ["c02"]}, "names no video that is chosen"),
        (NAMES[0], {"cameras": ["c11"]}, "--cameras names c11; known are c01"),
        (NAMES[0], {"genres": ["XX"]}, "--genres names XX"),
        ("", {}, "names no video that is chosen"),
    ],
)
def test_lists_that_cannot_be_meant(
    names_file: Path, text: str, choice: dict, message: str
) -> None:
    names_file.write_text(text)
    with pytest.raises(UserError, match=message):
        read_names(names_file, **choice)


def test_a_list_that_is_not_there(tmp_path: Path) -> None:
    out = tmp_path / "videos"
    with pytest.raises(UserError, match="/no/such.txt cannot be read .No such file"):
        main(["--names", "/no/such.txt", "--out", str(out), "--accept-terms"])
    assert not out.exists()
