import pytest

from tacit.errors import BadFile, TacitError, UsageError, did_you_mean, require, unknown


def test_did_you_mean_names_the_nearest_or_nothing():
    assert did_you_mean("dlc", ["dcl", "moco"]) == "; did you mean 'dcl'?"
    assert did_you_mean("transformer", ["dcl", "moco"]) == ""


def test_unknown_lists_what_is_known_when_nothing_is_near():
    assert str(unknown("method", "zzz", ["dcl", "moco"])) == "unknown method 'zzz'; known: dcl, moco"
    assert str(unknown("method", "moc", ["dcl", "moco"])) == "unknown method 'moc'; did you mean 'moco'?"


def test_exit_codes():
    assert TacitError.exit_code == 1
    assert UsageError.exit_code == 2
    assert BadFile("a.jpg", "truncated").exit_code == 1


def test_a_bad_file_says_which_and_why():
    assert str(BadFile("x/a.jpg", "zero bytes")).startswith("x/a.jpg: zero bytes")


def test_a_missing_extra_names_its_installation():
    with pytest.raises(UsageError, match=r"'surely_absent'.*pip install 'tacit\[hub\]'"):
        require("surely_absent.sub", "hub")


def test_a_module_that_is_there_is_returned():
    assert require("json", "hub").__name__ == "json"


def test_a_broken_dependency_is_not_called_missing(tmp_path, monkeypatch):
    (tmp_path / "brokenpackage.py").write_text("import surely_absent_inside")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="surely_absent_inside"):
        require("brokenpackage", "hub")


def test_a_message_is_one_line_whatever_a_cell_holds():
    assert str(UsageError("no sample is called 'a\nb\r\nc'")) == "no sample is called 'a b c'"
    assert "\n" not in str(BadFile("a\nb.png", "empty"))
