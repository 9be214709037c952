"""Texts, character by character."""

import numpy as np
import pytest

from mlhf.core.errors import DataError, SpecError
from mlhf.data import text
from mlhf.data.params import TextParams
from mlhf.data.specs import DATASETS, describe, validate

hypothesis = pytest.importorskip("hypothesis")
given, st = hypothesis.given, hypothesis.strategies


def read(root, **params):
    return DATASETS["text"].read(TextParams(**params), root)


def decoded(arrays, split):
    return "".join(arrays.notes["characters"][token] for token in split.inputs)


def test_the_splits_are_the_beginning_and_the_end(tmp_path):
    content = "Häuser\r\nund Bäume 🌳\n" * 20
    (tmp_path / "input.txt").write_bytes(content.encode())
    arrays = read(tmp_path, sequence_length=7)
    assert decoded(arrays, arrays.train) + decoded(arrays, arrays.test) == content
    assert len(arrays.test.inputs) == round(len(content) / 10)
    info = describe("text", {"sequence_length": 7}, tmp_path)
    assert info == arrays.info == validate("text", {"sequence_length": 7}, tmp_path)
    assert info.vocabulary == info.outputs == len(set(content))
    assert info.train_samples == (len(arrays.train.inputs) - 1) // 7


def test_samples_lie_side_by_side_with_a_character_after_the_last(tmp_path):
    (tmp_path / "input.txt").write_text("ab" * 100)
    arrays = read(tmp_path, sequence_length=9, test_fraction=0.5)
    assert arrays.train.targets.tolist() == list(range(0, 99, 9))
    assert arrays.train.targets[-1] + 9 < len(arrays.train.inputs)
    assert len(read(tmp_path, sequence_length=9, train_samples=3).train.targets) == 3


def test_the_parts_for_meta_training_and_comparing_do_not_meet(tmp_path):
    (tmp_path / "input.txt").write_text("ab" * 100)
    whole, meta, compare = (
        read(tmp_path, sequence_length=9, test_fraction=0.5, split=split)
        for split in ("all", "meta", "compare")
    )
    both = [*meta.train.targets, *compare.train.targets]
    assert both == whole.train.targets.tolist()
    assert (meta.info.train_samples, compare.info.train_samples) == (7, 4)
    assert meta.train.targets[-1] + 9 <= compare.train.targets[0]
    assert len(meta.test.targets) == len(compare.test.targets) == len(whole.test.targets)


@given(content=st.text(min_size=30, max_size=80), chunk=st.integers(1, 9))
def test_characters_are_never_cut_between_chunks(tmp_path_factory, content, chunk):
    content = "ab" + content.replace("\0", "")
    path = tmp_path_factory.mktemp("text") / "input.txt"
    path.write_bytes(content.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text, "_CHUNK", chunk)
        arrays = read(path, sequence_length=1)
    assert decoded(arrays, arrays.train) + decoded(arrays, arrays.test) == content


def test_a_byte_order_mark_is_no_character(tmp_path):
    (tmp_path / "input.txt").write_bytes(b"\xef\xbb\xbf" + b"ab" * 50)
    assert read(tmp_path, sequence_length=2).notes["characters"] == "ab"


def test_many_characters_need_wider_tokens(tmp_path):
    content = "".join(map(chr, range(200, 1200)))
    (tmp_path / "input.txt").write_bytes(content.encode())
    arrays = read(tmp_path, sequence_length=2)
    assert decoded(arrays, arrays.train) + decoded(arrays, arrays.test) == content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "at least 2 different"),
        (b"aaaa" * 100, "at least 2 different"),
        (b"\xff\xfea\0b\0", "not UTF-8"),
        (b"abc" * 100 + b"\xc3", "not UTF-8"),
        (b"ab\0" * 100, "NUL"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, content, message):
    (tmp_path / "input.txt").write_bytes(content)
    with pytest.raises(DataError, match=message):
        describe("text", {}, tmp_path)


def test_a_short_text_points_to_the_sequence_length(tmp_path):
    (tmp_path / "input.txt").write_text("ab" * 100)
    with pytest.raises(SpecError, match="only 20 characters") as caught:
        describe("text", {"sequence_length": 64}, tmp_path)
    assert caught.value.pointer == "/params/sequence_length"


def test_too_many_characters_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(text, "MAX_VOCABULARY", 10)
    (tmp_path / "input.txt").write_text("abcdefghijk")
    with pytest.raises(DataError, match="more than 10 different"):
        describe("text", {}, tmp_path)


def test_the_real_text(real_data):
    arrays = read(real_data("tinyshakespeare"))
    assert arrays.info.vocabulary == 65
    assert decoded(arrays, arrays.train).startswith("First Citizen:\n")
    assert arrays.train.inputs.dtype == np.uint8
