"""What ten tiny runs learn does not change unless somebody means it to."""

import json

import pytest
import runs

RECORDS = json.loads(runs.RECORD.read_text())


@pytest.fixture(scope="module")
def record():
    """Of a machine that rounds as this one: then bits must be equal. Else of another: numbers close."""
    found = RECORDS.get(runs.rounding())
    return (found, True) if found is not None else (next(iter(RECORDS.values())), False)


def check(name, found, record):
    recorded, exact = record[0][name], record[1]
    if exact:  # a sum of rounded numbers depends on its order
        sizes = found.pop("kept size"), recorded["kept size"]
        assert sizes[0] == pytest.approx(sizes[1], rel=1e-12)
        assert found == {key: value for key, value in recorded.items() if key != "kept size"}
        return
    assert found["kept size"] == pytest.approx(recorded["kept size"], rel=1e-3)
    assert len(found["metrics"]) == len(recorded["metrics"])
    for row, expected in zip(found["metrics"], recorded["metrics"], strict=True):
        assert row.keys() == expected.keys()
        for key, value in expected.items():
            if value and key not in ("knn", "balanced_accuracy", "dice"):  # steps of a whole sample
                assert float(row[key]) == pytest.approx(float(value), rel=0.02, abs=1e-3), key


@pytest.mark.parametrize("name", runs.RUNS)
def test_a_run_learns_what_was_recorded(name, record, tmp_path):
    if runs.RUNS[name][0] == "volumes":
        pytest.importorskip("nibabel")
        pytest.importorskip("monai")
    check(name, runs.learn(name, tmp_path), record)


@pytest.mark.parametrize("name", runs.RESUMED)
def test_a_run_that_was_stopped_and_resumed_learns_the_same(name, record, tmp_path):
    if runs.RUNS[name][0] == "volumes":
        pytest.importorskip("nibabel")
        pytest.importorskip("monai")
    check(name, runs.learn(name, tmp_path, stopped=True), record)


def test_the_fingerprint_sees_one_bit_and_no_names():
    tensors = runs.torch.zeros(3), runs.torch.ones(2, 2)
    assert runs.fingerprint(tensors) == runs.fingerprint(tensors[::-1])
    other = tensors[0].clone()
    other[1] = 1e-45
    assert runs.fingerprint((other, tensors[1])) != runs.fingerprint(tensors)
