"""Secrets of URLs, headers, proxies and options must not be in the files, output, messages to luigid and commands of a batch over HTTP."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

import http_site
from canaries import canary, found, watched
from http_site import cut, raw, silent, status
from listening import reserved_port
from luigi_server import known_tasks, luigid
from sweeping import LIMIT_SECONDS

pytestmark = [pytest.mark.fault(27), pytest.mark.cold]

NAMES = (
    "user",
    "password",
    "signature",
    "sas",
    "token",
    "authorization",
    "cookie",
    "api_key",
    "proxy",
    "mirror",
    "redirect",
    "step",
    "scheme",
)
COMMANDS = {
    "luigi": ("luigi", "--module", "dpp", "RunBatch", "--batch-name", "secret", "--files"),
    "dpp": ("dpp", "run", "--batch", "secret"),
}
HEADER = "from __future__ import annotations\n"
PLUGIN = """
import logging
import threading
from typing import Any
import pydantic
from dpp import BaseFetcher, BasePostProcessor, BaseProcessor, FetchError, FileData, hookimpl

class Options(pydantic.BaseModel):
    phrase: pydantic.SecretStr = pydantic.SecretStr("")

class Strange(BaseFetcher):
    Options = Options
    def fetch(self, url, file, part):
        phrase = self.settings.options_for("strange", Options).phrase.get_secret_value()
        raise RuntimeError(f"{phrase!r} was refused")

class Tells(BaseProcessor):
    name = "tells"
    version = "1"
    phrase: pydantic.SecretStr
    doors: dict[str, list[pydantic.SecretStr]]

    def process(self, file: FileData) -> Any:
        phrase = self.phrase.get_secret_value()
        log = logging.getLogger("dpp.tells")
        log.warning("%s of %s", phrase, file.url)
        thread = threading.Thread(target=log.warning, args=("%s in a thread", file.headers))
        thread.start()
        thread.join()
        if file.id == "fine":
            return 1
        try:
            raise KeyError(phrase)
        except KeyError as error:
            raise ValueError(f"{file.url} and {file.headers} and {ascii(file.headers)} of {file.urls}: {phrase!r}") from error

class TellsMore(BasePostProcessor):
    name = "tells-more"
    def post_process(self, result: Any, file: FileData) -> None:
        if file.id == "posted":
            raise OSError(5000, f"{file.error} {file.headers}", file.url)

@hookimpl
def dpp_processors(): return [Tells]

@hookimpl
def dpp_post_processors(): return [TellsMore]

@hookimpl
def dpp_fetchers(): return {"strange": Strange}

@hookimpl
def dpp_file_finished(outcome):
    if outcome.id == "fine":
        raise LookupError(outcome.url + " was not expected")
"""


class Batch:
    """A manifest with one file for each kind of failure, whose URLs and headers contain secrets, and the configuration of its run.

    Attributes:
        slow: A manifest of one slow file, for another run with a short time limit that the other files must not have.
    """

    def __init__(self, site, other, closed_port):
        self.site, self.other = site, other
        self.canaries = {name: canary() for name in NAMES}
        self.query = f"X-Amz-Signature={self.quoted('signature')}&sig={self.quoted('sas')}&token={self.quoted('token')}"
        self.headers = {
            "Authorization": f"Bearer {self.canaries['authorization']}",
            "Cookie": f"session={self.canaries['cookie']}; b=c",
            "X-Api-Key": self.canaries["api_key"],
        }
        self.slow = [self.entry("slow", silent())]
        self.entries = [self.entry(name, reply) for name, reply in self.replies().items()]
        self.entries += [
            self.entry("posted", status(404)) | {"urls": [f"{other.url}/gone?k={self.quoted('mirror')}"]},
            self.entry("short", status(200, b"abc")) | {"size": 5},
            self.entry("forged", status(200, b"abc")) | {"sha256": "0" * 64},
            {"url": f"http://127.0.0.1:{closed_port}/x?{self.query}", "id": "refused"},
            {"url": f"http://{'x' * 70}.localhost/x?{self.query}", "id": "unnamed"},
            {"url": f"https://files.invalid/x?{self.query}", "id": "proxied"},
            {"url": f"https://{self.user()}@127.0.0.1:{urlsplit(site.url).port}/x?{self.query}", "id": "no-tls"},
            {"url": f"file:///nowhere/x?{self.query}", "id": "no-file"},
            {"url": f"strange://{self.user()}@h/x?{self.query}", "id": "strange"},
        ]

    def replies(self):
        further = f"{self.other.url}/signed?sig={self.quoted('redirect')}"
        self.other.script(f"/signed?sig={self.quoted('redirect')}", raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"))
        return {
            "fine": status(200, b"abc"),
            "told": status(200, b"abc"),
            "forbidden": status(403, b"no"),
            "unavailable": status(503, b"no", Retry_After=0),
            "reset": raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", reset=True),
            "cut": cut(b"abcdef", 3),
            "nonsense": raw(b"nonsense\r\n\r\n"),
            "two-lengths": raw(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc"),
            "empty": status(200),
            "encoded": status(200, gzip.compress(b"abc")[:-3], Content_Encoding="gzip"),
            "brotli": status(200, b"abc", Content_Encoding="br"),
            "elsewhere": status(302, Location=further),
            "nowhere": status(302, Location=f"ftp://{self.user()}@h/?sig={self.quoted('redirect')}"),
            "around": status(302, Location=f"/around?{self.query}"),
        }

    def quoted(self, name):
        return quote(self.canaries[name], safe="")

    def user(self):
        return f"{self.quoted('user')}:{self.quoted('password')}"

    def entry(self, name, reply):
        self.site.script(f"/{name}?{self.query}", reply)
        host = urlsplit(self.site.url).netloc
        return {"url": f"http://{self.user()}@{host}/{name}?{self.query}", "id": name, "headers": self.headers}

    def environment(self, folder, chunk_size, core):
        """Write manifests and luigi.cfg into a folder that is not searched for secrets; return the environment of a run."""
        (folder / "x.json").write_text(json.dumps(self.entries))
        (folder / "slow.json").write_text(json.dumps(self.slow))
        options = {
            "tells": {"phrase": self.canaries["step"], "doors": {"a": [self.canaries["step"]]}},
            "strange": {"phrase": self.canaries["scheme"]},
        }
        settings = {
            "files": folder / "x.json",
            "workers": 2,
            "chunk_size": chunk_size,
            "attempts": 2,
            "retry_wait": 0.01,
            "processor": "tells",
            "post_processors": "tells-more",
            "options": json.dumps(options),
            "debug": "true",
            "log_file": "dpp.log",
        }
        lines = [f"{name}={value}".replace("%", "%%") for name, value in settings.items()]
        (folder / "luigi.cfg").write_text("\n".join(["[core]", "log_level=DEBUG", core, "[batch:secret]", *lines]))
        proxy = f"http://{self.user()[:4]}:{self.quoted('proxy')}@{urlsplit(self.other.url).netloc}"
        return {"LUIGI_CONFIG_PATH": f"{folder}/luigi.cfg", "HTTPS_PROXY": proxy, "https_proxy": proxy}


@pytest.fixture
def batch(site):
    with http_site.serving() as other, reserved_port() as closed:
        yield Batch(site, other, closed)


EXPECTED = {
    **dict.fromkeys(("fine",), None),
    "told": "ValueError",
    "forbidden": "http-403",
    "unavailable": "http-503",
    "two-lengths": "protocol",
    "empty": "empty",
    "brotli": "encoding",
    "nowhere": "redirect",
    "around": "redirect",
    "cut": "truncated",
    "elsewhere": "truncated",
    "posted": "http-404",
    "short": "size",
    "forged": "checksum",
    "refused": "connection",
    "strange": "RuntimeError",
}


VERBS = (
    *("status", "report", "report --format jsonl", "report --format html", "export", "export --format csv", "config --batch secret"),
    *("verify", "plan --batch secret", "why told", "why strange --format json", "why elsewhere"),
)


@pytest.mark.parametrize(("name", "chunk_size", "without"), [("luigi", 8, "curl"), pytest.param("dpp", 1, "", marks=pytest.mark.slow)])
def test_secrets_of_a_batch_are_in_no_file_output_command_line_or_task(
    batch, install, command, results, tmp_path_factory, tmp_path, monkeypatch, seen, name, chunk_size, without
):
    install("tells", PLUGIN)
    monkeypatch.setenv("DPP_DISABLE_PLUGINS", without)
    (tmp_path / "scheduler").mkdir()
    with luigid(tmp_path / "scheduler") as scheduler:
        asked = tmp_path_factory.mktemp("asked")
        environment = batch.environment(asked, chunk_size, f"scheduler_url={scheduler}")
        with watched() as command_lines:
            slow = command(*COMMANDS[name], asked / "slow.json", "--read-timeout", 0.3, "--workspace", "slow", **environment)
            done = command(*COMMANDS[name], asked / "x.json", timeout=LIMIT_SECONDS, **environment)
        tasks = json.dumps(known_tasks(scheduler)).encode()
    # The files that these commands read are the same for both programs.
    ran = {verb: command("dpp", *verb.split(), **environment) for verb in VERBS if name == "dpp"}

    assert (done.returncode, slow.returncode) == (1, 1), done.stderr + slow.stderr
    assert [row["error_class"] for row in results("slow").values()] == ["timeout"]
    assert {key: row["error_class"] for key, row in results().items() if key in EXPECTED} == EXPECTED
    assert {verb: run.stderr for verb, run in ran.items() if run.returncode > 1} == {}
    texts = [*command_lines, tasks, *((run.stdout + run.stderr).encode() for run in [slow, done, *ran.values()])]
    assert found(batch.canaries, tmp_path, texts) == []
    seen(f"{len(batch.canaries)} secrets nowhere")


@pytest.mark.parametrize("run", [("dpp", "run"), ("luigi", "--module", "dpp", "RunBatch", "--files")], ids=lambda words: words[0])
@pytest.mark.parametrize("disabled", ["", "curl"])
def test_headers_of_a_batch_are_sent_and_stay_secret(site, command, manifest, tmp_path, monkeypatch, run, disabled):
    monkeypatch.setenv("DPP_DISABLE_PLUGINS", disabled)
    (tmp_path / "luigi.cfg").write_text('[RunBatch]\nuser_agent=me\nheaders={"X-Key": "header-canary"}\n')
    site.script("/a", status(403, b"your key header-canary has expired"))
    done = command(*run, manifest([{"url": site.url + "/a"}]))
    assert (done.returncode, "your key *** has expired" in done.stdout + done.stderr) == (1, True), done.stderr
    assert (site.headers("/a")[0]["x-key"], site.headers("/a")[0]["user-agent"]) == ("header-canary", "me")
    shown = command("dpp", "config").stdout + done.stdout + done.stderr
    assert "header-canary" not in shown + "".join(
        path.read_text(errors="replace") for path in Path("dpp-workspace").rglob("*") if path.is_file()
    )
    assert command("dpp", "retry").returncode == 1
    assert site.headers("/a")[-1]["x-key"] == "header-canary"
    (tmp_path / "luigi.cfg").unlink()
    assert "--headers ..." in command("dpp", "retry").stderr
