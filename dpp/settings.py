"""The settings of a batch; Luigi's parameters and the options of ``dpp run`` are derived from them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import ErrorDetails, from_json

from dpp import media, names
from dpp.errors import ConfigurationError
from dpp.headers import BatchHeaders, check_headers
from dpp.redact import declared_secrets, keep_secret
from dpp.shards import Shard

_UNITS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}
_BYTES = re.compile(r"(\d+(?:\.\d+)?)\s*([kmg]?)(?:i?b)?", re.IGNORECASE | re.ASCII)


def _byte_count(value: Any) -> Any:
    """Return a number of bytes; K, M and G stand for powers of 1024."""
    # curl, wget and aria2 use the same units.
    if not isinstance(value, str):
        return value
    match = _BYTES.fullmatch(value.strip())
    if match is None:
        raise ValueError("should be a number of bytes such as 500K, 20M or 1.5G")
    return round(float(match[1]) * _UNITS[match[2].lower()])


_URL_AS_PATH = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:/")
ByteCount = Annotated[int, BeforeValidator(_byte_count)]
Options = TypeVar("Options", bound=BaseModel)
_PLAIN = {
    "missing": " is missing",
    "bool_parsing": ": should be true or false",
    "int_parsing": ": should be a whole number",
    "float_parsing": ": should be a number",
}

WORKSPACE_VARIABLE, CACHE_VARIABLE = "DPP_WORKSPACE", "CACHE_DIR"
SMALLEST_CHUNK = 4
WELL_FILLED = 1000
ROUNDS = (2, 8)


class Settings(BaseModel):
    """The settings of a batch, with their defaults. Times are in seconds, sizes in bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    workspace: Path = Field(Path("dpp-workspace"), validate_default=True, description="folder for downloads, results and reports")
    pre_processors: tuple[str, ...] = Field((), description="pre-processors, in order: NAME,NAME or MODULE:CLASS")
    processor: str = Field("checksum", description="processor: NAME or MODULE:CLASS")
    post_processors: tuple[str, ...] = Field((), description="post-processors, in order: NAME,NAME or MODULE:CLASS")
    options: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description='plugin options as JSON: {"line-count": {"skip_blank": true}}'
    )
    shard: str = Field("", description="run one of several parts of the manifest: 3/8 is the third of 8 shards (none: all files)")
    skip_existing: str = Field("", description="skip files that exist in this destination: a folder, or a source such as s3://bucket/data/")
    skip_bad: bool = Field(default=False, description="continue despite invalid manifest entries; each is reported as failed")
    allow_empty: bool = Field(default=False, description="accept a manifest, folder or source without files")
    encoding: str = Field("", description="encoding of a manifest without a byte order mark, such as windows-1252 (none: UTF-8)")
    deny_private: bool = Field(
        default=False, description="refuse files of this machine and servers without a public address, for lists from strangers"
    )
    cleanup: bool = Field(default=False, description="remove the download and pre-processed output of each file that is ok")
    executor: str = Field(
        "", description="NAME of the executor that runs the chunks of a batch, such as processes (empty: Luigi's workers)"
    )
    lost_after: float = Field(
        30.0, gt=0, description="seconds without a sign of life after which a chunk that an executor runs is submitted again"
    )
    chunk_size: int = Field(0, ge=0, description="files per Luigi task (1: one task per file and stage; 0: automatic)")
    download_threads: int = Field(14, ge=1, description="maximum downloads at once per worker")
    processing_limit: int = Field(4, ge=1, description="maximum files processed at once per worker")
    download_queue_size: int = Field(16, ge=1, description="maximum downloaded files waiting per worker")
    pre_processing_queue_size: int = Field(16, ge=1, description="maximum pre-processed files waiting per worker")
    expect_type: str = Field(
        "", description="allowed media types of downloads, such as application/pdf or image/*,text/csv; others fail (empty: any)"
    )
    max_per_host: int = Field(0, ge=0, description="maximum downloads at once per host, over all workers (0: no limit)")
    rate_limit: ByteCount = Field(
        0, ge=0, description="maximum bytes per second, all downloads together, such as 500K or 20M (0: no limit)"
    )
    max_bytes: ByteCount = Field(
        0,
        ge=0,
        description="maximum bytes of a download, such as 20G (0: half of the free space at the start, unless the manifest has its size)",
    )
    user_agent: str = Field("", description="User-Agent of HTTP requests, such as 'Example Ltd data@example.org' (default: dpp's own)")
    headers: dict[str, Any] = Field(
        default_factory=dict,
        description='headers of HTTP requests as JSON, for all hosts or by host: {"X-Key": "...", "api.example.org": {"X-Key": "..."}}',
    )
    attempts: int = Field(3, ge=1, description="maximum attempts per URL")
    retry_wait: float = Field(0.5, ge=0, description="seconds before the second attempt; doubles each time, with jitter")
    retry_wait_max: float = Field(30.0, ge=0, description="maximum seconds between attempts")
    retry_after_max: float = Field(60.0, ge=0, description="maximum seconds to wait for a server's Retry-After")
    connect_timeout: float = Field(10.0, gt=0, description="maximum seconds to connect")
    read_timeout: float = Field(60.0, gt=0, description="maximum seconds without data from the server")
    stall_timeout: float = Field(60.0, gt=0, description="maximum seconds for a download below 1 KiB/s")
    total_timeout: float = Field(0.0, ge=0, description="maximum seconds per attempt (0: no limit)")
    stage_timeout: float = Field(0.0, ge=0, description="maximum seconds per stage and file, retries included (0: no limit)")
    simulate_downloads: bool = Field(default=False, description="download nothing: sleep 1 to 3 seconds per file and create a placeholder")
    debug: bool = Field(default=False, description="detailed logs with thread names")
    log_file: str = Field("", description="append the log, with Luigi's, to this file")
    quiet: bool = Field(default=False, description="show no progress, only errors and the summary")
    json_lines: bool = Field(default=False, description="write events to standard output as JSON Lines")

    @field_validator("workspace")
    @classmethod
    def _workspace_is_absolute(cls, path: Path) -> Path:
        if _URL_AS_PATH.match(str(path)):
            raise ValueError("is a URL; expected a local folder")
        try:
            path = Path(os.path.abspath(path.expanduser()))
        except RuntimeError as error:
            raise ValueError("starts with ~ and an unknown user name") from error
        _check_path(str(path))
        return path

    @field_validator("expect_type")
    @classmethod
    def _types_can_be_expected(cls, types: str) -> str:
        return media.check_types(types)

    @field_validator("log_file")
    @classmethod
    def _log_file_can_be_named(cls, path: str) -> str:
        _check_path(path)
        return path

    @field_validator("encoding")
    @classmethod
    def _encoding_is_known(cls, encoding: str) -> str:
        try:
            "".encode(encoding or "utf-8")
        except (LookupError, ValueError) as error:
            raise ValueError("is not an encoding of text; expected a name such as windows-1252, shift_jis or utf-16-le") from error
        return encoding

    @field_validator("options")
    @classmethod
    def _options_are_json(cls, options: dict[str, dict[str, Any]]) -> Any:
        """Return the options as plain JSON values."""
        # Every process of the run must get equal values, however the user gave them.
        try:
            text = json.dumps(options, ensure_ascii=False, allow_nan=False, default=_plain)
            return from_json(text)
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError("contains a value that JSON cannot represent") from error

    @field_validator("shard")
    @classmethod
    def _shard_is_one(cls, text: str) -> str:
        return str(Shard.parse(text)) if text else ""

    @field_validator("user_agent")
    @classmethod
    def _user_agent_can_be_sent(cls, value: str) -> str:
        check_headers({"User-Agent": value})
        return value

    @field_validator("headers")
    @classmethod
    def _headers_can_be_sent(cls, headers: dict[str, Any]) -> dict[str, Any]:
        """Check the headers, and mask their values in all texts from now on."""
        keep_secret(BatchHeaders(headers).secrets())
        return {name: dict(value) if isinstance(value, Mapping) else value for name, value in headers.items()}

    def options_for(self, name: str, model: type[Options]) -> Options:
        """Return the options of a fetcher or a source, given under its URL scheme.

        Args:
            name: The URL scheme, as in ``--options '{"sftp": {...}}'`` or in a section of luigi.cfg.
            model: A pydantic model with one field per option.

        Raises:
            ConfigurationError: An option is unknown or invalid; it lists all problems.
        """
        try:
            made = model.model_validate(self.options.get(name, {}))
            keep_secret(declared_secrets(made))
            return made
        except ValidationError as error:
            raise wrong_options(name, error, model) from error

    def chunk_size_for(self, total: int, workers: int) -> int:
        """Return the number of files per chunk; 1 means that every file gets its own tasks.

        Args:
            total: Number of files in the batch.
            workers: Number of processes that work on it.
        """
        if self.chunk_size:
            return self.chunk_size
        if total <= workers:
            return 1
        # A chunk costs about 10 ms for its process, and Luigi's scheduler walks all tasks at every request; but a worker without
        # a chunk waits for the others. So each worker gets two chunks, or up to eight of a thousand files each. With four workers,
        # 10,000 files took 3.1 s in 32 chunks, and 2.5 s in 8. One worker alone waits for no others.
        rounds = min(max(total // (workers * WELL_FILLED), ROUNDS[0] if workers > 1 else 1), ROUNDS[1])
        size = -(-total // (workers * rounds))
        # The threads of a chunk with a few more files than threads would wait for these.
        if workers > 1 and size < 2 * self.download_threads:
            size = min(self.download_threads, -(-total // workers))
        return max(1 if self.executor else SMALLEST_CHUNK, size)


def _plain(value: Any) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"JSON cannot represent {type(value).__name__}")


def _check_path(path: str) -> None:
    if "\0" in path or path.encode("utf-8", "ignore").decode() != path:
        raise ValueError("is not a valid UTF-8 path; use another one")


def merged_options(*several: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Merge plugin options from several places, option by option; the later place wins."""
    merged: dict[str, dict[str, Any]] = {}
    for options in several:
        for plugin, values in options.items():
            merged.setdefault(plugin, {}).update(values)
    return merged


def default_settings() -> Settings:
    """Return the settings with their defaults."""
    try:
        return Settings()
    except FileNotFoundError:
        # The default of the workspace is relative to the current folder, which was removed.
        return Settings(workspace=Path("/"))


def make_settings(values: dict[str, Any]) -> Settings:
    """Return the settings, or raise ConfigurationError with all invalid values."""
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise ConfigurationError("\n".join(describe(error, Settings, "setting"))) from error


def workspace_variable(name: str) -> str:
    """Return the workspace that an environment variable names; "" if it is not set or empty.

    Raises:
        ConfigurationError: Its value cannot be a workspace.
    """
    if not (text := os.environ.get(name, "")):
        return ""
    try:
        return str(Settings(workspace=Path(text)).workspace)
    except ValidationError as error:
        raise ConfigurationError(f"{name}: {describe(error, Settings)[0].removeprefix('workspace: ')}") from error


def wrong_options(name: str, error: ValidationError, model: type[Any]) -> ConfigurationError:
    """Return an error with all invalid options of a plugin, whose class is used for suggestions."""
    problems = "\n".join(f"  {problem}" for problem in describe(error, model))
    return ConfigurationError(f"options of {name}:\n{problems}")


def describe(error: ValidationError, model: type[Any] | None = None, noun: str = "option") -> list[str]:
    """Return one sentence per problem: the field, and its problem.

    Args:
        error: The error.
        model: The class, whose fields are suggested in place of an unknown one.
        noun: The word for its fields in the messages.
    """
    fields = getattr(model, "model_fields", {})
    details = error.errors(include_url=False)
    return [_sentence(detail, noun) + _instead(detail, fields) for detail in details]


def _instead(detail: ErrorDetails, fields: Collection[str]) -> str:
    """Return a suggestion for an unknown field; "" for other problems."""
    unknown = detail["type"] == "extra_forbidden" and len(detail["loc"]) == 1
    return f"; {names.suggestion(str(detail['loc'][0]), fields)}" if unknown and fields else ""


def _sentence(detail: ErrorDetails, noun: str) -> str:
    kind, value, field = detail["type"], detail["input"], ".".join(map(str, detail["loc"])) or "value"
    if kind == "extra_forbidden":
        return f"unknown {noun} {field!r}"
    if kind in _PLAIN:
        return f"{field}{_PLAIN[kind]}"
    message = detail["msg"].removeprefix("Value error, ").removeprefix("Input ")
    is_number = isinstance(value, (bool, int, float)) or kind.startswith(("greater_than", "less_than"))
    got = "" if kind == "value_error" else f", got {value if is_number else type(value).__name__}"
    return f"{field}: {message}{got}"
