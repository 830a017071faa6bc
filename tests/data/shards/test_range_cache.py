"""Remote shards: fetched in ranges, kept on disk within a bound, and broken servers told in words."""

import http.server
import multiprocessing
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
import torch
import yaml
from moto.server import ThreadedMotoServer
from safetensors.torch import load_file

from data import storage
from data.errors import BadSample, DataError
from data.index import Index, Shard, load_index
from data.shards.range_cache import PAGE, RangeCache
from data.shards.shard_reader import ShardReader
from data.storage import read_range
from tests.range_server import serve
from train.main import main

TASKS = {"class": ("a", "b")}


def content(size: int, seed: int) -> bytes:
    return np.random.default_rng(seed).bytes(size)


def index_of(root: str, shards: dict[str, bytes]) -> Index:
    """An index whose shards are plain bytes: the cache looks at names, sizes and hashes only."""
    return Index(root, TASKS, tuple(Shard(n, 1, len(data), f"sha {hash(data)}", 0) for n, data in shards.items()))


def write(folder: Path, shards: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in shards.items():
        (folder / name).write_bytes(data)
    return folder


def disk_usage(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.iterdir())


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "_FIRST_PAUSE_SECONDS", 0.001)


@contextmanager
def http_server(answer: Callable[[http.server.BaseHTTPRequestHandler, int], None]) -> Iterator[str]:
    """`answer(request, number)` is called for each GET; yields the address."""
    numbers = iter(range(10_000))

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self, next(numbers))

        def log_message(self, format: str, *args: object) -> None:
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def send(request: http.server.BaseHTTPRequestHandler, status: int, body: bytes) -> None:
    request.send_response(status)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body)


def test_any_range_is_the_shards_bytes_and_is_fetched_once(tmp_path: Path) -> None:
    data = content(10 * PAGE + 123, seed=0)
    with serve(write(tmp_path / "shards", {"a.tar": data})) as server:
        cache = RangeCache(tmp_path / "cache", max_bytes=10**8)
        index = index_of(server.url, {"a.tar": data})
        for offset, size in [(0, 1), (PAGE - 1, 2), (5, 3 * PAGE), (10 * PAGE, 123), (0, len(data)), (777, 0)]:
            assert cache.read(index, 0, offset, size) == data[offset : offset + size]
        assert server.sent_bytes == cache.fetched_bytes == len(data)
        cache.close()
        again = RangeCache(tmp_path / "cache", max_bytes=10**8)
        assert again.read(index, 0, 0, len(data)) == data
        again.close()
        assert server.sent_bytes == len(data)


def test_what_is_announced_comes_in_the_background(tmp_path: Path) -> None:
    data = content(100 * PAGE, seed=0)
    with serve(write(tmp_path / "shards", {"a.tar": data})) as server:
        cache = RangeCache(tmp_path / "cache", max_bytes=10**8)
        index = index_of(server.url, {"a.tar": data})
        for first in range(0, 100, 10):
            cache.prefetch(index, 0, first * PAGE, (first + 10) * PAGE)
        assert cache.read(index, 0, 0, len(data)) == data
        cache.close()
        assert server.num_requests == 10
        assert server.sent_bytes == len(data)


def test_shards_with_the_same_name_do_not_meet(tmp_path: Path) -> None:
    """Two folders of one server, and one folder whose shard was rewritten."""
    old, other, new = (content(PAGE, seed) for seed in range(3))
    write(tmp_path / "shards/train", {"000000.tar": old})
    write(tmp_path / "shards/val", {"000000.tar": other})
    cache = RangeCache(tmp_path / "cache", max_bytes=10**8)
    with serve(tmp_path / "shards") as server:
        train, val = f"{server.url}/train", f"{server.url}/val"
        assert cache.read(index_of(train, {"000000.tar": old}), 0, 0, PAGE) == old
        assert cache.read(index_of(val, {"000000.tar": other}), 0, 0, PAGE) == other
        write(tmp_path / "shards/train", {"000000.tar": new})
        assert cache.read(index_of(train, {"000000.tar": new}), 0, 0, PAGE) == new
        assert cache.read(index_of(train, {"000000.tar": old}), 0, 0, PAGE) == old
    cache.close()


def test_the_folder_stays_within_its_bound(tmp_path: Path) -> None:
    shards = {f"{number:02}.tar": content(50 * PAGE, number) for number in range(20)}
    bound = 5 * 50 * PAGE
    with serve(write(tmp_path / "shards", shards)) as server:
        cache = RangeCache(tmp_path / "cache", max_bytes=bound)
        index = index_of(server.url, shards)
        for number, data in enumerate(shards.values()):
            for offset in range(0, len(data), 10 * PAGE):
                assert cache.read(index, number, offset, 10 * PAGE) == data[offset : offset + 10 * PAGE]
                assert disk_usage(cache.directory) <= bound
        assert disk_usage(cache.directory) > bound / 2
        sent = server.sent_bytes
        assert cache.read(index, 19, 0, PAGE) == shards["19.tar"][:PAGE]  # the newest is still there
        assert server.sent_bytes == sent
        assert cache.read(index, 0, 0, PAGE) == shards["00.tar"][:PAGE]  # the oldest is fetched again
        assert server.sent_bytes > sent
        cache.close()


def read_everything(
    directory: Path, url: str, shards: dict[str, int], bound: int, order: list[int], answers: Any
) -> None:
    """In a process of its own: every shard in its order, twice; puts the number of wrong reads."""
    contents = {name: content(size, seed) for seed, (name, size) in enumerate(shards.items())}
    index = Index(url, TASKS, tuple(Shard(name, 1, len(data), name, 0) for name, data in contents.items()))
    cache = RangeCache(directory, max_bytes=bound)
    wrong = 0
    for number in order * 2:
        data = contents[index.shards[number].name]
        for offset in range(0, len(data), 10 * PAGE):
            wrong += (
                cache.read(index, number, offset, len(data[offset : offset + 10 * PAGE]))
                != data[offset : offset + 10 * PAGE]
            )
    cache.close()
    answers.put(wrong)


def test_processes_that_share_a_small_folder_read_the_right_bytes(tmp_path: Path) -> None:
    """They drop each other's shards all the time; none may take a dropped page for one that is there."""
    sizes = {f"{number}.tar": 20 * PAGE for number in range(6)}
    shards = {name: content(size, seed) for seed, (name, size) in enumerate(sizes.items())}
    context = multiprocessing.get_context("spawn")
    with serve(write(tmp_path / "shards", shards)) as server:
        answers = context.Queue()
        processes = [
            context.Process(
                target=read_everything,
                args=(tmp_path / "cache", server.url, sizes, 50 * PAGE, list(range(6))[::direction], answers),
            )
            for direction in (1, -1)
        ]
        for process in processes:
            process.start()
        wrong = [answers.get(timeout=60) for _ in processes]
        for process in processes:
            process.join()
    assert wrong == [0, 0]


def test_a_damaged_page_is_fetched_again(tiny_shards: Path, tmp_path: Path) -> None:
    with serve(tiny_shards / "train") as server:
        index = load_index(server.url)
        reader = ShardReader(index, RangeCache(tmp_path / "cache", max_bytes=10**8))
        good = reader.read(0, 3)
        reader.close()
        for path in (tmp_path / "cache").iterdir():
            with path.open("r+b") as file:
                file.write(bytes(index.shards[0].bytes))  # as a machine leaves it that crashed while writing
        reader = ShardReader(index, RangeCache(tmp_path / "cache", max_bytes=10**8))
        assert reader.read(0, 3) == good
        reader.close()


def test_a_shard_that_the_server_lost_is_a_bad_sample(tmp_path: Path) -> None:
    with serve(write(tmp_path / "shards", {})) as server:
        cache = RangeCache(tmp_path / "cache", max_bytes=10**8)
        index = index_of(server.url, {"gone.tar": content(PAGE, 0)})
        with pytest.raises(BadSample, match=r"gone\.tar is missing"):
            cache.read(index, 0, 0, 10)
        cache.prefetch(index, 0, 0, 100)
        with pytest.raises(BadSample, match=r"gone\.tar is missing"):
            cache.read(index, 0, 0, 10)
        cache.close()


def test_bytes_behind_the_end_of_the_shard_are_a_bad_sample(tmp_path: Path) -> None:
    cache = RangeCache(tmp_path / "cache", max_bytes=10**8)
    with pytest.raises(BadSample, match="past the end of the shard"):
        cache.read(index_of("http://127.0.0.1:9", {"a.tar": b"x" * 100}), 0, 90, 11)


def test_a_server_that_ignores_ranges_is_refused_in_words() -> None:
    with (
        http_server(lambda request, number: send(request, 200, bytes(5000))) as url,
        pytest.raises(DataError, match="ignores range requests; use one that serves HTTP ranges"),
    ):
        read_range(f"{url}/a.tar", 100, 200)


@pytest.mark.parametrize("failures", [1, 4])
def test_a_flaky_server_is_asked_again(failures: int) -> None:
    def answer(request: http.server.BaseHTTPRequestHandler, number: int) -> None:
        send(request, 503, b"busy") if number < failures else send(request, 206, b"x" * 100)

    with http_server(answer) as url:
        assert read_range(f"{url}/a.tar", 0, 100) == b"x" * 100


def test_a_server_that_stays_broken_is_a_data_error() -> None:
    asked = []

    def answer(request: http.server.BaseHTTPRequestHandler, number: int) -> None:
        asked.append(number)
        send(request, 503, b"busy")

    with http_server(answer) as url, pytest.raises(DataError, match=r"a\.tar.*after 5 attempts.*503"):
        read_range(f"{url}/a.tar", 0, 100)
    assert len(asked) == 5


def test_an_answer_that_is_too_short_is_a_data_error() -> None:
    with (
        http_server(lambda request, number: send(request, 206, b"x" * 60)) as url,
        pytest.raises(DataError, match="got 60 of 100 bytes"),
    ):
        read_range(f"{url}/a.tar", 0, 100)


@pytest.fixture
def s3_shards(tiny_shards: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The tiny shards in a bucket of an S3 server on loopback."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    client = boto3.client("s3")
    client.create_bucket(Bucket="photos")
    for path in tiny_shards.rglob("*"):
        if path.is_file():
            client.upload_file(str(path), "photos", str(path.relative_to(tiny_shards)))
    yield "s3://photos"
    server.stop()


def trained_weights(root: str, folder: Path, *, workers: int) -> dict[str, torch.Tensor]:
    config = {
        "run": {"dir": str(folder / "run")},
        "data": {
            "train": f"{root}/train",
            "val": f"{root}/val",
            "image_size": 24,
            "lanes": 4,
            "window": 4,
            "workers": workers,
            "cache": {"dir": str(folder / "cache"), "max_gigabytes": 0.01},
        },
        "model": {"backbone": "food11_student"},
        "schedule": {"epochs": 1},
        "batch_size": 11,
        "tracking": {"wandb": {"mode": "disabled"}},
    }
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    assert main(["--config", str(folder / "config.yaml")]) == 0
    assert not (folder / "run/bad_samples.jsonl").read_text()
    return load_file(folder / "run/last/model.safetensors")


def test_training_from_http_and_s3_gives_the_weights_of_local_shards(
    tiny_shards: Path, s3_shards: str, tmp_path: Path
) -> None:
    local = trained_weights(str(tiny_shards), tmp_path / "local", workers=0)
    with serve(tiny_shards) as server:
        for workers in (0, 1):
            from_http = trained_weights(server.url, tmp_path / f"http{workers}", workers=workers)
            assert all(torch.equal(from_http[name], tensor) for name, tensor in local.items())
    for workers in (0, 1):
        from_s3 = trained_weights(s3_shards, tmp_path / f"s3{workers}", workers=workers)
        assert all(torch.equal(from_s3[name], tensor) for name, tensor in local.items())
