"""Where in a request an error is."""

from mlhf_service.kit.problems import pointer_of


def test_a_location_in_the_body_becomes_a_json_pointer() -> None:
    assert pointer_of(("body", "tasks", 1, "a/b~c")) == "/tasks/1/a~1b~0c"
    assert pointer_of(("body",)) == pointer_of(()) == ""


def test_tags_of_unions_are_left_out() -> None:
    assert pointer_of(("body", "train", "budget", "steps"), {"train"}) == "/budget/steps"


def test_a_parameter_is_given_by_its_name() -> None:
    assert pointer_of(("query", "limit")) == "limit"
    assert pointer_of(("query",)) == "query"
