"""Suggestions for names that are nearly right."""

import pytest

from fleetcast.base.errors import Unsupported, closest, nearest
from fleetcast.scenario.workload.architectures import from_config


def test_a_suggestion_keeps_the_capitals_of_the_name():
    known = ("LlamaForCausalLM", "MixtralForCausalLM")
    assert nearest("LamaForCausalLM", known) == "LlamaForCausalLM"
    assert closest("LamaForCausalLM", known) == "Did you mean 'LlamaForCausalLM'?"


def test_nothing_is_suggested_where_nothing_is_near():
    assert nearest("xyz", ("llama", "mixtral")) == closest("xyz", ("llama", "mixtral")) == ""


def test_an_error_says_the_suggested_name_as_it_is_written():
    with pytest.raises(Unsupported, match="Did you mean 'LlamaForCausalLM'"):
        from_config({"architectures": ["LamaForCausalLM"]})
