"""The published model of HEP data collection: its own outputs on its own sheets, where both are at hand."""

import pytest

pytest.importorskip("openpyxl", reason="workbooks need openpyxl, which the extra 'data' installs")

from benchmarks import streams as bench

pytestmark = pytest.mark.skipif(bench.sheets() is None, reason="the published sheets and outputs are not at hand")


@pytest.mark.parametrize("name", bench.SYSTEMS)
@pytest.mark.parametrize("farm", ["cpu", "gpu"])
def test_gaussian_rows_are_the_published_ones(name: str, farm: str) -> None:
    for metric, (ours, theirs) in bench.against(name, farm).items():
        assert ours == pytest.approx(theirs, rel=bench.BAR), metric


def test_as_shipped_three_load_and_three_name_what_they_lack() -> None:
    loads = {name: bench.problem(name) for name in bench.SYSTEMS}
    assert [name for name, said in loads.items() if said is None] == [
        "cms_system_60", "cms_system_200", "cms_system_200_smartpx", "cms_system_200_smartpx_uled",
    ]  # fmt: skip
    assert "Reduction Ratio" in str(loads["cms_system_140"])
    assert "Triggers" in str(loads["fcchh_system_950"])


def test_the_upgrade_saves_sixty_percent() -> None:
    found = bench.upgrades(measured=False)
    before, after = found["as it is"], found["+".join(bench.UPGRADES)]
    assert 1 - after.metrics["power"] / before.metrics["power"] == pytest.approx(0.604, abs=0.002)
