"""The fetch command against a server on this machine; nothing here reaches the network."""

import http.server
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from datamodules.fetch_aist import TERMS_URL, FetchError, fetch, main, read_names

NAMES = (
    "gBR_sBM_c01_d04_mBR0_ch01",
    "gBR_sFM_c02_d05_mBR2_ch04",
    "gHO_sBM_c10_d20_mHO1_ch05",
    "sSH_c01_v0",
)
VIDEOS = {name: bytes([number]) * 200_000 for number, name in enumerate(NAMES)}


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


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # noqa: N802
            asked = self.headers["Range"]
            state.requests.append((self.path, asked))
            name = Path(self.path).stem
            statuses = state.statuses.get(name)
            if name not in VIDEOS or statuses:
                self.send_error(statuses.pop(0) if statuses else 404)
                return
            body, start = VIDEOS[name], 0
            if asked and state.knows_ranges:
                start = int(asked.removeprefix("bytes=").removesuffix("-"))
                if start >= len(body):
                    self.send_error(416)
                    return
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(body) - start))
            self.end_headers()
            rest = body[start:]
            if state.drops.get(name):
                state.drops[name] -= 1
                rest = rest[:70_000]
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
    return {path.name: path.read_bytes() for path in folder.iterdir()}


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
    assert main([*arguments, "--size", "2M"], url=server.url) == 0
    assert server.requests[3:] == [(f"/video/2M/{NAMES[1]}.mp4", None)], "what is there is kept"
    assert "1 fetched, 3 there already, 0 failed" in capsys.readouterr().out


def test_a_dropped_connection_is_taken_up_where_it_broke(server: Server, tmp_path: Path) -> None:
    server.drops[NAMES[0]] = 2
    done = fetched(server, tmp_path, NAMES[0])
    assert done.new == [NAMES[0]] and not done.failed
    assert files(tmp_path) == {f"{NAMES[0]}.mp4": VIDEOS[NAMES[0]]}
    assert [asked for _, asked in server.requests] == [None, "bytes=70000-", "bytes=140000-"]


def test_a_later_run_goes_on_from_the_part(server: Server, tmp_path: Path) -> None:
    (tmp_path / f".{NAMES[2]}.mp4.part").write_bytes(VIDEOS[NAMES[2]][:5])
    fetched(server, tmp_path, NAMES[2])
    assert server.requests == [(f"/video/{NAMES[2]}.mp4", "bytes=5-")]
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
    assert {p.name for p in out.iterdir()} == {f"{NAMES[2]}.mp4", f".{weak}.mp4.part"}


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
    with pytest.raises(FetchError, match=message):
        read_names(names_file, **choice)


def test_a_list_that_is_not_there(tmp_path: Path, capsys) -> None:
    out = tmp_path / "videos"
    assert main(["--names", "/no/such.txt", "--out", str(out), "--accept-terms"]) == 1
    assert "/no/such.txt cannot be read (No such file" in capsys.readouterr().err
    assert not out.exists()
