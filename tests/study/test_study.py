"""A study file: typed, checked, and explained when it is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from support.runs import small_study
from voxelsoup.common.errors import InputError
from voxelsoup.study.loading import load, read, read_of_results
from voxelsoup.study.reference import json_schema
from voxelsoup.study.sections.evaluation import primary_model
from voxelsoup.study.study import Study

REPOSITORY = Path(__file__).parents[2]
SMALLEST: dict[str, Any] = {"dataset": {"channels": ["t1n"]}, "regions": {"WT": [1, 2, 3]}}


def refused(**changes: Any) -> str:
    with pytest.raises(InputError) as caught:
        load(SMALLEST | changes, "my-study.yaml")
    message = str(caught.value)
    assert message.startswith("my-study.yaml")
    assert "fix:" in message
    return message


def test_two_keys_make_a_study_and_all_else_has_defaults() -> None:
    study = load(SMALLEST)
    assert study.optimizer.lr == 0.0027
    assert study.optimizer.weight_decay == 0
    assert study.optimizer.schedule == "schedule-free"
    assert study.evaluation.protocol == "held-out"
    assert study.folds.numbers == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    "file", [REPOSITORY / "config.yaml", *sorted((REPOSITORY / "examples").glob("*.yaml"))]
)
def test_the_shipped_studies_are_valid(file: Path) -> None:
    assert isinstance(read(file), Study)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"optimiser": {}}, "`optimiser`: there is no such key; did you mean `optimizer`?"),
        ({"optimizer": {"learning_rate": 1}}, "`optimizer.learning_rate`: there is no such key"),
        ({"optimizer": {"lr": "fast"}}, "`optimizer.lr`: Input should be a valid number"),
        ({"optimizer": {"lr": -1}}, "`optimizer.lr`: Input should be greater than 0 (found: -1)"),
        ({"optimizer": {"schedule": "cosin"}}, "did you mean `cosine`?"),
        ({"optimizer": {"momentum": 0}}, "needs a `momentum` above 0"),
        ({"regions": {}}, "`regions`"),
        ({"regions": {"WT": []}}, "region `WT` names no label value"),
        ({"regions": {"WT": [300]}}, "labels are 1 to 255"),
        ({"regions": {"loss": [1]}}, "cannot name a region"),
        ({"regions": {"Mean": [1]}}, "cannot name a region"),
        ({"dataset": {"layout": "brats", "channels": ["t1n"]}}, "needs `root`"),
        ({"dataset": {"channels": ["t1n", "t1n"]}}, "names a channel twice"),
        ({"dataset": {"channels": ["a"], "patient_pattern": "x"}}, "exactly one names the patient"),
        ({"folds": {"count": 3, "run": [3]}}, "folds are 0 to 2"),
        ({"sweep": None}, "the key is empty: give it a value, or leave it out"),
        ({"sweep": {"grid": {"optimizer.lr": []}}}, "has no values, so the sweep has no trials"),
        ({"soup": {"recipes": ["gredy"]}}, "did you mean `greedy`?"),
        (
            {"soup": {"recipes": ["greedy", "ensemble"], "ensemble_of": "uniform"}},
            "`soup.ensemble_of` is `uniform`, which `soup.recipes` does not name",
        ),
        (
            {"soup": {"recipes": ["best", "ensemble"], "ensemble_of": "best"}},
            "`soup.ensemble_of`: Input should be 'all', 'greedy'",
        ),
        ({"soup": {"barrier_points": 2}}, "so that the middle of the line is among the points"),
        ({"stem": {"source": "checkpoint"}}, "`checkpoint` goes with"),
        ({"training": {"patch": [100, 128, 128]}}, "100 is not divisible by 16"),
        ({"training": {"patch": [128, 128, 12]}}, "or set `network.strides`: an axis of few"),
        ({"training": {"patch": [128, 128, 0]}}, "at least 1 voxel"),
        (
            {"network": {"strides": 4 * [[2, 2, 1]]}, "training": {"patch": [128, 8, 7]}},
            "8 is not divisible by 16",
        ),
        (
            {"network": {"strides": 3 * [[2, 2, 1]]}},
            "names 3 downsamplings, and this MedNeXt has 4",
        ),
        ({"network": {"name": "UNet", "strides": [[2, 2, 1]]}}, "are MedNeXt's"),
        (
            {
                "network": {"name": "DynUNet", "arguments": {"strides": [1, 2, [2, 2, 1]]}},
                "training": {"patch": [128, 128, 7]},
            },
            "7 is not divisible by 2",
        ),
        ({"preprocess": {"spacing": [1, 0, 1]}}, "above 0 mm"),
        ({"postprocessing": {"thresholds": [0.3, 1]}}, "`postprocessing.thresholds[1]`: Input"),
        ({"postprocessing": {"smallest_components": [-1]}}, "greater than or equal to 0"),
        ({"postprocessing": {"smallest_components": [float("inf")]}}, "a finite number"),
        (
            {"postprocessing": {"replace": {"region": "WT", "by": "WT", "below": [50]}}},
            "`region` and `by` must be two different regions",
        ),
        (
            {"postprocessing": {"replace": {"region": "WT", "by": "TC", "below": [0]}}},
            "`postprocessing.replace.below[0]`: Input should be greater than 0",
        ),
        (
            {"postprocessing": {"replace": {"region": "WT", "by": "WTC", "below": [50]}}},
            "`postprocessing.replace.by` is `WTC`, which `regions` does not name; did you mean",
        ),
        ({"tracking": "mlfow"}, "did you mean `mlflow`?"),
        ({"tracking": {"address": "https://a.org"}}, "`address` goes with `tool: mlflow`"),
        ({"tracking": {"tool": "wandb", "address": "a.org"}}, "is no address such as https"),
        ({"tracking": {"tool": "mlflow", "address": "https://a.org:x"}}, "is no address: Port"),
        ({"tracking": {"tool": "mlflow", "experiment": "a/b"}}, "should match pattern"),
    ],
)
def test_a_wrong_setting_is_named_with_its_key_and_its_fix(
    changes: dict[str, Any], said: str
) -> None:
    assert said in refused(**changes)


@pytest.mark.parametrize(
    ("soup", "said"),
    [
        ({"recipes": ["greedy", "learned"]}, "`recipes` names `learned`: the recipes"),
        ({"ensemble_of": "hierarchical"}, "`ensemble_of` names `hierarchical`: the"),
        ({"finish": {"of": "learned"}}, "`finish.of` names `learned`: the"),
        ({"learned": {"per": "block"}}, "`learned` is a setting of such a recipe: the"),
        ({"group_by": ["optimizer.lr"]}, "`group_by` is a setting of such a recipe: the"),
    ],
)
def test_a_removed_recipe_is_refused_once_with_the_reason_and_the_fix(
    soup: dict[str, Any], said: str
) -> None:
    message = refused(soup=soup)
    assert "1 setting(s) are wrong\n  - `soup`: " in message and said in message
    assert "they gained nothing over `greedy` (docs/souping.md)" in message
    assert "take them out, or name `greedy`" in message


def test_the_unused_settings_of_removed_recipes_in_a_complete_study_say_nothing() -> None:
    unused = {"group_by": None, "learned": {"per": "model", "steps": 40, "lr": 0.1}}
    assert load(SMALLEST | {"soup": unused}) == load(SMALLEST)


def test_results_of_a_study_with_removed_recipes_are_read_without_them(tmp_path: Path) -> None:
    file, soup = tmp_path / "study.yaml", {"recipes": ["learned", "greedy"], "group_by": ["x"]}
    file.write_text(yaml.safe_dump(SMALLEST | {"soup": soup}))
    assert read_of_results(file).soup.recipes == ["greedy"]
    file.write_text(yaml.safe_dump(SMALLEST | {"soup": {"recipes": ["learned"]}}))
    with pytest.raises(InputError, match="`recipes` names `learned`"):
        read_of_results(file)


def test_all_mistakes_are_reported_at_once() -> None:
    message = refused(optimizer={"lr": -1}, folds={"count": 1})
    assert "2 setting(s) are wrong" in message


@pytest.mark.parametrize("together", [{"a.b": [1]}, [{"a.b": [1]}, {"a.c": [2]}], []])
def test_editors_accept_one_axis_and_several_that_move_together(together: Any) -> None:
    jsonschema.validate(SMALLEST | {"sweep": {"zip": together}}, json_schema())
    assert load(SMALLEST | {"sweep": {"zip": together}}).sweep.zip == (
        [together] if isinstance(together, dict) else together
    )
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(SMALLEST | {"sweep": {"zip": {"a.b": 1}}}, json_schema())


def test_a_study_loaded_from_its_own_settings_is_the_same() -> None:
    block = {
        "grid": {"optimizer.lr": [0.1]},
        "zip": {"optimizer.gamma": [0.1, 0.2]},
        "random": {"count": 2, "axes": {"optimizer.power": {"log-uniform": ["1e-3", 1]}}},
        "exclude": [{"optimizer.lr": {"above": 1}}],
    }
    study = load(SMALLEST | {"sweep": {**block, "also": [block]}})
    settings = study.model_dump(mode="json")
    assert load(settings) == study
    jsonschema.validate(SMALLEST | {"sweep": settings["sweep"]}, json_schema())


@pytest.mark.parametrize("stem", ["none", "model.safetensors", {"epochs": 3}])
def test_editors_accept_every_form_of_the_stem(stem: Any) -> None:
    jsonschema.validate(SMALLEST | {"stem": stem}, json_schema())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(SMALLEST | {"stem": {"epoch": 3}}, json_schema())


def test_short_forms_of_the_stem_are_understood() -> None:
    assert load(SMALLEST | {"stem": "none"}).stem.source == "none"
    assert load(SMALLEST | {"stem": "a.safetensors"}).stem.checkpoint == "a.safetensors"


def test_the_checked_study_says_the_same_as_its_dump() -> None:
    study = load(yaml.safe_load((REPOSITORY / "config.yaml").read_text()))
    assert load(json.loads(study.model_dump_json())) == study


def test_a_study_is_read_as_windows_saves_it(tmp_path: Path) -> None:
    text = (REPOSITORY / "config.yaml").read_text().replace("\n", "\r\n")
    (tmp_path / "study.yaml").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert read(tmp_path / "study.yaml") == read(REPOSITORY / "config.yaml")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder with a symbolic link in it, and a variable that leads there."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.delenv("NOWHERE", raising=False)
    (tmp_path / "large" / "disk").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "large" / "disk")
    return tmp_path


@pytest.mark.parametrize(
    ("written", "used"),
    [
        ("results/", "results"),
        ("./a//b/../results", "a/results"),
        ("../shared/", "../shared"),
        ("~/study", "{home}/study"),
        ("$SCRATCH/study", "{home}/scratch/study"),
        ("${SCRATCH}/../study/", "{home}/study"),
        # As for every program: out of the folder that the link names.
        ("~/link/../study", "{home}/large/study"),
        ("~/link/study", "{home}/link/study"),
        ("a~b", "a~b"),
    ],
)
def test_paths_are_used_as_the_shell_would_take_them(home: Path, written: str, used: str) -> None:
    used = used.format(home=home)
    study = load(
        {
            **SMALLEST,
            "results": written,
            "dataset": {"channels": ["t1n"], "layout": "table", "root": written, "file": written},
            "folds": {"file": written},
            "stem": written,
            "predict": {"input": written, "output": written, "models": [written]},
            "comparison": {"test_sets": {"outside": written}},
        }
    )
    assert study.results == used
    assert (study.dataset.root, study.dataset.file, study.folds.file) == (used, used, used)
    assert study.stem.checkpoint == used
    assert (study.predict.input, study.predict.output, study.predict.models) == (used, used, [used])
    assert study.comparison.test_sets == {"outside": used}


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("$NOWHERE/study", "`results`: the variable $NOWHERE is not set here: set it before"),
        ("a/${NOWHERE}", "`results`: the variable ${NOWHERE} is not set here"),
        ("a/~/b", "`results`: `~` is the home folder at the beginning alone"),
        ("~no-such-user/b", "`results`: `~no-such-user` is nobody's home folder here"),
    ],
)
def test_a_path_that_leads_nowhere_is_refused(home: Path, path: str, said: str) -> None:
    assert said in refused(results=path)


def test_a_file_without_a_study_is_refused(tmp_path: Path) -> None:
    for content, said in ((None, "no such file"), ("a: [", "is not YAML"), ("7", "no settings")):
        file = tmp_path / "study.yaml"
        if content is not None:
            file.write_text(content)
        with pytest.raises(InputError, match=said):
            read(file)


@pytest.mark.parametrize(
    ("hidden", "said"),
    [
        ({"SITE_*": ["Et"]}, "names `Et`, which is no region; did you mean `ET`"),
        ({"SITE_*": ["TC", "WT", "ET"]}, "names every region"),
        ({"SITE_*": []}, "names no region for `SITE_\\*`"),
        ({"SITE_*": ["ET", "ET"]}, "names a region twice"),
    ],
)
def test_regions_that_are_not_annotated_are_some_of_the_studys(
    hidden: dict[str, list[str]], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        small_study(dataset={"not_annotated": hidden})


def test_a_study_in_which_all_is_annotated_is_written_down_as_before() -> None:
    content = small_study(dataset={"not_annotated": {}}).model_dump(mode="json")
    assert content == small_study().model_dump(mode="json")
    assert "not_annotated" not in content["dataset"]


# The primary question


@pytest.mark.parametrize(
    ("recipes", "model"),
    [
        (["greedy", "uniform"], "greedy"),
        (["uniform", "ensemble"], "uniform"),
        (["best", "ensemble"], "ensemble"),
        (["best"], "best"),
        (["uniform", "greedy", "finished-best", "finished"], "finished"),
        (["uniform", "greedy", "finished-best"], "greedy"),
    ],
)
def test_a_study_is_about_its_finished_soup_or_greedy_or_its_first_one(
    recipes: list[str], model: str
) -> None:
    assert primary_model(recipes) == model


def test_the_primary_question_has_a_default_that_changes_no_study() -> None:
    study = load(SMALLEST | {"soup": {"recipes": ["uniform", "ensemble"]}})
    assert (study.primary.model, study.primary.against) == ("uniform", "best")
    assert study.compared_recipes == ["uniform", "ensemble"]
    assert "comparison" not in study.model_dump(mode="json")
    asked = load(SMALLEST | {"comparison": {"primary": {"against": "uniform"}}})
    assert (asked.primary.model, asked.primary.against) == ("greedy", "uniform")
    assert "primary" in asked.model_dump(mode="json")["comparison"]


@pytest.mark.parametrize(
    ("primary", "said"),
    [
        ({"model": "finished"}, "`finished`, which this study does not make"),
        ({"model": "finished"}, "one of greedy, uniform"),
        ({"model": "gredy"}, "did you mean `greedy`?"),
        ({"model": "best"}, "`comparison.primary.model` is `best`, which"),
        ({"against": "ensemble"}, "`comparison.primary.against` is `ensemble`"),
        ({"against": "ensemble"}, "one of best, greedy, uniform"),
        ({"against": "greedy"}, "compares `greedy` with itself"),
        ({"modle": "greedy"}, "did you mean `model`?"),
    ],
)
def test_a_primary_question_about_models_that_the_study_does_not_make_is_refused(
    primary: dict[str, str], said: str
) -> None:
    assert said in refused(comparison={"primary": primary})


@pytest.mark.parametrize("address", ["https://me:s3cret@a.org", "https://a.org?key=s3cret"])
def test_an_address_with_a_key_is_refused(address: str) -> None:
    message = refused(tracking={"tool": "mlflow", "address": address})
    assert "set the tracker's environment variables instead" in message


def test_the_password_of_a_refused_address_is_not_printed() -> None:
    message = refused(tracking={"tool": "mlflow", "address": "https://me:s3cret@a.org"})
    assert "s3cret" not in message


@pytest.mark.parametrize("tracking", ["wandb", {"tool": "wandb", "experiment": "tumours 1"}])
def test_editors_accept_both_forms_of_a_tracker(tracking: Any) -> None:
    jsonschema.validate(SMALLEST | {"tracking": tracking}, json_schema())
    assert load(SMALLEST | {"tracking": tracking}).tracking.tool == "wandb"


def test_a_study_without_a_tracker_is_written_down_as_before() -> None:
    assert "tracking" not in load(SMALLEST).model_dump()
    assert load(SMALLEST | {"tracking": "none"}) == load(SMALLEST)
