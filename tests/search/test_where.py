"""Where to compute with data: every way costed, the best first, and clear words for questions that cannot be."""

import pytest

from fleetcast.base.errors import SpecError
from fleetcast.cost import data as cost
from fleetcast.search.where import read_question, ways


def table(**change):
    made = {
        "fleet": {
            "network": "wan-1g",
            "groups": [
                {"name": "beamline", "devices": "1x rtx-4090"},
                {"name": "centre", "devices": "8x h100-sxm"},
            ],
        },
        "data": {"at": "beamline", "size": "200 GB"},
        "work": {"flop": 2e18, "dtype": "bf16", "result": "1 GB"},
    }  # fmt: skip
    for key, value in change.items():
        part, _, name = key.partition("_")
        made.setdefault(part, {})[name] = value
    return made


def best(**change):
    return ways(read_question(table(**change)))[0]


def test_every_group_has_its_ways_and_the_quickest_is_first():
    found = ways(read_question(table()))
    assert {(w.group, w.how) for w in found} == {("beamline", "there"), ("centre", "mount"), ("centre", "copy")}
    assert [w.seconds for w in found] == sorted(w.seconds for w in found)
    for way in found:
        assert way.seconds == pytest.approx(max(way.data, way.environment) + way.compute + way.result)


def test_little_work_stays_with_the_data_and_much_work_goes_to_the_devices():
    assert best(work_flop=1e12).how == "there"
    assert best(work_flop=1e19).group == "centre"


def test_reading_a_little_is_a_mount_and_reading_all_often_a_copy():
    assert best(data_read=0.001, work_flop=1e19).how == "mount"
    assert best(data_read=1.0, data_passes=20, work_flop=1e19).how == "copy"


def test_times_are_those_of_the_cost_model():
    question = read_question(table())
    found = {(w.group, w.how): w for w in ways(question)}
    link = question.tree.path(question.tree.group("beamline"), question.tree.group("centre"))
    path = cost.Path(link[0].bandwidth, 2 * link[0].latency, question.network.window)
    assert found["centre", "copy"].data == pytest.approx(cost.copied(2e11, path, streams=4).wire)
    assert found["centre", "mount"].data == pytest.approx(cost.mounted(2e11, path, share=1.0).wire)
    group = question.tree.group("centre")
    assert found["centre", "copy"].compute == pytest.approx(2e18 / (group.device.rate("bf16") * 8 * 0.3))


def test_programs_that_are_elsewhere_travel_too():
    free = {w.group: w for w in ways(read_question(table(work_environment="100 GB")))}
    assert free["beamline"].environment == 0
    home = {(w.group, w.how): w for w in ways(read_question(table(work_environment="100 GB", work_home="centre")))}
    assert home["beamline", "there"].environment > 800 and home["centre", "copy"].environment == 0
    assert home["beamline", "there"].moved == 1e11


def test_a_group_that_lacks_the_format_is_left_out():
    made = table(work_dtype="fp8")
    made["fleet"]["groups"][0]["devices"] = "1x v100-sxm2-32g"
    assert {w.group for w in ways(read_question(made))} == {"centre"}


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"data_at": "nowhere"}, "data.at"), ({"data_size": "-1 GB"}, "data.size"), ({"data_read": 1.5}, "data.read"),
        ({"data_passes": 0}, "data.passes"),
        ({"work_flop": "much"}, "work.flop"), ({"work_dtype": "int3"}, "work.dtype"),
        ({"work_efficiency": 0}, "work.efficiency"), ({"work_home": "x"}, "work.home"), ({"data_sise": 1}, "data.sise"),
        ({"network_streams": 0}, "network.streams"), ({"network_window": 0}, "network.window"), ({"nets_x": 1}, "nets"),
    ],
)  # fmt: skip
def test_questions_that_cannot_be(change, where):
    with pytest.raises(SpecError) as error:
        ways(read_question(table(**change)))
    assert error.value.path == where
    assert error.value.limit or error.value.hint


def test_parts_that_are_missing_or_no_tables(tmp_path):
    for part in ("fleet", "data", "work"):
        made = table()
        del made[part]
        with pytest.raises(SpecError, match=f"{part}: is missing"):
            read_question(made)
        with pytest.raises(SpecError, match="is not a table"):
            read_question(made | {part: 3})
    with pytest.raises(SpecError, match="is not a file"):
        read_question(tmp_path / "none.toml")
