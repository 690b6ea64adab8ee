import importlib
import inspect
import pkgutil
import subprocess
import sys
from importlib.metadata import EntryPoint

import docstring_parser
import pytest

import tacit.methods
from tacit.errors import TacitError, UsageError
from tacit.methods import registry
from tacit.methods.base import Method
from tacit.methods.recipe import Recipe


@pytest.mark.parametrize("slug", registry.own_methods())
def test_each_entry_is_a_method_that_documents_every_option(slug):
    found = registry.method_class(slug)
    assert issubclass(found, Method)
    entry = registry.own_methods()[slug]
    for name in ("title", "paper", "modality", "learns", "beside", "baseline"):
        assert getattr(entry, name) == getattr(found, name), name
    assert found.slug == slug
    assert entry.title
    assert entry.paper in inspect.getdoc(found)
    assert found.recipe.source
    documented = {p.arg_name for p in docstring_parser.parse(inspect.getdoc(found)).params if p.description}
    assert documented == set(inspect.signature(found).parameters)


def test_every_class_with_a_slug_is_listed():
    modules = pkgutil.walk_packages(tacit.methods.__path__, "tacit.methods.")
    members = [vars(importlib.import_module(module.name)).values() for module in modules]
    found = {c for values in members for c in values if isinstance(c, type) and issubclass(c, Method)}
    assert {c.__dict__["slug"] for c in found if c.__dict__.get("slug")} == set(registry.own_methods())


def test_an_unknown_method_gets_the_nearest_name():
    with pytest.raises(UsageError, match=r"unknown method 'dlc'; did you mean 'dcl'\?"):
        registry.method_class("dlc")


def test_a_class_can_be_named_without_being_registered():
    assert registry.method_class("tacit.methods.contrastive.dcl:DCL").__name__ == "DCL"


@pytest.mark.parametrize(
    "where", ["absent_module:X", "tacit.methods.contrastive.dcl:Absent", "tacit.methods.contrastive.dcl:mlp"]
)
def test_a_class_that_is_none_is_one_line(where):
    with pytest.raises(TacitError) as error:
        registry.method_class(where)
    assert "\n" not in str(error.value)


def test_third_parties_register_by_entry_point(monkeypatch):
    point = EntryPoint("mine", "tacit.methods.contrastive.simclr:SimCLR", registry.ENTRY_POINTS)
    monkeypatch.setattr(registry, "entry_points", lambda group: [point] if group == "tacit.methods" else [])
    assert "mine" in registry.all_methods()
    assert registry.method_class("mine").__name__ == "SimCLR"


def test_listing_methods_imports_no_torch():
    code = "import sys, tacit.methods.registry as r; r.all_methods(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    "change",
    [{"lr": 0}, {"epochs": 0}, {"batch_size": -1}, {"warmup": 1.0}, {"clip": 0}, {"weight_decay": -1}],
)
def test_recipes_refuse_nonsense(change):
    with pytest.raises(UsageError, match=next(iter(change))):
        Recipe(**{"optimizer": "sgd", "lr": 1.0, "batch_size": 2, "epochs": 1, **change})
