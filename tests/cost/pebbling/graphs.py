"""Small graphs for property tests."""

from hypothesis import strategies as st

from fleetcast.cost.pebbling.dag import Dag


@st.composite
def dags(draw, most: int = 8, unit: bool = False) -> Dag:
    n = draw(st.integers(2, most))
    parents = [()]
    for v in range(1, n):
        parents.append(tuple(sorted(draw(st.sets(st.integers(0, v - 1), max_size=min(v, 3))))))
    weight = st.just(1) if unit else st.integers(1, 3)
    work, size = ([float(draw(weight)) for _ in range(n)] for _ in range(2))
    return Dag(tuple(parents), tuple(work), tuple(size))
