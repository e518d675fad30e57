"""What a study says of weights that it did not train."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest

from support.runs import SETTINGS
from voxelsoup.common.errors import InputError
from voxelsoup.study.ingredients import given_models, is_given, note_on_given, only_trained
from voxelsoup.study.loading import load
from voxelsoup.study.reference import json_schema
from voxelsoup.study.trials import model_labels, trials

RULES = {r"^net\.": "", r"^enc_(\d)\.": r"stages.\1."}


def refused(**changes: Any) -> str:
    with pytest.raises(InputError) as error:
        load(SETTINGS | changes)
    return str(error.value)


def test_ingredients_are_paths_or_sections_with_a_name_from_their_file() -> None:
    study = load(SETTINGS | {"ingredients": ["a/b-1.best.pt", {"file": "c.pth", "name": "c"}]})
    assert list(given_models(study)) == ["elsewhere-b_1_best", "elsewhere-c"]
    jsonschema.validate(SETTINGS | {"ingredients": ["a.pt", {"file": "c.pth"}]}, json_schema())
    assert load(study.model_dump(mode="json")) == study


def test_rules_are_a_mapping_or_a_list_of_mappings() -> None:
    for rules in (RULES, [{old: new} for old, new in RULES.items()]):
        settings = {"stem": {"source": "checkpoint", "checkpoint": "a.pt", "rename": rules}}
        assert load(SETTINGS | settings).stem.rename == RULES
        jsonschema.validate(SETTINGS | settings, json_schema())


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ({"(": ""}, "is no renaming rule"),
        ({"a": r"\1"}, "is no renaming rule"),
        ([{"a": "b"}, {"a": "c"}], "names a pattern twice"),
    ],
)
def test_what_is_no_rule_is_refused(rules: Any, said: str) -> None:
    assert said in refused(ingredients=[{"file": "a.pt", "rename": rules}])


def test_two_ingredients_of_one_name_are_refused() -> None:
    assert "two models that are called model" in refused(ingredients=["a/model.pt", "b/model.pt"])


def test_a_final_model_cannot_be_made_of_what_was_trained_elsewhere() -> None:
    assert "`final` with the ingredient a, which" in refused(ingredients=["a.pt"], final=True)


def test_a_checkpoint_is_converted_where_it_has_to_be() -> None:
    def is_converted(**stem: Any) -> bool:
        return load(SETTINGS | {"stem": {"source": "checkpoint", **stem}}).stem.is_converted

    assert not is_converted(checkpoint="a.safetensors")
    assert is_converted(checkpoint="a.pt")
    assert is_converted(checkpoint="a.safetensors", rename=RULES)
    assert "go with a `checkpoint`" in refused(stem={"rename": RULES})


def test_studies_without_such_weights_are_written_as_before() -> None:
    content = load(SETTINGS | {"stem": "a.safetensors"}).model_dump(mode="json")
    assert "ingredients" not in content
    assert list(content["stem"]) == ["source", "epochs", "optimizer", "checkpoint"]


def test_only_what_may_have_seen_cases_is_noted() -> None:
    files = [{"file": "a.pt", "seen": "none"}, "b.pt", "c.pt"]
    note = note_on_given(load(SETTINGS | {"ingredients": files}))
    assert note.startswith("It is not known whether b and c, trained elsewhere, have seen")
    assert note_on_given(load(SETTINGS | {"ingredients": files[:1]})) == ""


def test_given_models_are_told_from_trials_by_their_names() -> None:
    study = load(SETTINGS)
    models = [trials(study)[0].id, "elsewhere-b"]
    assert [is_given(model) for model in models] == [False, True]
    assert only_trained(models) == models[:1]
    assert list(model_labels(study, models)) == models[:1]
