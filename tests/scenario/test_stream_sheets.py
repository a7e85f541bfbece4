"""Workbooks of systems: read, repaired, refused; any bytes make an error or a pipeline, never a traceback."""

import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetcast.base.errors import FleetcastError, MissingExtra, SpecError
from fleetcast.scenario.workload.pipeline import resolve
from fleetcast.scenario.workload.sheets import read_system
from fleetcast.scenario.workload.streams import Repair, Stream

openpyxl = pytest.importorskip("openpyxl", reason="workbooks need openpyxl, which the extra 'data' installs")

DETECTORS = [
    ["Category", "Detector", "Data (bytes)", "Sample Rate", "Compression", "Link Efficiency (J/bit)",
     "Op Efficiency (J/op)"],
    ["Front", "pixel", 1000, 1e6, 0, 2e-11, 0],
    ["Front", "strip", 500, 1e6, 0.5, 2e-11, 0],
]  # fmt: skip
PROCESSORS = [
    ["Name", "Output", "Data (bytes)", "Reduction Ratio", "Classifier", "Skill mean", "Skill variance",
     "Link Efficiency (J/bit)", "Op Efficiency (J/op)", "Compression"],
    ["Front", "Farm", 10, 50, "Gaussian", 3, 1, 1e-11, 1e-9, 0],
    ["Farm", "Disk", 0, 10, None, 4, 1, 1e-11, 1e-8, 0],
    ["Disk", None, 0, 1, "Dummy", 0, 0, 0, 0, 0],
]  # fmt: skip


def book(path: Path, **sheets: list[list[Any]]) -> Path:
    made = openpyxl.Workbook()
    made.remove(made.active)
    for title, rows in (
        {"Detectors": DETECTORS, "Processors": PROCESSORS, "Global": [["Year"], [2030]]} | sheets
    ).items():
        sheet = made.create_sheet(title)
        for row in rows:
            sheet.append(row)
    made.save(path)
    return path


def with_cell(rows: list[list[Any]], row: int, column: int, value: Any) -> list[list[Any]]:
    found = [list(r) for r in rows]
    found[row][column] = value
    return found


def test_a_workbook_is_a_pipeline(tmp_path: Path) -> None:
    nodes, notes = read_system(book(tmp_path / "s.xlsx"), Repair())
    assert [n.name for n in nodes] == ["pixel", "strip", "Front", "Farm", "Disk"]
    assert "2030" in notes[0]
    system = resolve(Stream(system="s.xlsx"), tmp_path)
    front = system.nodes[system.place("Front", "p")]
    assert (front.ratio, front.size, front.op_energy, front.link.energy) == (50, 10, 1e-9, 1e-11)
    assert front.classifier is not None
    # a choice without a word in its column is made by skill and variance
    farm = system.nodes[system.place("Farm", "p")]
    assert farm.classifier is not None
    assert (front.classifier.skill, farm.classifier.skill) == (3, 4)
    assert system.nodes[-1].name == "Disk"


@pytest.mark.parametrize(
    ("sheets", "said"),
    [
        ({"Processors": [["Name"]]}, "has no rows"),
        ({"Processors": with_cell(PROCESSORS, 0, 3, "Reduction")}, "lacks a column.*Reduction Ratio.*Did you mean"),
        ({"Processors": with_cell(PROCESSORS, 1, 3, 0.5)}, "Front, Reduction Ratio: is out of range"),
        ({"Processors": with_cell(PROCESSORS, 1, 3, "many")}, "Front, Reduction Ratio: is not a number"),
        ({"Processors": with_cell(PROCESSORS, 1, 4, "L1T")}, "is not a classifier of this workload.*L1T"),
        ({"Processors": with_cell(PROCESSORS, 1, 1, "Form")}, "is not a node of the stream.*Did you mean 'Farm'"),
        ({"Processors": with_cell(PROCESSORS, 1, 0, None)}, "row 2, Name: is empty"),
        ({"Processors": with_cell(PROCESSORS, 2, 0, "Front")}, "has a node twice"),
        ({"Detectors": with_cell(DETECTORS, 1, 3, 0)}, "Sample Rate: is out of range"),
        ({"Detectors": with_cell(DETECTORS, 1, 2, -5)}, r"pixel, Data \(bytes\): is not a number from 0"),
        ({"Detectors": with_cell(DETECTORS, 2, 4, 1)}, "Compression: leaves nothing"),
    ],
)  # fmt: skip
def test_cells_that_cannot_be_are_refused(tmp_path: Path, sheets: dict[str, Any], said: str) -> None:
    book(tmp_path / "s.xlsx", **sheets)
    with pytest.raises(SpecError, match=said):
        resolve(Stream(system="s.xlsx"), tmp_path)


def test_repairs_name_what_is_meant(tmp_path: Path) -> None:
    triggers = [
        ["Name", "Output", "Data (bytes)", "True Pass", "True Discard", "Skill mean", "Skill variance"],
        ["Front", "None", 0, 1, 49, 3, 1],
    ]  # fmt: skip
    path = book(tmp_path / "s.xlsx", Triggers=triggers)
    fill = {"Processors/Link Efficiency (J/bit)": 3e-11, "Op Efficiency (J/op)": 7e-9}
    repair = Repair(sheets={"Processors": "Triggers"}, fill=fill)
    nodes, _ = read_system(path, repair)
    front = nodes[-1]
    assert front.ratio == 50.0  # one passes, 49 do not
    assert front.link is not None
    assert (front.link.energy, front.op_energy) == (3e-11, 7e-9)
    assert nodes[0].op_energy == 0  # the sheet has that column: nothing to fill
    renamed = book(tmp_path / "r.xlsx", Processors=with_cell(PROCESSORS, 0, 3, "Reduction"))
    assert read_system(renamed, Repair(columns={"Reduction Ratio": "Reduction"}))[0][2].ratio == 50
    with pytest.raises(SpecError, match="is not a sheet of ours"):
        read_system(path, Repair(sheets={"Procesors": "Triggers"}))
    with pytest.raises(SpecError, match="has no sheet None"):
        read_system(path, Repair(sheets={"Processors": "None"}))


def test_files_that_are_no_workbooks_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.xlsx"
    path.write_bytes(b"not a zip")
    with pytest.raises(SpecError, match="is not a workbook"):
        read_system(path, Repair())
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("xl/workbook.xml", b"0" * (257 << 20))
    with pytest.raises(SpecError, match="unpacks to too much"):
        read_system(path, Repair())
    with pytest.raises(SpecError, match="is not a file"):
        read_system(tmp_path / "none.xlsx", Repair())


def test_without_openpyxl_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    path = book(tmp_path / "s.xlsx")
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(MissingExtra, match=r"fleetcast\[data\]"):
        read_system(path, Repair())


@given(at=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=30), cut=st.floats(0.3, 1.0))
def test_broken_bytes_make_an_error_or_a_pipeline(
    at: list[tuple[float, int]], cut: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    data = bytearray(book(folder / "s.xlsx").read_bytes())
    for place, value in at:
        data[int(place * (len(data) - 1))] = value
    (folder / "s.xlsx").write_bytes(data[: int(cut * len(data))])
    try:
        resolve(Stream(system="s.xlsx"), folder)
    except FleetcastError as error:
        assert str(error)


CELLS = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 10**9), st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["", "Front", "Farm", "Disk", "None", "L1T", "Dummy", "#REF!", "1e9", "=A1"]),
)  # fmt: skip


@given(changes=st.lists(st.tuples(st.booleans(), st.integers(0, 3), st.integers(0, 9), CELLS), min_size=1, max_size=5))
def test_any_cells_make_an_error_or_a_pipeline(
    changes: list[tuple[bool, int, int, Any]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    tables = {True: [list(r) for r in DETECTORS], False: [list(r) for r in PROCESSORS]}
    for which, row, column, value in changes:
        table = tables[which]
        table[row % len(table)][column % len(table[0])] = value
    folder = tmp_path_factory.mktemp("fuzz")
    book(folder / "s.xlsx", Detectors=tables[True], Processors=tables[False])
    try:
        resolve(Stream(system="s.xlsx"), folder)
    except FleetcastError as error:
        assert str(error)
