"""The settings of a folder-watching pipeline: its JSON file of credentials, and its cache folder in a variable."""

from __future__ import annotations

import json

import pytest

# As that system's manual shows it, except for the values.
CREDENTIALS = """{{
    "token": {token},
    "secret": {secret},
    "endpoint_url": {endpoint_url}
}}
"""


@pytest.fixture
def credentials(store, tmp_path):
    """A file of credentials as that system has it."""
    server = store.server
    values = {"token": server.access_key, "secret": server.secret_key, "endpoint_url": server.endpoint_url}
    path = tmp_path / "credentials.json"
    path.write_text(CREDENTIALS.format(**{name: json.dumps(value) for name, value in values.items()}))
    return path


@pytest.mark.parametrize("place", ["credentials.json", "~/credentials.json", "absolute"])
def test_the_credentials_and_the_cache_folder_are_all_that_is_needed(store, credentials, command, tmp_path, place):
    """Local files become objects, and objects are listed and fetched, in the workspace of CACHE_DIR."""
    options = f"credentials_file={credentials if place == 'absolute' else place}\n"
    (tmp_path / "luigi.cfg").write_text(f"[s3]\n{options}[s3-upload]\nbucket={store.bucket}\nkey=out/{{name}}\n")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.nc").write_bytes(b"\x89HDF")
    up = command("dpp", "run", "in", "--post-processors", "s3-upload", CACHE_DIR="cache", HOME=str(tmp_path))
    assert up.returncode == 0, up.stderr
    assert store.objects() == {"out/a.nc": b"\x89HDF"}
    down = command("dpp", "run", f"s3://{store.bucket}/out/?pattern=*.nc", CACHE_DIR="cache", HOME=str(tmp_path))
    assert down.returncode == 0, down.stderr
    assert len(list(tmp_path.glob("cache/downloads/*/*/a.nc"))) == 2
    assert not (tmp_path / "dpp-workspace").exists()
    assert store.server.secret_key not in up.stdout + up.stderr + down.stdout + down.stderr


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"token": <Token generated using the Portal>, "secret": "canary"}', "Invalid JSON: expected value at line 1"),
        ('{"secret": "canary", "endpoint_url": "https://h"}', "token Field required"),
        ('{"token": "t", "secret": "canary", "endpoint": "https://h"}', "endpoint Extra inputs are not permitted"),
        ('{"token": "t", "secret": "canary", "endpoint_url": "h:9000"}', "endpoint_url Value error, expected a URL such as"),
    ],
)
def test_a_wrong_file_of_credentials_ends_the_run_before_anything_is_fetched(command, tmp_path, text, problem):
    (tmp_path / "credentials.json").write_text(text)
    (tmp_path / "luigi.cfg").write_text("[s3]\ncredentials_file=credentials.json\n")
    run = command("dpp", "run", "s3://bucket/in/")
    assert run.returncode == 2
    assert problem in run.stderr
    assert "canary" not in run.stdout + run.stderr
