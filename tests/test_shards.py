"""Shards of a batch: their notation, which files they have, and the digest of a manifest."""

from __future__ import annotations

import pytest
from dpp.names import file_key
from dpp.shards import Census, Shard
from hypothesis import given
from hypothesis import strategies as st

KEYS = [file_key(f"f{number}", f"https://h/{number}") for number in range(1000)]


@pytest.mark.parametrize(("text", "shard"), [("3/8", (3, 8)), (" 1/1 ", (1, 1)), ("08/10", (8, 10))])
def test_a_shard_is_written_as_its_number_and_their_count(text, shard):
    assert Shard.parse(text) == Shard(*shard)
    assert Shard.parse(str(Shard(*shard))) == Shard(*shard)


@pytest.mark.parametrize("text", ["3", "0/8", "9/8", "-1/8", "1/0", "3/8/2", "3 of 8", "1.5/8", "a/b", "/", "٣/٨", "1/9999999"])
def test_what_is_no_shard_is_refused_with_advice(text):
    with pytest.raises(ValueError, match="should be NUMBER/COUNT, such as 3/8 for the third of 8 shards") as caught:
        Shard.parse(text)
    assert repr(text) in str(caught.value)


@given(st.integers(1, 50))
def test_each_file_is_in_one_shard(count):
    shards = [Shard(number, count) for number in range(1, count + 1)]
    assert [sum(shard.has(key) for shard in shards) for key in KEYS[:100]] == [1] * 100


def test_shards_have_about_the_same_number_of_files():
    sizes = [sum(Shard(number, 8).has(key) for key in KEYS) for number in range(1, 9)]
    assert min(sizes) > 90
    assert max(sizes) < 160


def census(keys, shard="1/2") -> Census:
    made = Census(Shard.parse(shard))
    for key in keys:
        made.takes(key)
    return made


def test_the_digest_of_a_manifest_depends_on_neither_order_nor_shard():
    assert census(KEYS).digest() == census(reversed(KEYS), "5/7").digest()


@pytest.mark.parametrize("keys", [KEYS[1:], [*KEYS, KEYS[0]], [*KEYS[1:], file_key("other", "https://h/0")]])
def test_the_digest_of_another_manifest_is_another(keys):
    assert census(keys).digest() != census(KEYS).digest()


def test_a_file_that_the_destination_has_counts_in_the_digest_and_in_its_own_shard():
    made = census(KEYS[10:])
    for key in KEYS[:10]:
        made.skip(key)
    assert made.digest() == census(KEYS).digest()
    assert made.skipped == sum(Shard(1, 2).has(key) for key in KEYS[:10])
