"""What the operating system says, and what is assumed where it says nothing."""

from fleetcast.runtime.measure.machine import Machine, cache_sizes, this_machine


def test_this_machine_is_plausible():
    found = this_machine()
    assert found.cores >= 1 and found.memory > 1e8 and 1e4 < found.own <= found.last
    assert found.name and found.id and " " not in found.id


def test_linux_describes_its_caches(tmp_path):
    for i, (kind, level, size) in enumerate([("Data", 1, "48K"), ("Instruction", 1, "32K"), ("Unified", 2, "1024K"),
                                             ("Unified", 3, "32M"), ("Unified", 4, "odd")]):  # fmt: skip
        folder = tmp_path / f"index{i}"
        folder.mkdir()
        for name, value in (("type", kind), ("level", level), ("size", size)):
            (folder / name).write_text(f"{value}\n")
    (tmp_path / "index9").mkdir()
    assert cache_sizes(tmp_path) == {1: 48 << 10, 2: 1 << 20, 3: 32 << 20}
    assert cache_sizes(tmp_path / "none") == {}


def test_ids_are_like_the_catalogue_s():
    def named(name, cores):
        return Machine(name=name, vendor="x", cores=cores, memory=1e9, own=1e6, last=1e7, clock=0.0).id

    assert named("Intel(R) Xeon(R) Platinum 8480+ CPU @ 2.00GHz", 56) == "intel-xeon-platinum-8480-56-cores"
    assert named("AMD EPYC 9654 96-Core Processor", 1) == "amd-epyc-9654-96-core-1-core"
    assert named("???", 2) == "cpu-2-cores"
