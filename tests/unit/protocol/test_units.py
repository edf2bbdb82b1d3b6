"""Sizes and durations as people write them."""

import pytest

from topod.protocol.units import format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("700", 700),
        ("700b", 700),
        ("512m", 512 << 20),
        ("8G", 8 << 30),
        ("8GiB", 8 << 30),
        ("8 gb", 8 << 30),
        ("1.5g", 3 << 29),
        ("2T", 2 << 40),
        ("4k", 4096),
    ],
)
def test_sizes_are_powers_of_1024_as_in_docker(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "G", "-1", "8X", "8Gi B", "1.5", "1e9", "8G8G", "99999999T", "0x10"])
def test_what_is_no_size_is_refused_with_the_text(text: str) -> None:
    with pytest.raises(ValueError, match="not a size") as caught:
        parse_size(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("0", 0),
        ("1.5", 1.5),
        ("30s", 30),
        ("5m", 300),
        ("2h", 7200),
        ("1h30m", 5400),
        ("2d", 172800),
        ("1D12H", 129600),
        ("90:00", 5400),
        ("1:30:00", 5400),
        ("1-12", 129600),
        ("1-12:30", 131400),
        ("1-12:00:00", 129600),
    ],
)
def test_durations_are_seconds_units_or_what_slurm_writes(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    ["", "m", "-5", "5m5m", "5s1m", "5 m", "1:60", "1:60:00", "1-24", "1-25:00", "1-", "9999999999", "inf"],
)
def test_what_is_no_duration_is_refused_with_the_text(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration") as caught:
        parse_duration(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-3, "0s"),
        (0.9, "0s"),
        (59.9, "59s"),
        (60, "1m00s"),
        (192, "3m12s"),
        (18420, "5h07m"),
        (183600, "2d03h"),
    ],
)
def test_durations_are_told_in_their_two_largest_units(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(("size", "text"), [(700, "700B"), (8 << 30, "8G"), (3 << 29, "1.5G"), (4096, "4K")])
def test_sizes_are_told_in_their_largest_unit(size: int, text: str) -> None:
    assert format_size(size) == text
