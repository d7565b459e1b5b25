"""The cases: their files, and the commands that are compared."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from burn import loops_for_target
from measure import BIN, Contender, timed
from servers import Server, distant, nginx, slow_server, sshd

HERE = Path(__file__).resolve().parent
MIB = 1 << 20
SMALL = 4096
LARGE = 256 * MIB
WITH_REQUESTS = {"DPP_DISABLE_PLUGINS": "curl"}
PLUGIN = '''
from dpp import BaseProcessor, FileData, hookimpl


class Count(BaseProcessor):
    """A processor that no batch uses."""

    name = "count-{name}"
    version = "3"
    blank: bool = True

    def process(self, file: FileData) -> dict[str, bool]:
        return {{"blank": self.blank}}


@hookimpl
def dpp_processors() -> list[type]:
    return [Count]
'''


def scaled(number: int, scale: float) -> int:
    """Return a scaled number of files, at least 100."""
    # dpp processes smaller batches in another way, with tasks per file
    return max(100, round(number * scale))


def dpp(manifest: Path | str, *options: str, workers: int = 4) -> list[str]:
    """Return the command of the main job."""
    return [str(BIN / "luigi"), "--module", "dpp", "RunBatch", "--files", str(manifest), "--workers", str(workers), *options]


def has_curl_plugin() -> bool:
    return importlib.util.find_spec("dpp_curl") is not None


def both_fetchers(manifest: Path, files: int, *options: str) -> list[Contender]:
    """Return dpp with dpp-curl, if it is installed, and with requests."""
    fast = Contender("dpp-curl", "dpp, dpp-curl", dpp(manifest, *options), files)
    plain = Contender("dpp-requests", "dpp, requests", dpp(manifest, *options), files, WITH_REQUESTS)
    return [fast, plain] if has_curl_plugin() else [plain]


def write_manifest(path: Path, urls: Sequence[str]) -> Path:
    with path.open("w") as lines:
        lines.writelines(f'{{"url": "{url}"}}\n' for url in urls)
    return path


def write_lists(folder: Path, urls: Sequence[str]) -> tuple[Path, Path]:
    """Write a list of URLs, and a configuration of curl with the same URLs and output names; return both paths."""
    plain, config = folder / "urls.txt", folder / "curl.txt"
    plain.write_text("".join(f"{url}\n" for url in urls))
    config.write_text("".join(f'url = "{url}"\noutput = "{url.rpartition("/")[2]}"\n' for url in urls))
    return plain, config


def curl(config: Path, at_once: int, files: int) -> Contender:
    options = ["--parallel", "--parallel-max", str(at_once), "--fail", "--silent", "--show-error", "--config", str(config)]
    return Contender("curl", f"curl --parallel-max {at_once}", ["curl", "-q", *options], files, outputs=files)


def aria2c(urls: Path, files: int) -> Contender:
    options = ["--no-conf", "--quiet", "-j", "16", "--file-allocation=none", "--input-file", str(urls)]
    return Contender("aria2c", "aria2c -j 16", ["aria2c", *options], files, outputs=files)


def numbered(count: int) -> Iterator[str]:
    return (f"f{number:06}" for number in range(count))


def small_files(folder: Path, count: int) -> Path:
    """Write files of 4 KiB with different contents."""
    folder.mkdir(parents=True)
    numbers = random.Random(1)
    for name in numbered(count):
        (folder / name).write_bytes(numbers.randbytes(SMALL))
    return folder


def linked_files(folder: Path, count: int) -> list[str]:
    """Create hard links to one file of 4 KiB; return them as ``file:`` URLs."""
    folder.mkdir(parents=True)
    first = folder / "content"
    first.write_bytes(random.Random(1).randbytes(SMALL))
    for name in numbered(count):
        if not os.path.lexists(folder / name):
            os.link(first, folder / name)
    return [f"file://{folder / name}" for name in numbered(count)]


@contextmanager
def small(folder: Path, scale: float) -> Iterator[list[Contender]]:
    """Many files of 4 KiB from nginx."""
    files = scaled(10_000, scale)
    small_files(folder / "www", files)
    with nginx(folder) as url:
        urls = [f"{url}/{name}" for name in numbered(files)]
        manifest, (plain, config) = write_manifest(folder / "files.jsonl", urls), write_lists(folder, urls)
        few = write_manifest(folder / "few.jsonl", urls[:100])
        rclone = ["rclone", "copy", ":http:", ".", "--http-url", url, "--transfers", "16", "--checkers", "16", "--config", os.devnull]
        pool = [sys.executable, str(HERE / "requests_pool.py"), str(plain)]
        yield [
            *both_fetchers(manifest, files),
            aria2c(plain, files),
            curl(config, 16, files),
            Contender("rclone", "rclone --transfers 16", rclone, files, outputs=files),
            Contender("wget", "wget", ["wget", "--no-config", "--quiet", "--input-file", str(plain)], files, outputs=files),
            Contender("pool", "requests, 16 threads", pool, files, outputs=files),
            Contender("graph", "four Luigi tasks per file", dpp(few, "--chunk-size", "1"), 100),
        ]


def remove_some(workspace: Path, names: set[str]) -> None:
    """Remove the downloads and the reports of the files with these names."""
    for part in ("downloads", "reports"):
        found = [Path(root, name) for root, _, files in os.walk(workspace / part) for name in files if name[:7] in names]
        assert found, f"nothing to remove in {part}"
        for path in found:
            path.unlink()


@contextmanager
def resume(folder: Path, scale: float) -> Iterator[list[Contender]]:
    """The batch of the case small again, when it is complete and when 1 % of its files are missing."""
    files = scaled(10_000, scale)
    small_files(folder / "www", files)
    (folder / "kept").mkdir()
    with nginx(folder) as url:
        command = dpp(write_manifest(folder / "files.jsonl", [f"{url}/{name}" for name in numbered(files)]))
        timed(command, folder / "kept", {})
        gone = {name for number, name in enumerate(numbered(files)) if number % 100 == 0}
        yield [
            Contender("nothing", "dpp, nothing to do", command, files, prepare=lambda _: None),
            Contender("some", "dpp, 1 % missing", command, files, prepare=lambda place: remove_some(place / "dpp-workspace", gone)),
        ]


@contextmanager
def batch_sizes(folder: Path, scale: float) -> Iterator[list[Contender]]:
    """Batches of three sizes, from file: URLs."""
    contenders = []
    for key, number in (("hundredth", 1_000), ("tenth", 10_000), ("whole", 100_000)):
        files = scaled(number, scale)
        manifest = write_manifest(folder / f"{key}.jsonl", linked_files(folder / key, files))
        contenders.append(Contender(key, f"dpp, {files:,} files", dpp(manifest), files))
    yield contenders


@contextmanager
def large(folder: Path, scale: float) -> Iterator[list[Contender]]:
    """Four large files from nginx."""
    (folder / "www").mkdir()
    block, names = random.Random(1).randbytes(MIB), ["a", "b", "c", "d"]
    for name in names:
        with (folder / "www" / name).open("wb") as file:
            for _ in range(max(1, round(LARGE * scale) // MIB)):
                file.write(block)
    with nginx(folder) as url:
        urls = [f"{url}/{name}" for name in names]
        _, config = write_lists(folder, urls)
        alone = curl(config, 4, len(names))
        summed = ["sh", "-c", 'curl -q "$@" && sha256sum a b c d', "sh", *alone.command[2:]]
        yield [
            *both_fetchers(write_manifest(folder / "files.jsonl", urls), len(names)),
            alone,
            Contender("curl-sha256", "curl, then sha256sum", summed, len(names), outputs=len(names)),
        ]


@contextmanager
def latency(folder: Path, scale: float) -> Iterator[list[Contender]]:
    """Files of a server that responds after 100 ms, 64 at once."""
    files = scaled(2_000, scale)
    with slow_server(folder) as url:
        urls = [f"{url}/{name}" for name in numbered(files)]
        manifest, (_, config) = write_manifest(folder / "files.jsonl", urls), write_lists(folder, urls)
        yield [*both_fetchers(manifest, files, "--download-threads", "16"), curl(config, 64, files)]


@contextmanager
def cpu(folder: Path, scale: float) -> Iterator[list[Contender]]:
    """A processor that takes 20 ms of processor time, and the same loops without dpp as the limit of the machine."""
    files, loops = scaled(500, scale), str(loops_for_target())
    manifest = write_manifest(folder / "files.jsonl", linked_files(folder / "files", files))
    options = ("--processor", "burn_processor:Burn", "--options", json.dumps({"burn": {"loops": int(loops)}}))
    path, few = {"PYTHONPATH": str(HERE)}, files // 5
    contenders = [Contender(f"workers-{n}", f"dpp --workers {n}", dpp(manifest, *options, workers=n), files, path) for n in (1, 2)]
    plain = [sys.executable, str(HERE / "burn.py"), loops, str(few)]
    yield [*contenders, *(Contender(f"plain-{n}", f"plain Python, {n} process(es)", [*plain, str(n)], few) for n in (1, 2))]


@contextmanager
def executors(folder: Path, scale: float) -> Iterator[list[Contender]]:
    """Local files by Luigi's workers, and by executors on this machine."""
    files = scaled(10_000, scale)
    small_files(folder / "files", files)
    manifest = write_manifest(folder / "files.jsonl", [(folder / "files" / name).as_uri() for name in numbered(files)])
    names = ["processes", *(["dask"] if importlib.util.find_spec("dpp_dask") else [])]
    yield [
        Contender("workers", "dpp --workers 2", dpp(manifest, workers=2), files),
        *(Contender(name, f"dpp --executor {name}", dpp(manifest, "--executor", name, workers=2), files) for name in names),
    ]


@contextmanager
def settings(folder: Path, scale: float) -> Iterator[list[Contender]]:
    """Values of settings that determine the defaults: threads, limits and queues, with slow and fast servers and processors."""
    few, many = scaled(400, scale), scaled(4_000, scale)
    small_files(folder / "www", many)
    near = [f"file://{folder / 'www' / name}" for name in numbered(few)]
    local = write_manifest(folder / "local.jsonl", near)
    burn = ("--processor", "burn_processor:Burn", "--options", json.dumps({"burn": {"loops": loops_for_target()}}))
    nap = ("--processor", "nap_processor:Nap")
    path = {"PYTHONPATH": str(HERE)}
    with slow_server(folder) as slow, nginx(folder) as fast:
        far = write_manifest(folder / "far.jsonl", [f"{slow}/{name}" for name in numbered(few)])
        quick = write_manifest(folder / "quick.jsonl", [f"{fast}/{name}" for name in numbered(many)])

        def row(manifest: Path, files: int, what: str, *options: str) -> Contender:
            shown = " ".join(option for option in options if option not in (*burn, *nap)) or "defaults"
            return Contender(f"{what} {shown}", f"{what}: {shown}", dpp(manifest, *options), files, path)

        yield [
            *(row(far, few, "100 ms away", "--download-threads", str(count)) for count in (4, 8, 14, 32)),
            *(row(quick, many, "nginx", "--download-threads", str(count)) for count in (1, 14, 32)),
            row(quick, many, "nginx", "--max-per-host", "16"),
            row(quick, many, "nginx", "--rate-limit", "10G"),
            *(row(local, few, "20 ms of Python", *burn, "--processing-limit", str(count)) for count in (1, 4, 16)),
            *(row(local, few, "50 ms of waiting", *nap, "--processing-limit", str(count)) for count in (1, 4, 16)),
            *(row(far, few, "100 ms away, 50 ms of waiting", *nap, "--download-queue-size", str(count)) for count in (1, 16, 64)),
        ]


@contextmanager
def sftp(folder: Path, scale: float) -> Iterator[list[Contender]]:
    """Files of 64 KiB from OpenSSH's server, on loopback and with a round-trip time of 1 ms."""
    files = scaled(500, scale)
    outbox = folder / "outbox"
    outbox.mkdir()
    numbers = random.Random(1)
    for name in numbered(files):
        (outbox / name).write_bytes(numbers.randbytes(64 * 1024))
    (folder / "sshd").mkdir(mode=0o700)
    with sshd(folder / "sshd") as near, distant(folder, near) as far:
        yield [*sftp_clients(folder, near, outbox), *sftp_clients(folder, far, outbox, "-far", ", 1 ms away")]


def sftp_clients(folder: Path, server: Server, outbox: Path, key: str = "", where: str = "") -> Iterator[Contender]:
    """Yield the commands that download all files of a folder from a server."""
    files = sorted(outbox.iterdir())
    commands = folder / "commands"
    commands.write_text("".join(f"get {path}\n" for path in files))
    common = ["-o", f"UserKnownHostsFile={server.known_hosts}", "-o", f"IdentityFile={server.key_file}", "-o", "IdentitiesOnly=yes"]
    batch = ["sftp", "-q", "-b", str(commands), "-P", str(server.port), *common, f"{server.user}@{server.host}"]
    flags = {"host": server.host, "port": server.port, "user": server.user, "key-file": server.key_file}
    remote = [f"--sftp-{name}={value}" for name, value in {**flags, "known-hosts-file": server.known_hosts}.items()]
    rclone = ["rclone", "copy", f":sftp:{outbox}", ".", "--config", os.devnull, "--sftp-disable-hashcheck"]
    source = f"sftp://{server.user}@{server.host}:{server.port}{outbox}/"
    ours = dpp(source, "--options", json.dumps({"sftp": server.options}), workers=2)
    yield Contender(f"dpp{key}", f"dpp --workers 2{where}", ours, len(files))
    yield Contender(f"sftp{key}", f"sftp -b{where}", batch, len(files), outputs=len(files))
    yield Contender(f"rclone{key}", f"rclone{where}", [*rclone, *remote], len(files), outputs=len(files))


def fake_plugins(site: Path, count: int) -> Path:
    """Write plugins as pip installs them, each with a module and the metadata of its distribution."""
    for number in range(count):
        name = f"fake{number}"
        info = site / f"dpp_{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (site / f"{name}_plugin.py").write_text(PLUGIN.format(name=name))
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: dpp-{name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[dpp]\n{name} = {name}_plugin\n")
    return site


@contextmanager
def plugins(folder: Path, scale: float) -> Iterator[list[Contender]]:
    """The same batch with and without ten installed plugins that it does not use."""
    files = scaled(10_000, scale)
    manifest = write_manifest(folder / "files.jsonl", linked_files(folder / "files", files))
    site = str(fake_plugins(folder / "site-packages", 10))
    yield [
        Contender("none", "dpp", dpp(manifest), files),
        Contender("ten", "dpp, ten more plugins", dpp(manifest), files, {"PYTHONPATH": site}),
    ]


@contextmanager
def view(folder: Path, scale: float) -> Iterator[list[Contender]]:
    """Small files from nginx in a terminal (script(1)), with and without the view."""
    files = scaled(20_000, scale)
    small_files(folder / "www", files)
    terminal = {"TERM": "xterm-256color", "CI": ""}
    with nginx(folder) as url:
        manifest = write_manifest(folder / "files.jsonl", [f"{url}/{name}" for name in numbered(files)])

        def row(key: str, title: str, *options: str) -> Contender:
            command = ["script", "--quiet", "--return", "--command", shlex.join(dpp(manifest, *options)), os.devnull]
            return Contender(key, title, command, files, terminal)

        yield [row("quiet", "dpp --quiet", "--quiet"), row("drawn", "dpp, the view drawn")]


@dataclass(frozen=True)
class Case:
    """A case.

    Attributes:
        setup: Context manager that prepares a folder for a scale and yields the commands.
        needs_nginx: Whether it needs nginx.
        times: Factor for the number of rounds.
    """

    setup: Callable[[Path, float], object]
    needs_nginx: bool = False
    times: int = 1


CASES = {
    "small": Case(small, needs_nginx=True),
    "resume": Case(resume, needs_nginx=True),
    "scale": Case(batch_sizes),
    "large": Case(large, needs_nginx=True),
    "latency": Case(latency),
    "cpu": Case(cpu),
    "executors": Case(executors),
    "plugins": Case(plugins, times=3),
    "sftp": Case(sftp),
    "view": Case(view, needs_nginx=True, times=3),
    "settings": Case(settings, needs_nginx=True),
}


def missing_peers(contenders: Sequence[Contender]) -> list[Contender]:
    """Return the contenders whose program is not installed."""
    return [contender for contender in contenders if shutil.which(contender.command[0]) is None]
