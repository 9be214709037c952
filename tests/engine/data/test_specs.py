"""The registry of data sets: parameters and what is common to all families."""

import pytest

from mlhf.core.errors import DataError, SpecError
from mlhf.data.formats import UPLOAD_FORMATS
from mlhf.data.info import DataInfo
from mlhf.data.specs import (
    DATASETS,
    describe,
    digest,
    validate,
)


@pytest.mark.parametrize(
    ("name", "params", "pointer"),
    [
        ("nothing", {}, "/name"),
        ("digits", {"size": 8}, "/params/size"),
        ("digits", {"train_samples": 0}, "/params/train_samples"),
        ("digits", {"train_samples": 1.5}, "/params/train_samples"),
        ("cifar10", {"size": 24}, "/params/size"),
        ("cifar10", {"split": "half"}, "/params/split"),
        ("mnist", {"size": 7}, "/params/size"),
        ("hf_images", {"size": 513}, "/params/size"),
        ("image_folder", {"channels": 2}, "/params/channels"),
        ("npz", {"test_fraction": 1}, "/params/test_fraction"),
        ("table", {}, "/params/target"),
        ("table", {"target": "y", "ignore": ["a", 1]}, "/params/ignore/1"),
        ("text", {"sequence_length": 0}, "/params/sequence_length"),
    ],
)
def test_the_pointer_leads_to_the_mistake(name, params, pointer):
    with pytest.raises(SpecError) as caught:
        DATASETS.parse(name, params)
    assert caught.value.pointer == pointer


def test_what_is_not_built_in_can_be_uploaded():
    assert {name for name, spec in DATASETS.items() if not spec.builtin} == set(UPLOAD_FORMATS)


@pytest.mark.parametrize("name", DATASETS)
def test_every_parameter_is_described(name):
    schema = DATASETS[name].params.model_json_schema()
    assert all("description" in field for field in schema["properties"].values())
    assert DATASETS[name].description.endswith(".")


@pytest.mark.parametrize("name", [n for n, spec in DATASETS.items() if spec.needs_root])
@pytest.mark.parametrize("use", [describe, validate, digest])
def test_absent_files_are_a_data_error(tmp_path, name, use):
    params = {"target": "y"} if name == "table" else {}
    for root in (None, tmp_path, tmp_path / "absent"):
        with pytest.raises(DataError):
            use(name, params, root)


def test_info_survives_json():
    info = DataInfo("image", (3, 4, 5), 2, "classification", 7, 8, class_names=("a", "b"))
    assert DataInfo.from_dict(info.to_dict()) == info
    info = DataInfo("text", (9,), 5, "language", 7, 8, vocabulary=5)
    assert DataInfo.from_dict(info.to_dict()) == info


def test_a_digest_depends_on_content_alone(tmp_path):
    digests = []
    for folder, text in (("a", "abcd" * 50), ("b", "abcd" * 50), ("c", "abce" * 50)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "input.txt").write_text(text)
        digests.append(digest("text", {"sequence_length": 3}, tmp_path / folder))
    assert digests[0] == digests[1] != digests[2]
    assert len(digests[0]) == 64


@pytest.mark.parametrize(
    ("name", "params", "pointer", "message"),
    [
        ("image_folder", {"size": [28, 2]}, "/params/size/1", "greater than or equal to 4"),
        ("image_folder", {"size": 2}, "/params/size", "greater than or equal to 4"),
        ("table", {"target": ["a", ""]}, "/params/target/1", "at least 1 character"),
        ("table", {"target": "a", "missing_values": [1]}, "/params/missing_values/0", "text"),
    ],
)
def test_of_a_field_of_several_types_the_error_is_of_the_type_meant(name, params, pointer, message):
    with pytest.raises(SpecError, match=message) as refused:
        DATASETS.parse(name, params)
    assert refused.value.pointer == pointer
