"""The fleet's tree: nothing is lost, the slowest link binds, contradictions are named."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetcast.base.errors import SpecError
from fleetcast.base.spec import convert, read_toml
from fleetcast.scenario.fleet import catalog
from fleetcast.scenario.fleet.tree import Fleet, parse_devices, resolve


def tree(text, base=None):
    return resolve(convert(read_toml(text, "test")["fleet"], Fleet, "fleet"), base)


NESTED = """
[fleet]
network = "wan"
[[fleet.groups]]
name = "site"
link = "ethernet-100g"
[[fleet.groups.groups]]
name = "rack"
count = 2
link = "infiniband-ndr"
[[fleet.groups.groups.groups]]
name = "node"
count = 4
devices = "8x h100-sxm"
[[fleet.groups]]
name = "edge"
link = "wifi-6"
devices = "2x jetson-agx-orin + 3x raspberry-pi-5"
"""


def test_one_line():
    found = tree('[fleet]\ndevices = "8x h100-sxm"')
    (group,) = found.groups
    assert (group.name, group.count, group.node, group.nodes) == ("h100-sxm", 8, 8, 1)
    assert (group.link.id, group.network.id) == ("nvlink-4", "infiniband-ndr")
    assert found.link_between(group, group).id == "nvlink-4"
    assert found.price == pytest.approx(8 * group.device.price)
    assert found.power == (8 * group.device.power.idle, 5600)
    assert any("price of h100-sxm" in note and "2025" in note for note in found.echo())


@pytest.mark.parametrize("text", ["8x h100-sxm", "8 x h100-sxm", "8X H100_SXM", "8× h100", "8* h100"])
def test_spellings_of_a_line(text):
    assert [(n, d.id) for n, d in parse_devices(text)] == [(8, "h100-sxm")]


def test_more_than_a_node_is_several_nodes_and_said_so():
    found = tree('[fleet]\ndevices = "20x h100-sxm"')
    (group,) = found.groups
    assert (group.count, group.node, group.nodes) == (20, 8, 3)
    assert found.link_between(group, group).id == "infiniband-ndr"
    assert any("3 nodes of 8" in n and "default infiniband-ndr" in n for n in found.echo())


def test_two_kinds_of_devices():
    found = tree('[fleet]\ndevices = "4x h100-sxm + 4x a100-80g-sxm"')
    assert [(g.name, g.count) for g in found.groups] == [("h100-sxm", 4), ("a100-80g-sxm", 4)]
    assert found.link_between("h100-sxm", "a100-80g-sxm").id == "infiniband-hdr", "the slower of two"
    assert any("between the groups of the fleet" in note for note in found.echo())
    twice = tree('[fleet]\ndevices = "4x h100 + 4x h100"')
    assert [group.name for group in twice.groups] == ["h100-sxm", "h100-sxm-2"]


def test_nested_groups():
    found = tree(NESTED)
    names = [group.name for group in found.groups]
    assert names == [
        "site/rack[0]/node", "site/rack[1]/node", "edge/jetson-agx-orin", "edge/raspberry-pi-5",
    ]  # fmt: skip
    assert found.devices == 2 * 4 * 8 + 5
    rack = found.group(names[0])
    assert (rack.count, rack.node, rack.nodes, rack.network.id) == (32, 8, 4, "infiniband-ndr")
    between = {
        (0, 0): "infiniband-ndr", (0, 1): "ethernet-100g", (2, 3): "wifi-6", (0, 2): "wifi-6",
        (1, 3): "wifi-6",
    }  # fmt: skip
    for (a, b), id_ in between.items():
        assert found.link_between(names[a], names[b]).id == id_
        assert found.link_between(names[b], names[a]).id == id_


def test_copies_with_unequal_nodes_stay_apart():
    found = tree('[[fleet.groups]]\nname = "pod"\ncount = 3\ndevices = "12x h100-sxm"')
    assert [(g.name, g.count, g.nodes) for g in found.groups] == [
        ("pod[0]", 12, 2), ("pod[1]", 12, 2), ("pod[2]", 12, 2),
    ]  # fmt: skip


def test_price_pue_and_limit():
    found = tree(
        '[fleet]\ndevices = "4x h100-sxm + 2x gb300"\n'
        'price = { h100_sxm = "2.50 $/h", gb300 = 12 }\npue = 1.2\ngrid = "PJM"\n'
        'power_limit = "500 W"'
    )
    assert [(g.price, g.limit) for g in found.groups] == [(2.5, 500), (12, 500)]
    assert (found.price, found.pue, found.grid) == (34, 1.2, "PJM")
    assert not [note for note in found.echo() if "price" in note or "pue" in note]
    unpriced = tree('[fleet]\ndevices = "2x gb300"')
    assert unpriced.price is None and any("none known" in note for note in unpriced.echo())


def test_a_fleet_s_own_file(tmp_path):
    (tmp_path / "lab.toml").write_text('[fleet]\ndevices = "16x a100"\npue = 1.4\ngrid = "germany"')
    found = tree('[fleet]\ndevices = "lab.toml"\ngrid = "400 g/kWh"', tmp_path)
    assert (found.devices, found.pue, found.grid, found.base) == (16, 1.4, "400 g/kWh", tmp_path)
    (tmp_path / "bare.toml").write_text('devices = "2x l4"')
    assert tree('[fleet]\ndevices = "bare.toml"', tmp_path).devices == 2
    (tmp_path / "loop.toml").write_text('devices = "loop.toml"')
    with pytest.raises(SpecError, match="names another file"):
        tree('[fleet]\ndevices = "loop.toml"', tmp_path)
    with pytest.raises(SpecError, match=r"cannot be read: .*none\.toml"):
        tree('[fleet]\ndevices = "none.toml"', tmp_path)
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SpecError, match="cannot be read"):
        tree('[fleet]\ndevices = "binary.toml"', tmp_path)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("[fleet]", ["fleet: names no devices", "8x h100-sxm"]),
        ('[fleet]\ndevices = "8x h100"\n[[fleet.groups]]\ndevices = "1x l4"',
         ["fleet: has both devices and groups"]),
        ('[fleet]\ndevices = "0x h100"', ["fleet.devices", "'0x h100'", "1 to"]),
        ('[fleet]\ndevices = "-3x h100"', ["fleet.devices", "1 to"]),
        ('[fleet]\ndevices = "8x h10"', ["fleet.devices", "'h10'", "Did you mean 'h100'"]),
        ('[fleet]\ndevices = "8x h100 +"', ["fleet.devices: has an empty term"]),
        ('[fleet]\ndevices = "8x h100"\nnetwork = "ndrr"', ["fleet.network", "Did you mean 'ndr'"]),
        ('[fleet]\ndevices = "8x h100"\nlink = "warp"', ["fleet.link", "'warp'", "catalog links"]),
        ('[fleet]\ndevices = "8x h100"\nprice = { h100-sxm = -1 }',
         ["fleet.price.h100-sxm", "got -1", "at least 0 $/h"]),
        ('[fleet]\ndevices = "8x h100"\nprice = { h100 = "2 W" }',
         ["fleet.price.h100", "wrong unit"]),
        ('[fleet]\ndevices = "8x h100"\nprice = { l4 = 1 }', ["fleet.price.l4", "it has h100-sxm"]),
        ('[fleet]\ndevices = "8x h100"\nprice = { h100 = 1, h100_sxm = 2 }', ["second price"]),
        ('[fleet]\ndevices = "8x h100"\npue = 0.9', ["fleet.pue", "got 0.9", "1.0"]),
        ('[fleet]\ndevices = "8x h100"\npue = nan', ["fleet.pue", "got nan"]),
        ('[fleet]\ndevices = "8x h100"\npower_limit = "50 W"',
         ["fleet.power_limit", "got 50", "115 W", "700 W"]),
        ('[fleet]\ndevices = "8x h100"\npower_limit = "50 h"',
         ["fleet.power_limit", "wrong unit 'h'"]),
        ('[fleet]\ndevice = "8x h100"', ["fleet.device", "Did you mean 'devices'"]),
        ('[[fleet.groups]]\ncount = 0\ndevices = "1x l4"', ["fleet.groups[0].count", "got 0"]),
        ('[[fleet.groups]]\nname = "x"', ["fleet.groups[0]", "neither devices nor groups"]),
        ('[[fleet.groups]]\nname = "a/b"\ndevices = "1x l4"', ["fleet.groups[0].name", "'a/b'"]),
        ('[[fleet.groups]]\ndevices = "1x l4"\n[[fleet.groups.groups]]\ndevices = "1x l4"',
         ["fleet.groups[0]", "both devices and groups"]),
        ('[[fleet.groups]]\n[[fleet.groups.groups]]\ndevices = "1x l4"\nlink = "foo"',
         ["fleet.groups[0].groups[0].link", "'foo'"]),
        ('[fleet]\nlink = "pcie"\n[[fleet.groups]]\ndevices = "1x l4"',
         ["fleet.link", "fleet.network"]),
    ],
)  # fmt: skip
def test_contradictions_name_path_value_limit_and_next_step(text, parts):
    with pytest.raises(SpecError) as caught:
        tree(text)
    for part in parts:
        assert part in str(caught.value)


def test_unknown_group_is_answered_with_the_nearest():
    with pytest.raises(SpecError, match="Did you mean 'h100-sxm'"):
        tree('[fleet]\ndevices = "2x h100"').group("h100_sxm", "plan.pools[0].on")


devices_lines = st.lists(
    st.tuples(st.integers(1, 40), st.sampled_from(["h100-sxm", "a100", "l4", "gb200", "m4-max"])),
    min_size=1, max_size=3,
)  # fmt: skip
links_or_none = st.sampled_from(["", "infiniband-ndr", "ethernet-25g", "wan-1g"])


@st.composite
def groups(draw, depth=2):
    group = {"count": draw(st.integers(1, 3)), "link": draw(links_or_none)}
    if depth == 0 or draw(st.booleans()):
        group["devices"] = " + ".join(f"{n}x {d}" for n, d in draw(devices_lines))
    else:
        group["groups"] = draw(st.lists(groups(depth - 1), min_size=1, max_size=3))
    return group


def written(group):
    inside = (
        sum(n for n, _ in parse_devices(group["devices"])) if "devices" in group else sum(map(written, group["groups"]))
    )
    return group["count"] * inside


@given(st.lists(groups(), min_size=1, max_size=3), links_or_none)
def test_every_device_is_in_one_leaf_and_links_bind(tops, network):
    found = resolve(convert({"groups": tops, "network": network}, Fleet, "fleet"))
    assert found.devices == sum(map(written, tops))
    names = [group.name for group in found.groups]
    assert len(set(names)) == len(names)
    for group in found.groups:
        assert 1 <= group.node <= group.device.node and group.name == "/".join(group.path)
        assert (group.nodes - 1) * group.node < group.count <= group.nodes * group.node
    for a in found.groups[:4]:
        for b in found.groups[-4:]:
            link = found.link_between(a, b)
            assert link == found.link_between(b, a)
            if a.path[0] != b.path[0]:
                assert link.bandwidth <= found.joins[()].bandwidth
    idle, most = found.power
    assert 0 < idle < most < math.inf


def test_many_groups_resolve_quickly():
    inner = [{"name": "n", "devices": "4x l4"}, {"name": "m", "devices": "4x a40"}]
    found = resolve(convert({"groups": [{"count": 2000, "groups": inner}]}, Fleet, "fleet"))
    assert len(found.groups) == 4000 and found.devices == 16000


def test_the_catalogue_is_read_once():
    assert catalog.device("h100") is catalog.device("h100_sxm")
