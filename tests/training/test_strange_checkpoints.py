"""Checkpoints and settings of runs that strangers wrote."""

import copy
import inspect
import math
import os
import zipfile

import pytest
import torch
import yaml

import tacit
from run_readers import READERS, ROWS, SETTINGS
from tacit.errors import TacitError, UsageError
from tacit.methods.classification.fixmatch import FlexMatch
from tacit.methods.contrastive.simclr import SimCLR
from tacit.methods.parts.cluster_memory import ClusterMemory
from tacit.methods.registry import method_class, own_methods
from tacit.report.page import write_report
from tacit.training.checkpoint import Checkpoint, load_optimizer
from tacit.training.hints import named, suits
from tacit.training.metrics import Metrics
from tacit.training.run import Run
from tacit.training.settings import option_types, plain, resumed_options, word_types

NAN, INFINITE = float("nan"), float("inf")


@pytest.fixture
def saved(tmp_path):
    """A function that writes a checkpoint with changes of its state; it gives the path."""
    READERS["last.pt"].make(tmp_path)
    path = Run(tmp_path).last
    sound = torch.load(path, weights_only=True)

    def write(change=lambda state: None):
        state = copy.deepcopy(sound)
        change(state)
        torch.save(state, path)
        return path

    return write


def refused(path, words):
    with pytest.raises(TacitError, match=words) as caught:
        Checkpoint.load(path)
    line = str(caught.value)
    assert line.startswith(f"the checkpoint {path} is damaged: ")
    assert "\n" not in line
    assert len(line) < 400 + len(str(path))


def put(*keys, value):
    """A change of a state: the value at these keys."""

    def change(state):
        for key in keys[:-1]:
            state = state[key]
        state[keys[-1]] = value(state.get(keys[-1])) if callable(value) else value

    return change


WEIGHT = "encoder.layers.0.weight"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state.pop("guard"), "its guard is missing"),
        (lambda state: state.pop("method"), "its method is missing"),
        (put("step", value=-1), "its step is -1, and must be a whole number"),
        (put("step", value=1.5), "its step is 1.5"),
        (put("step", value=10**400), "its step is 1"),
        (put("probe", value=NAN), "its probe is nan"),
        (put("probe", value="best"), "its probe is 'best'"),
        (put("guard", value=[1]), "its guard holds"),
        (put("guard", "looks", value=INFINITE), "its guard.looks is inf"),
        (put("method", value=[]), "its method holds"),
        (put("method", WEIGHT, value=None), "must be a dense tensor"),
        (
            put("method", WEIGHT, value=lambda w: w * NAN),
            f"its method.{WEIGHT} has values that are",
        ),
        (put("method", WEIGHT, value=lambda w: w + INFINITE), "not finite"),
        (put("method", WEIGHT, value=lambda w: w.to_sparse()), "must be a dense tensor"),
        (put("method", WEIGHT, value=lambda w: torch.empty(10**9, 10**9, device="meta")), "a dense tensor"),
        (
            put("method", WEIGHT, value=lambda w: torch.zeros(1).expand(10**9, 10**6)),
            "more values than",
        ),
        (put("optimizer", value={}), "its param_groups is missing"),
        (put("optimizer", "state", value=[]), "its optimizer.state is"),
        (put("optimizer", "param_groups", value={}), "its optimizer.param_groups is"),
        (put("optimizer", "param_groups", value=[{"lr": NAN}]), "its optimizer.lr is nan"),
        (put("optimizer", "param_groups", value=[{"lr": 10**400}]), "its optimizer.lr is 1"),
        (put("optimizer", "state", 0, value={"step": 10**400}), "its optimizer.step is 1"),
        (put("optimizer", "state", 0, value=5), "holds 5"),
        (put("optimizer", "state", 0, value={"step": torch.tensor(-1.0)}), "its optimizer.step is tensor"),
        (put("optimizer", "state", 0, value={"a": torch.tensor(NAN)}), "its optimizer.a has values that are"),
    ],
)
def test_checkpoints_of_nonsense(change, words, saved):
    assert Checkpoint.load(saved()).step == 3
    refused(saved(change), words)


def test_an_archive_that_is_a_bomb(saved):
    path = saved()
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    refused(path, "it is compressed")
    for content in (b"", b"PK\x03\x04", b"\x80\x02."):
        path.write_bytes(content)
        refused(path, "zip")
    path.unlink()
    path.symlink_to("/dev/zero")
    refused(path, "it is a device, and must be a file")
    path.unlink()
    os.mkfifo(path)
    refused(path, "it is a pipe")


def test_a_checkpoint_is_not_unpickled(saved, tmp_path):
    class Marker:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    refused(saved(put("method", WEIGHT, value=Marker())), "Weights only load failed")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state["param_groups"].pop(), "groups of parameters"),
        (lambda state: state["param_groups"][0]["params"].pop(), "other numbers of parameters"),
        (lambda state: state["param_groups"][0]["params"].__setitem__(0, 1), "different whole numbers"),
        (lambda state: state["param_groups"][0].update(nesterov="yes"), "its optimizer.nesterov is 'yes'"),
        (lambda state: state["param_groups"][0].update(momentum=True), "its optimizer.momentum is True"),
        (lambda state: state["state"].pop(0), "its optimizer.state has"),
        (lambda state: state["state"][1].update(momentum_buffer=None), "its optimizer.state has"),
        (
            lambda state: state["state"][1].update(momentum_buffer=torch.ones(5)),
            r"its optimizer.momentum_b.* \[5\]",
        ),
    ],
)
def test_the_state_of_another_optimiser(change, words, saved):
    state = Checkpoint.load(saved()).optimizer
    parameters = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimizer = torch.optim.SGD(parameters, momentum=0.9)
    for parameter in parameters:
        parameter.grad = torch.ones(1)
    optimizer.step()
    sound = optimizer.state_dict()
    load_optimizer(torch.optim.SGD(parameters, momentum=0.9), copy.deepcopy(sound))
    state = copy.deepcopy(sound)
    change(state)
    with pytest.raises(TacitError, match=f"does not fit the optimiser: .*{words}") as caught:
        load_optimizer(torch.optim.SGD(parameters, momentum=0.9), state)
    assert "\n" not in str(caught.value)


def test_a_setting_that_an_older_optimiser_had_not_is_this_ones():
    parameters = [torch.nn.Parameter(torch.zeros(1))]
    state = torch.optim.SGD(parameters, momentum=0.5).state_dict()
    del state["param_groups"][0]["dampening"]
    optimizer = torch.optim.SGD(parameters, momentum=0.9, dampening=0.25)
    load_optimizer(optimizer, state)
    assert (optimizer.param_groups[0]["momentum"], optimizer.param_groups[0]["dampening"]) == (0.5, 0.25)


def test_whole_numbers_of_methods_are_in_their_range():
    memory = ClusterMemory(4, 2, clusters=3)
    memory.check_state()
    for label in (3, -1, -101):
        memory.labels[1, 2] = label
        with pytest.raises(ValueError, match="clusters that there are not"):
            memory.check_state()
    method = FlexMatch.__new__(FlexMatch)
    torch.nn.Module.__init__(method)
    method.classes, method.selected = 2, torch.tensor([-1, 0, 1])
    method.check_state()
    method.selected = torch.tensor([-1, 2])
    with pytest.raises(ValueError, match="not among the classes"):
        method.check_state()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"method": "simclr"}, "its method holds 'simclr'"),
        ({"method": {"temperature": 1}}, "its method.name is None"),
        ({"record": []}, r"its record holds \[\]"),
        ({"record": {"data": 5}}, "its record.data holds 5"),
        ({"record": {"data": {"samples": "many"}}}, "its record.data.samples is 'many'"),
        ({"record": {"data": {"skipped": -1}}}, "its record.data.skipped is -1"),
        ({"record": {"data": {"fingerprint": 5}}}, "its record.data.fingerprint is 5"),
        ({"record": {"labels": {"learned": [1]}}}, r"its record.labels.learned is \[1\]"),
        ({"record": {"labels": {"learned": {"a": NAN}}}}, "its record.labels.learned is nan"),
        ({"record": {"recipe": "x"}}, "its record.recipe holds 'x'"),
    ],
)
def test_settings_of_nonsense(changes, words, tmp_path):
    (tmp_path / "metrics.csv").write_text(ROWS)
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(SETTINGS | changes))
    for read in (Run(tmp_path).settings, lambda: write_report(tmp_path)):
        with pytest.raises(TacitError, match=words) as caught:
            read()
        assert str(tmp_path / "run.yaml") in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "- 1", "a: &a 1\nb: *a", "{", "5", "[" * 5000, "\xff", "1: 2"])
def test_settings_that_are_none(text, tmp_path):
    (tmp_path / "run.yaml").write_bytes(text.encode("latin-1"))
    with pytest.raises(TacitError, match=r"run\.yaml is damaged") as caught:
        Run(tmp_path).settings()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"temperature": "warm"}, "its method.temperature is 'warm', and must be a number"),
        ({"temperature": NAN}, "its method.temperature is nan"),
        ({"projection": True}, "its method.projection is True, and must be a whole number"),
        ({"augment": "os.system"}, "its method.augment is 'os.system', and must be names and values"),
        ({"augment": {"class_path": "os.system"}}, "its method.augment is"),
        ({"augment": {"blur": "x"}}, "its method.augment is"),
    ],
)
def test_options_of_nonsense_are_not_resumed(options, words, tmp_path):
    run = Run(tmp_path)
    run.settings_file.write_text(yaml.safe_dump(SETTINGS | {"method": {"name": "simclr", **options}}))
    with pytest.raises(TacitError, match=words):
        resumed_options(run, SimCLR, {})
    assert resumed_options(run, SimCLR, dict.fromkeys(options, 1)) == dict.fromkeys(options, 1)  # asked for


@pytest.mark.parametrize("slug", own_methods())
def test_every_option_of_ours_is_of_its_type_in_a_file(slug):
    learns = method_class(slug)
    kinds = option_types(learns)
    defaults = {n: p.default for n, p in inspect.signature(learns).parameters.items() if n != "encoder"}
    published = {name: value for name, value in learns.published.items() if name in defaults}
    for name, value in [*defaults.items(), *published.items()]:
        written = yaml.safe_load(yaml.safe_dump(plain(value)))
        assert suits(written, kinds[name]), (slug, name, value)
        assert not suits({"class_path": "os.system"}, kinds[name])
        assert not suits(object(), kinds[name])


def test_every_word_of_fit_has_a_type_that_a_file_can_have():
    kinds = word_types()
    for name, default in inspect.signature(tacit.fit).parameters.items():
        if name not in ("method", "options"):
            value = None if default.default is inspect.Parameter.empty else default.default
            assert suits("x" if value is None and name == "data" else value, kinds[name]), name
            assert named(kinds[name])


ROWS_OF_NONSENSE = [
    ("step,loss\n1,x\n2,1\n", "line 2: its loss is 'x', and must be a number"),
    ("step,loss\n1\n2,1\n", "line 2: it has 1 cells, and must have 2"),
    ("step,loss\n1,2,3\n2,1\n", "line 2: it has 3 cells"),
    ("step,loss\n-1,2\n", "line 2: its step is '-1', and must be a whole number"),
    ("step,loss\n1e3,2\n", "line 2: its step is '1e3'"),
    ("step,loss\n" + "9" * 30 + ",2\n", "line 2: its step is"),
    ("loss,knn\n1,2\n", "step among them"),
    ("step,loss,loss\n1,2,3\n", "step among them"),
    ("step," + ",".join(f"a{i}" for i in range(300)) + "\n", "200 names or fewer"),
    ("step,\n1,2\n", "must have a name of one line"),
    ("step," + "x" * 200 + "\n1,2\n", "must have a name of one line"),
    ("step,loss\n1," + "1" * 200_000 + "\n", "field larger than field limit"),
]


@pytest.mark.parametrize(("text", "words"), ROWS_OF_NONSENSE)
def test_rows_of_nonsense(text, words, tmp_path):
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(SETTINGS))
    path = tmp_path / "metrics.csv"
    path.write_text(text)
    for read in (Run(tmp_path).metrics, lambda: write_report(tmp_path), lambda: Metrics(path, start=5)):
        with pytest.raises(TacitError, match=words) as caught:
            read()
        assert str(path) in str(caught.value)
        assert len(str(caught.value)) < 400 + len(str(path))
    assert path.read_text() == text


@pytest.mark.parametrize("end", ["3", "3,", "3,1.5e-", "3,0.5,7"])
def test_the_row_that_a_kill_cut_short_is_left_out(end, tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text(f"step,epoch,loss\n1,1,2.5\n2,1,nan\n{end}")
    assert [row["step"] for row in Run(tmp_path).metrics()] == (
        ["1", "2"] if end != "3,0.5,7" else ["1", "2", "3"]
    )
    Metrics(path, start=2)
    assert path.read_text().splitlines()[-1] == "2,1,nan"


def test_a_title_is_no_formula_and_infinities_are_not_drawn(tmp_path):
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(SETTINGS))
    (tmp_path / "metrics.csv").write_text("step,$\\frac{a,<b>\n1,inf,1e308\n2,-inf,-1e308\n3,1,nan\n")
    page = write_report(tmp_path).read_text()
    assert page.count("<svg") == 1
    assert "<b>" not in page


def test_settings_of_another_kind_are_compared_in_one_line(tmp_path):
    from tacit.training.settings import check_same_settings

    run = Run(tmp_path)
    run.settings_file.write_text(yaml.safe_dump({"epochs": ["x\n" * 1000] * 10}))
    with pytest.raises(UsageError, match="epochs was") as caught:
        check_same_settings(run, {"epochs": 3})
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500 + len(str(run))
    assert math.isnan(NAN)
