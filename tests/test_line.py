"""The line before an engine is fair between callers."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from freehold.engine.line import Line
from freehold.types import Caller, Role


class Call(Struct, frozen=True):
    caller: Caller
    number: int
    width: int = 1


def caller(name: str) -> Caller:
    return Caller(f"key_{name}", name, Role.MEMBER)


ANN, BOB, EVE = (caller(name) for name in ("ann", "bob", "eve"))


def line_of(*callers: Caller) -> Line:
    return Line(Call(who, number) for number, who in enumerate(callers))


def test_a_hundred_waiting_calls_do_not_delay_anothers_first():
    """Bob came last and goes first, because ann holds slots already."""
    line = line_of(*[ANN] * 100, BOB)
    assert line.order(Counter({ANN: 4}))[0].caller == BOB
    assert line.order(Counter())[1].caller == BOB  # and second where ann holds none


def test_callers_take_turns_and_each_keeps_its_own_order():
    """a a a b b c goes a b c, a b, a."""
    line = line_of(ANN, ANN, ANN, BOB, BOB, EVE)
    assert [call.number for call in line.order(Counter())] == [0, 3, 5, 1, 4, 2]


def test_what_is_held_counts():
    """Whoever holds two comes after whoever holds one."""
    assert [call.caller for call in line_of(ANN, BOB).order(Counter({ANN: 2, BOB: 1}))] == [BOB, ANN]


CALLERS = st.sampled_from([ANN, BOB, EVE])


@given(
    st.lists(st.tuples(CALLERS, st.integers(1, 4)), min_size=1, max_size=30),
    st.dictionaries(CALLERS, st.integers(0, 5)),
)
def test_the_first_is_who_the_order_names_first(calls, holding):
    """`first`, which is asked at every turn, agrees with `order`, which is shown."""
    line = Line(Call(who, number, width) for number, (who, width) in enumerate(calls))
    order = line.order(Counter(holding))
    assert line.first(Counter(holding)) == order[0]
    assert sorted(call.number for call in order) == list(range(len(calls)))
    for who in (ANN, BOB, EVE):
        own = [call.number for call in order if call.caller == who]
        assert own == sorted(own)


def test_leaving_twice_is_leaving_once():
    """A call that is not there cannot leave."""
    line = line_of(ANN, BOB)
    gone = line[0]
    line.leave(gone)
    line.leave(gone)
    assert [call.caller for call in line] == [BOB]
