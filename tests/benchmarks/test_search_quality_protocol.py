from __future__ import annotations

import pytest
from search_quality.bench import Bench, Network
from search_quality.command import chosen_settings, search_settings
from search_quality.protocol import FORMS, QUICK, TINY, WHOLE, Protocol

from dmask_mobile.costs.counts import Macs
from dmask_mobile.errors import DmaskError
from dmask_mobile.search.settings import SearchSettings


@pytest.mark.parametrize("protocol", FORMS.values(), ids=FORMS)
def test_every_budget_is_within_its_space(protocol: Protocol) -> None:
    for setting in protocol.settings:
        low, high = Macs().on(setting.search_space(10)).reachable()
        assert low < 0.9 * setting.budget_macs < 1.1 * setting.budget_macs < high
        assert {"searched", "random", "uniform"} <= {*setting.contenders}


def test_the_search_is_not_judged_by_seeds_that_it_was_developed_on() -> None:
    trained = range(WHOLE.first_seed, WHOLE.first_seed + max(WHOLE.searches * WHOLE.trainings, WHOLE.random_children))
    assert not set(QUICK.seeds) & {*WHOLE.seeds, *trained}


def test_settings_of_the_search_are_changed_by_field() -> None:
    found = search_settings(["epochs=7", "method=dmasking", "control.entropy_rate=0.5"])
    assert (found.epochs, found.method, found.control.entropy_rate) == (7, "dmasking", 0.5)
    assert found.model_fields_set == {"epochs", "method", "control"}
    with pytest.raises(DmaskError, match="nonsense"):
        search_settings(["nonsense=1"])
    with pytest.raises(DmaskError, match="'epochs' is no change; give FIELD=VALUE"):
        search_settings(["epochs"])


def test_data_that_is_absent_is_skipped_and_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DmaskError, match="no data to compare on"):
        chosen_settings(QUICK, {"photographs": "folder:/nowhere"}, [])
    assert "photographs is skipped: no folder of images '/nowhere'" in capsys.readouterr().err
    with pytest.raises(DmaskError, match="no setting or data 'cats' in this form; there are glyphs"):
        chosen_settings(TINY, {}, ["cats"])


def test_mobilenets_have_the_widths_that_they_are_given(tmp_path) -> None:  # type: ignore[no-untyped-def]
    bench = Bench(tmp_path, TINY, TINY.settings[0], {"classes": 36}, "", SearchSettings())
    weights = [
        sum(parameter.numel() for parameter in bench.module(Network(variant="small", multiplier=m), 0).parameters())
        for m in (0.25, 0.5, 1.0)
    ]
    assert weights[0] < weights[1] < weights[2]
    assert bench.resolution(Network(variant="small")) == 16


@pytest.mark.parametrize(
    ("only", "chosen"),
    [
        (["glyphs"], ["glyphs"]),
        (["fashion_mnist"], ["fashion_mnist_small", "fashion_mnist_large"]),
        (["photographs", "glyphs_untied"], ["glyphs_untied", "photographs"]),
        ([], [setting.name for setting in WHOLE.settings]),
    ],
)
def test_only_names_one_setting_or_all_of_a_data_set(only: list[str], chosen: list[str]) -> None:
    sources = dict.fromkeys(("fashion_mnist", "glyphs", "photographs"), "glyphs")
    assert [setting.name for setting in chosen_settings(WHOLE, sources, only)] == chosen
