"""Keys of objects."""

from __future__ import annotations

from pathlib import Path

import pytest
from dpp import FileData, StageError

from dpp_s3.keys import Upload, fields_of, key_for, uploads


def key(template, name="Report.v2.CSV", prefix="", **fields):
    file = FileData(**{"url": "https://example.org/q", "id": "acme/7", "provider": "acme", "count": 3, **fields})
    return key_for(template, prefix, Upload(Path(name), name), file, "5" * 64)


@pytest.mark.parametrize(
    ("template", "made"),
    [
        ("{name}", "Report.v2.CSV"),
        ("data/{ext}/{provider}/{name}", "data/csv/acme/Report.v2.CSV"),
        ("{stem}-{count}.{ext}", "Report.v2-3.csv"),
        ("{id}/{sha256}", f"acme/7/{'5' * 64}"),
        ("{{x}}/{name}", "{x}/Report.v2.CSV"),
        ("{size}", "12"),
    ],
)
def test_a_template_is_filled(template, made):
    assert key(template, size=12) == made


@pytest.mark.parametrize(("name", "made"), [("README", "none/README"), ("a/b.TAR", "tar/a/b"), (".hidden", "none/.hidden"), ("ü.Ä", "ä/ü")])
def test_a_name_without_extension_has_none(name, made):
    assert key("{ext}/{stem}", name) == made


def test_a_prefix_is_no_template():
    assert key("{name}", "a", prefix="{name}/") == "{name}/a"


@pytest.mark.parametrize(
    ("template", "fields", "problem"),
    [
        ("{missing}", {}, "the field 'missing', which is missing"),
        ("{size}", {}, "the field 'size', which is missing"),
        ("{provider}/{name}", {"provider": ""}, "the field 'provider', which is empty"),
        ("{provider}/{name}", {"provider": ["a"]}, "the field 'provider', which is neither text nor a number"),
        ("{provider}/{name}", {"provider": "../etc"}, "has . or .. between slashes"),
        ("{provider}/{name}", {"provider": "a/."}, "has . or .. between slashes"),
        ("{provider}/{name}", {"provider": "/etc"}, "starts with a slash"),
        ("{provider}/{name}", {"provider": "a/"}, "has an empty part"),
        ("{name}/{provider}", {"provider": "a/"}, "has an empty part"),
        ("{provider}", {"provider": "a\nb"}, "has a control character"),
        ("{provider}", {"provider": "a\x85b"}, "has a control character"),
        ("{provider}", {"provider": "x" * 1025}, "is longer than 1024 bytes"),
        ("{provider}", {"provider": "ü" * 513}, "is longer than 1024 bytes"),
    ],
)
def test_a_bad_key_fails_its_file(template, fields, problem):
    with pytest.raises(StageError, match=problem) as caught:
        key(template, **fields)
    assert caught.value.error_class == "s3-key"


def test_a_name_that_is_no_unicode_is_refused():
    with pytest.raises(StageError, match="is not valid Unicode"):
        key("{name}", "a\udcff")


@pytest.mark.parametrize("template", ["{", "{}", "{0}", "{name!r}", "{name:>9}", "{name.x}", "{name[0]}", "{url}", "{headers}", "x", ""])
def test_a_template_that_never_makes_a_key_is_refused(template):
    with pytest.raises(ValueError, match=r"expected a template|expected plain fields|is not allowed in a key|has no field"):
        fields_of(template)


def test_a_folder_is_its_regular_files(tmp_path):
    folder = tmp_path / "made"
    for name in ("b/c.csv", "a.csv", "b/a"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    (folder / "link").symlink_to("/etc/passwd")
    (folder / "b" / "up").symlink_to("..")
    (folder / "empty").mkdir()
    assert [upload.name for upload in uploads(folder)] == ["made/a.csv", "made/b/a", "made/b/c.csv"]
    (folder / "a.csv").unlink()
    (folder / "b" / "a").unlink()
    assert uploads(folder) == [Upload(folder / "b" / "c.csv", "b/c.csv")]


def test_a_folder_without_files_is_a_failure(tmp_path):
    with pytest.raises(StageError, match=r"nothing to upload: the folder .* has no regular files"):
        uploads(tmp_path)
