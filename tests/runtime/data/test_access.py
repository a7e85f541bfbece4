"""Files of grants and headers of uploads, whoever wrote them: read, or refused in clear words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("aiohttp", reason="aiohttp is not installed")

from aiohttp import web

from fleetcast.base.errors import SpecError
from fleetcast.runtime.data.access import Access, Grant, hash_of, read_grants
from fleetcast.runtime.data.uploads import _metadata

HASH = "0" * 64


@pytest.mark.parametrize(
    "text",
    [
        "grant = 3", "[[grant]]\nsha256 = 5\nproject = 'a'\nrights = ['read']", "[[grant]]\nproject = 'a'\nrights = []",
        f"[[grant]]\nsha256 = '{HASH}'\nproject = '../a'\nrights = ['read']", "[[grant]]\nsha256 = 'x'",
        f"[[grant]]\nsha256 = '{HASH}'\nproject = 'a'\nrights = ['own']", "[[grants]]\n", "not toml",
        f"[[grant]]\nsha256 = '{HASH}'\nproject = 'a'\nrights = 'read'",
        "[[grant]]\nsha256 = 'short'\nproject = 'a'\nrights = []",
    ],
)  # fmt: skip
def test_files_of_grants_that_cannot_be(tmp_path, text):
    (tmp_path / "tokens.toml").write_text(text)
    with pytest.raises(SpecError) as error:
        read_grants(tmp_path / "tokens.toml")
    assert error.value.limit or error.value.hint


@given(st.text(min_size=1), st.text(min_size=1), st.sampled_from(["read", "write", "own"]), st.text(max_size=5))
def test_only_the_token_itself_opens_and_only_what_it_was_made_for(token, other, right, project):
    access = Access((Grant(sha256=hash_of(token), project="alpha", rights=("read",)),))
    assert access.may(token, right, project) == (right == "read" and project == "alpha")
    if other != token:
        assert not access.known(other) and not access.may(other, "read", "alpha")


@given(st.text(max_size=60) | st.lists(st.sampled_from(["filename", " ", ",", "YQ==", "Y", "=", "é"])).map("".join))
def test_whatever_metadata_says_is_read_or_refused(text):
    try:
        found = _metadata(text)
    except web.HTTPBadRequest:
        return
    assert all(isinstance(value, str) for value in found.values())
