"""Files that are truncated, altered or hostile: a CheckpointError, and no memory for what is not there."""

import struct
import tracemalloc
from contextlib import suppress

import pytest

from pellucid.errors import CheckpointError
from pellucid.interop.gguf import read_gguf
from pellucid.interop.gguf.container import read_container

HEADER = b"GGUF" + struct.pack("<I", 3)
HUGE = 2**60


def string(text):
    return struct.pack("<Q", len(text.encode())) + text.encode()


def counts(tensors, keys):
    return HEADER + struct.pack("<QQ", tensors, keys)


def tensor(name="t", shape=(32,), kind=0, offset=0):
    numbers = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
    return string(name) + numbers + struct.pack("<IQ", kind, offset)


def refuse(path, content, words):
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match=words) as refused:
            read_gguf(path)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()
    assert str(path) in str(refused.value)


def test_a_file_cut_off_anywhere_is_refused(written, tmp_path):
    whole = written("llama", "q8_0", vocab_size=320).read_bytes()
    path = tmp_path / "cut.gguf"
    for size in [*range(40), *range(40, len(whole), len(whole) // 60), len(whole) - 1]:
        path.write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match=r"cut\.gguf"):
            read_gguf(path)


def test_flipped_bytes_of_the_header_never_give_a_traceback(written, tmp_path):
    whole = bytearray(written("llama", "f32").read_bytes())
    path = tmp_path / "flipped.gguf"
    for at in range(4, 1500, 7):
        whole[at] ^= 0xFF
        path.write_bytes(whole)
        with suppress(CheckpointError):
            read_gguf(path)
        whole[at] ^= 0xFF


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no GGUF file"),
        (b"PK\x03\x04" + bytes(60), "does not begin with 'GGUF'"),
        (b"GGUF" + struct.pack("<IQQ", 99, 0, 0), "version 99"),
        (counts(HUGE, 0), "truncated"),
        (counts(0, HUGE), "truncated"),
        (counts(0, 1) + struct.pack("<Q", HUGE), "truncated"),
        (counts(0, 1) + string("k") + struct.pack("<IIQ", 9, 4, HUGE), "truncated"),
        (counts(0, 1) + string("k") + struct.pack("<IIQ", 9, 8, HUGE), "truncated"),
        (counts(0, 1) + string("k") + struct.pack("<IIQ", 9, 9, 1) + bytes(90), "type 9, which is not known"),
        (counts(0, 1) + string("k") + struct.pack("<I", 77), "type 77, which is not known"),
        (counts(0, 1) + struct.pack("<Q", 2) + b"\xff\xfe" + bytes(30), "not UTF-8"),
        (counts(0, 1) + string("general.alignment") + struct.pack("<II", 4, 0), "general.alignment"),
        (counts(1, 0) + tensor(shape=(HUGE,)) + bytes(999), "t needs"),
        (counts(1, 0) + tensor(shape=(HUGE, HUGE)) + bytes(999), "t needs"),
        (counts(1, 0) + tensor(offset=HUGE) + bytes(999), "t needs"),
        (counts(1, 0) + tensor(shape=()) + bytes(999), "0 dimensions"),
        (counts(1, 0) + tensor(shape=(1,) * 5) + bytes(999), "5 dimensions"),
        (counts(1, 0) + tensor(shape=(0,)) + bytes(999), "does not fit blocks"),
        (counts(1, 0) + tensor(shape=(31,), kind=8) + bytes(999), "does not fit blocks of 32"),
        (counts(1, 0) + tensor(kind=200) + bytes(999), "format 200"),
        (counts(2, 0) + tensor() + tensor() + bytes(999), "t: is there twice"),
        (counts(0, 0), "architecture None"),
    ],
)
def test_refused(tmp_path, content, words):
    refuse(tmp_path / "bad.gguf", content, words)


def test_no_file_and_a_directory_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no such file"):
        read_gguf(tmp_path / "none.gguf")
    with pytest.raises(CheckpointError, match="no GGUF file"):
        read_gguf(tmp_path)


def test_values_of_every_type_are_read(tmp_path):
    values = [
        (0, "B", 200),
        (1, "b", -3),
        (2, "H", 9),
        (3, "h", -9),
        (4, "I", 7),
        (5, "i", -7),
        (6, "f", 0.5),
    ]
    values += [(7, "?", True), (10, "Q", 2**40), (11, "q", -(2**40)), (12, "d", 0.1)]
    content = counts(0, len(values) + 1)
    for kind, letter, value in values:
        content += string(letter) + struct.pack(f"<I{letter}", kind, value)
    content += string("list") + struct.pack("<IIQ", 9, 8, 2) + string("a b") + string("ü")
    path = tmp_path / "values.gguf"
    path.write_bytes(content)
    expected = {letter: value for _, letter, value in values} | {"list": ["a b", "ü"]}
    assert read_container(path).metadata == expected


def test_a_format_that_cannot_be_computed_back_is_refused_by_name(tmp_path):
    path = tmp_path / "integers.gguf"
    path.write_bytes(counts(1, 0) + tensor(kind=24) + bytes(200))  # I8
    (stored,) = read_container(path).tensors.values()
    with pytest.raises(CheckpointError, match="t: numbers in the format I8"):
        stored.dequantized("t")
