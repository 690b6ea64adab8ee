"""What a run came to: the floor it lies below, what people are told, what lies in the file."""

import json

import pytest

from tacit.errors import TacitError
from tacit.training.summary import FILE, Summary

FLOORS = {"most frequent class": 0.1, "pixels": 0.75, "start encoder": 0.6}
REMEDIES = ("an encoder that has learned", "more steps (--epochs)", "more labels", "other views")


def summary(averaged=0.7, trained=0.5, kept="averaged", floors=FLOORS, **more):
    candidates = {"averaged": averaged, "trained": trained}
    given = {"score": "balanced_accuracy", "held_out": 40, "remedies": REMEDIES, **more}
    return Summary(kept=kept, candidates=candidates, floors=floors, **given)


@pytest.mark.parametrize(
    ("found", "name"),
    [
        (summary(0.7), "pixels"),
        (summary(0.05), "pixels"),  # the best of those that it is below
        (summary(0.75), None),  # as good is not below
        (summary(0.76), None),
        (summary(0.8, 0.2, kept="trained"), "pixels"),  # what counts is the network that is kept
        (summary(0.2, 0.8, kept="trained"), None),
        (summary(0.7, floors={}), None),
        (summary(0.5, floors={"a": 0.1, "start encoder": 0.9, "b": 0.3}), "start encoder"),
        (Summary("balanced_accuracy", 0, "averaged", floors=FLOORS), None),
        (Summary("balanced_accuracy", 0, "averaged"), None),
    ],
)
def test_above_is_the_best_floor_that_is_higher(found, name):
    assert found.above == name
    assert any("warning" in line for line in found.lines()) is (name is not None)


def test_the_last_line_names_two_remedies_of_a_run_below_a_floor():
    *others, last = summary(0.7012, 0.5).lines()
    assert last.startswith("warning:  this run is below 'pixels' (70.1 % against 75.0 %)")
    assert last.endswith("; try an encoder that has learned or more steps (--epochs)")
    assert "more labels" not in last
    assert others == [
        "held out: balanced accuracy 70.1 % of the averaged network, which is kept (trained 50.0 %); "
        "40 samples",
        "floors:   with the same labels: most frequent class 10.0 %, pixels 75.0 %, start encoder 60.0 %",
    ]


@pytest.mark.parametrize(
    ("found", "name"),
    [
        (summary(0.79, held_out=64), "pixels"),  # an error of 0.05
        (summary(0.81, held_out=64), None),
        (summary(0.81, held_out=16), "pixels"),
        (summary(0.70), None),  # below is a warning
        (summary(0.99, held_out=100), None),
        (summary(0.99, floors={}), None),
        (Summary("balanced_accuracy", 0, "averaged", floors=FLOORS), None),
    ],
)
def test_few_held_out_samples_cannot_tell_a_run_from_a_floor(found, name):
    assert found.unsure == name
    noted = [line for line in found.lines() if line.startswith("note")]
    assert len(noted) == (name is not None)
    if name is not None:
        assert f"{found.held_out} held-out samples are too few to tell this run from 'pixels'" in noted[0]


def test_above_all_floors_there_is_no_warning():
    assert [line.split(":")[0] for line in summary(0.9).lines()] == ["held out", "floors"]


def test_where_nothing_was_held_out_there_is_nothing_to_say():
    assert Summary("balanced_accuracy", 0, "averaged", remedies=REMEDIES).lines() == []
    seen = Summary("balanced_accuracy", 0, "averaged", statistics="statistics did not fit", remedies=REMEDIES)
    assert seen.lines() == ["note:     statistics did not fit"]


def test_a_single_network_and_other_measures():
    found = Summary("dice", 4, "student", {"student": 0.5}, {"background only": 0.0}, remedies=("more",))
    assert found.lines()[0] == "held out: Dice 50.0 % of the student network, which is kept; 4 samples"
    for score, name in (("knn", "kNN accuracy"), ("own", "own")):
        lines = Summary(score, 9, "trained", {"trained": 0.25}, {"pixels": 0.5}, remedies=("more",)).lines()
        assert lines[0].startswith(f"held out: {name} 25.0 % of")
        assert lines[-1].endswith("; try more")


def test_the_note_stands_before_the_warning():
    lines = summary(0.7, statistics="BatchNorm's").lines()
    assert [line.split(":")[0] for line in lines] == ["held out", "floors", "note", "warning"]


@pytest.mark.parametrize(
    "found",
    [
        summary(0.7, statistics="BatchNorm's statistics"),
        summary(0.1, 0.9, kept="trained", remedies=()),
        Summary("dice", 0, "student"),
    ],
)
def test_what_is_saved_is_what_is_loaded(found, tmp_path):
    found.save(tmp_path)
    again = Summary.load(tmp_path)
    assert again == found
    assert again.lines() == found.lines()
    assert isinstance(again.remedies, tuple)
    assert json.loads((tmp_path / FILE).read_text())["kept"] == found.kept


def test_what_is_not_a_number_is_unknown_in_the_file(tmp_path):
    summary(float("nan"), 0.5, kept="trained").save(tmp_path)
    assert json.loads((tmp_path / FILE).read_text())["candidates"] == {"averaged": None, "trained": 0.5}
    assert "(averaged unknown)" in Summary.load(tmp_path).lines()[0]


def test_a_run_without_a_summary_has_none(tmp_path):
    assert Summary.load(tmp_path) is None


WHOLE = {"score": "dice", "held_out": 1, "kept": "student", "remedies": []}


@pytest.mark.parametrize(
    "text",
    [
        "",
        '{"score": "dice",',
        "[1, 2]",
        "null",
        "{}",
        json.dumps({key: value for key, value in WHOLE.items() if key != "kept"}),
        json.dumps({key: value for key, value in WHOLE.items() if key != "remedies"}),
        json.dumps({**WHOLE, "remedies": None}),
        b"\xff\xfe\x00",
    ],
)
def test_a_damaged_file_is_one_line(text, tmp_path):
    (tmp_path / FILE).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(TacitError) as caught:
        Summary.load(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / FILE} is damaged: ")
    assert len(str(caught.value).splitlines()) == 1
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("wrong", [{"candidates": None}, {"candidates": [1]}, {"floors": "many"}])
def test_damage_of_the_right_json_is_one_line(tmp_path, wrong):
    summary(0.4, 0.5).save(tmp_path)
    whole = json.loads((tmp_path / FILE).read_text())
    (tmp_path / FILE).write_text(json.dumps({**whole, **wrong}))
    with pytest.raises(TacitError, match="is damaged"):
        Summary.load(tmp_path)


def test_what_a_later_version_adds_is_left_out(tmp_path):
    summary(0.4, 0.5).save(tmp_path)
    whole = json.loads((tmp_path / FILE).read_text())
    (tmp_path / FILE).write_text(json.dumps({**whole, "colour": "blue"}))
    assert Summary.load(tmp_path).candidates == whole["candidates"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"score": 5}, "its score is 5, and must be a text of one line"),
        ({"statistics": "a\nb"}, "its statistics is"),
        ({"held_out": -1}, "its held_out is -1"),
        ({"kept": "other"}, "its kept is 'other', and must be one of its candidates"),
        ({"candidates": {"trained": "high"}}, "its candidates.trained is 'high'"),
        ({"candidates": {"trained": 10**400}}, "its candidates.trained is 1"),
        ({"floors": {"a\nb": 0.5}}, "must be a text of one line"),
        ({"floors": []}, r"its floors holds \[\]"),
        ({"remedies": "more"}, "its remedies is 'more', and must be a list"),
        ({"remedies": [5]}, "must be a text of one line"),
    ],
)
def test_summaries_of_nonsense(changes, words, tmp_path):
    sound = {"score": "knn", "held_out": 3, "kept": "trained", "candidates": {"trained": 0.5}, "floors": {}}
    (tmp_path / FILE).write_text(json.dumps({**sound, "statistics": "", "remedies": [], **changes}))
    with pytest.raises(TacitError, match=words) as caught:
        Summary.load(tmp_path)
    assert "\n" not in str(caught.value)
