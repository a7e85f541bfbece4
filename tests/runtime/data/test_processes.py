"""Instrument, gateway and vault as processes: killed whenever, nothing is lost; the instrument never listens."""

import json
import os
import shutil
import subprocess
import sys

import pytest

pytest.importorskip("aiohttp", reason="aiohttp is not installed")
pytest.importorskip("obstore", reason="obstore is not installed")
if sys.platform != "linux":
    pytest.skip("reads /proc", allow_module_level=True)

from benchmarks.data_chain import Started, killed, listening
from fleetcast.runtime.data.access import grant
from fleetcast.runtime.data.vault import Vault, open_store


@pytest.fixture
def tokens(tmp_path):
    path = tmp_path / "tokens.toml"
    return path, grant(path, "*", ("read", "write"))


@pytest.mark.slow
def test_whoever_is_killed_whenever_the_file_arrives_as_it_was(tmp_path):
    seed = int(os.environ.get("FLEETCAST_SEED", "7"))
    found = killed(tmp_path, seed, size=1_500_000, bandwidth=1.2e6)
    assert found["equal"], found
    assert sum(found["kills"].values()) >= 3


def test_the_instrument_listens_nowhere_and_cannot(tmp_path, tokens):
    path, token = tokens
    folder = tmp_path / "instrument"
    folder.mkdir()
    (folder / "a.bin").write_bytes(b"x")
    (folder / "secret").symlink_to("/etc/hostname")
    (folder / ".hidden").write_text("x")
    vault = Started(token, "vault", tmp_path / "vault", "--tokens", path, "--port", 0)
    words = ("push", folder, "--to", vault.url, "--project", "alpha", "--watch", "--settle", "0.1 s")
    instrument = Started(token, *words, serves=False)
    try:
        said = json.loads(instrument.line())
        assert said["name"] == "a.bin"
        assert listening(instrument.process.pid) == []
        assert listening(vault.process.pid) == [vault.port], "the look itself finds listeners"
        assert Vault(open_store(str(tmp_path / "vault"))).names("alpha") == ["a.bin"]
    finally:
        instrument.kill()
        vault.kill()


def test_a_process_that_never_listens_can_still_connect():
    code = (
        "import socket\n"
        "from fleetcast.runtime.data.push import never_listen\n"
        "server = socket.socket(); server.bind(('127.0.0.1', 0)); server.listen()\n"
        "never_listen()\n"
        "socket.create_connection(server.getsockname()).close()\n"
        "try:\n    socket.socket().bind(('127.0.0.1', 0))\n"
        "except PermissionError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert "accepts no connections" in done.stdout


def test_the_commands_one_after_the_other(tmp_path, tokens):
    path, token = tokens
    folder = tmp_path / "instrument"
    (folder / "run 1").mkdir(parents=True)
    (folder / "run 1" / "a.bin").write_bytes(b"abc")
    os.utime(folder / "run 1" / "a.bin", (1e9, 1e9))
    vault = Started(token, "vault", tmp_path / "vault", "--tokens", path, "--port", 0)
    try:
        push = Started(token, "push", folder, "--to", vault.url, "--project", "alpha", serves=False)
        said = push.said()
        assert push.code == 0 and [s["name"] for s in said["sent"]] == ["run 1/a.bin"]
        listed = Started(token, "list", vault.url, "--project", "alpha", serves=False)
        assert listed.said()["files"] == [{"name": "run 1/a.bin", "size": 3}]
        assert listed.code == 0
        to = tmp_path / "copy"
        words = ("move", vault.url, "--project", "alpha", "--name", "run 1/a.bin", "--to", to)
        moved = Started(token, *words, serves=False)
        assert moved.said()["size"] == 3 and moved.code == 0
        assert to.read_bytes() == b"abc"
        (folder / "run 1" / "a.bin").write_bytes(b"xyz")
        os.utime(folder / "run 1" / "a.bin", (1e9, 1e9))
        push = Started(token, "push", folder, "--to", vault.url, "--project", "alpha", serves=False)
        said = push.said()
        assert push.code == 1 and "published with other bytes" in said["failed"][0]["why"]
    finally:
        vault.kill()


def test_tls_is_spoken_and_a_certificate_that_nobody_vouches_for_is_refused(tmp_path, tokens, monkeypatch):
    if shutil.which("openssl") is None:
        pytest.skip("makes a certificate with openssl")
    path, token = tokens
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=vault", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", cert],
        check=True, capture_output=True,
    )  # fmt: skip
    folder = tmp_path / "instrument"
    folder.mkdir()
    (folder / "a.bin").write_bytes(b"abc")
    os.utime(folder / "a.bin", (1e9, 1e9))
    vault = Started(
        token, "vault", tmp_path / "vault", "--tokens", path, "--port", 0, "--tls-cert", cert, "--tls-key", key
    )
    try:
        assert vault.url.startswith("https://127.0.0.1:")
        words = ("list", vault.url, "--project", "alpha")
        assert "CERTIFICATE_VERIFY_FAILED" in Started(token, *words, serves=False).said()["error"]["message"]
        monkeypatch.setenv("SSL_CERT_FILE", str(cert))
        push = Started(token, "push", folder, "--to", vault.url, "--project", "alpha", serves=False)
        assert [s["name"] for s in push.said()["sent"]] == ["a.bin"] and push.code == 0
        assert Started(token, *words, serves=False).said()["files"] == [{"name": "a.bin", "size": 3}]
    finally:
        vault.kill()
