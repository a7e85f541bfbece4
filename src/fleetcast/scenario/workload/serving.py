"""The serving workload: a model and the requests that arrive for it."""

from __future__ import annotations

from typing import Annotated

import msgspec

from fleetcast.base.spec import Spec
from fleetcast.base.units import PerSecond, Seconds
from fleetcast.scenario.workload.exits import Exit
from fleetcast.scenario.workload.loads import Skew
from fleetcast.scenario.workload.quality import Score

Positive = Annotated[float, msgspec.Meta(gt=0, le=1e12)]
Share = Annotated[float, msgspec.Meta(ge=0, lt=1)]
Count = Annotated[int, msgspec.Meta(ge=1, le=100_000_000)]
Certainty = Annotated[float, msgspec.Meta(gt=0.5, lt=1)]


class Arrivals(Spec):
    """When requests arrive, instead of a trace's times.

    Attributes:
        kind: "poisson", "uniform", "gamma" (bursty) or "closed" (users who each send their next request when the
            last has been answered).
        rate: mean requests per second; all kinds but closed need it.
        requests: how many; left out = as many as the trace has.
        concurrency: users of a closed loop, which needs it.
        cv: standard deviation of gamma gaps over their mean; left out = 2; only with gamma.
        ramp: time over which the users of a closed loop start, evenly; left out = all at once.
        think: mean time that a user of a closed loop pauses after an answer, exponential; left out = none.
    """

    kind: str
    rate: PerSecond | None = None
    requests: Count | None = None
    concurrency: Count | None = None
    cv: Positive | None = None
    ramp: Seconds | None = None
    think: Seconds | None = None


class Lengths(Spec):
    """How long requests are, instead of a trace's lengths.

    Attributes:
        kind: "fixed" or "lognormal".
        prompt: prompt tokens, the mean of a lognormal.
        output: output tokens, the mean of a lognormal.
        spread: share by which fixed outputs vary, uniform around the stated length and in pairs that keep the sum;
            left out = 0.04 in a closed loop of several users (exactly equal requests would march in step, which no
            measured server's do), else 0.
        prompt_p90: 90th percentile of a lognormal's prompts, which needs it.
        output_p90: 90th percentile of a lognormal's outputs, which needs it.
    """

    kind: str
    prompt: Positive
    output: Positive
    spread: Share | None = None
    prompt_p90: Positive | None = None
    output_p90: Positive | None = None


class Sessions(Spec):
    """What prompts have in common, where no trace says it.

    Attributes:
        turns: mean turns of a conversation, geometric; 1 = every request stands alone.
        think: mean time from a turn's arrival to the next one's, exponential; needed with several turns.
        system: leading tokens that all prompts share, part of ``lengths.prompt``.
    """

    turns: Annotated[float, msgspec.Meta(ge=1, le=1000)] = 1.0
    think: Seconds | None = None
    system: Annotated[int, msgspec.Meta(ge=0, le=100_000_000)] = 0


class Serving(Spec):
    """Requests for one model.

    Attributes:
        model: catalogue name or path of a Hugging Face config.json.
        kind: which world answers; this version has the one for serving.
        trace: packaged sample's name or a file's path; left out = arrivals and lengths are both given.
        speed_up: 2 = the trace arrives twice as fast; not together with arrivals.
        requests: only the first so many requests of the trace; without one, write arrivals.requests.
        arrivals: instead of the trace's times.
        lengths: instead of the trace's lengths.
        sessions: what prompts have in common: a system prompt, conversations.
        exits: depths at which a familial model answers, or the name of a published one; asks for tiers.
        confidence: how well an exit knows whether it is right, so that answers may be passed on: the chance that a
            right answer is more confident than a wrong one, or a CSV file of measured answers.
        expert_load: how often a router chooses each expert: a CSV file of measured counts or shares, or a synthetic
            skew, `{ zipf = 0.8 }`; left out = the skew that the kernels were measured with.
        quality: how good answers are by model and dtype: a file that `fleetcast measure quality` wrote, or a list of
            such files and scores; the SLO may then limit it and the objective raise it.
        low_priority: share of the servers whose load may be slowed first when power is short.
    """

    model: str
    kind: str = "serving"
    trace: str | None = None
    speed_up: Positive = 1.0
    requests: Count | None = None
    arrivals: Arrivals | None = None
    lengths: Lengths | None = None
    sessions: Sessions | None = None
    exits: str | tuple[Exit, ...] | None = None
    confidence: Certainty | str | None = None
    expert_load: str | Skew | None = None
    quality: str | tuple[str | Score, ...] | None = None
    low_priority: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0
