"""The pool: engines come up when they are called, share the memory, and slots are never lost."""

import asyncio
import random
from contextlib import asynccontextmanager

import pytest

from freehold.budget import Accounts
from freehold.config import CallerSettings, CostSettings, PoolSettings, QueueSettings
from freehold.engine.pool import Pool
from freehold.errors import (
    BadModel,
    EngineUnready,
    ModelNotFound,
    Overloaded,
    QueueFull,
    RateLimited,
    Stopping,
    Unsupported,
)
from freehold.lease import Leases
from freehold.limits import Standing, as_limits
from freehold.prices import PriceList, Tariff
from freehold.types import ADAPTER, Caller, EngineState, Kind, Manifest, Request, Role, SeatView

ANN, BOB = (Caller(f"key_{name}", name, Role.MEMBER) for name in ("ann", "bob"))
MODELS = {name: Manifest(name, f"sha256:{name}", 1, "gguf", "test", False) for name in "abc"}


def adapter(name: str, base: str = "a", size: int = 1) -> Manifest:
    """An adapter, as the vault has it."""
    whole = f"{base}+{name}@1"
    return Manifest(whole, f"sha256:{whole}", size, ADAPTER, "test", False, base=f"sha256:{base}")


class Engine:
    """As much of an engine as the pool knows."""

    def __init__(self, model: Manifest, house: "House", adapters=()):
        self.model, self.house = model, house
        self.slots, self.ready = house.slots, False
        self.need = house.need + sum(one.size for one in adapters)
        self.adapters = {one.digest: one.name for one in adapters}
        self.name = "".join([model.name, *(f"+{self.adapters[digest]}" for digest in sorted(self.adapters))])

    def serves(self, model):
        return model.digest == self.model.digest or model.digest in self.adapters

    async def start(self, on_ready):
        loaded = {self.model.name, *self.adapters.values()}
        if loaded & set(self.house.broken):
            raise BadModel("It is damaged.")
        self.adapters = {digest: name for digest, name in self.adapters.items() if name not in self.house.left_out}
        up = sum(state.state == "ready" for state in self.house.pool.states())
        if up >= self.house.most:
            raise BadModel("There is no memory on the card.")
        await asyncio.sleep(self.house.start_seconds)
        self.ready = True
        self.house.log.append(f"{self.name} up")
        self.on_ready = on_ready
        on_ready()

    async def stop(self):
        self.ready = False
        self.house.log.append(f"{self.name} down")

    def check(self, request):
        if request.body["n"] > 10:
            raise Unsupported("Too many choices.")

    def state(self) -> EngineState:
        state = "ready" if self.ready else "restarting"
        return EngineState(self.model.name, self.model.digest, "test", state, 1, 0, 1, self.slots)


class House:
    """A pool of such engines, and leases on it."""

    def __init__(
        self, *, slots=2, need=10, broken=(), left_out=(), spoilt=(), most=99, start_seconds=0.0, callers=None,
        queue=None, adapters=(), **pool,
    ):  # fmt: skip
        self.slots, self.need, self.broken, self.start_seconds = slots, need, broken, start_seconds
        self.left_out, self.spoilt, self.most = left_out, spoilt, most  # by the engine; on the disk; engines at once
        self.there = list(adapters)
        self.log: list[str] = []
        self.made = 0
        settings = PoolSettings(**{"memory_bytes": 25, "stay_seconds": 0} | pool)
        self.pool = Pool(self, settings, QueueSettings(**queue or {}))
        standing = Standing({}, as_limits(CallerSettings(**callers or {})))
        self.leases = Leases(self.pool, lambda: standing, Accounts(), Tariff(PriceList(CostSettings())))

    def base(self, adapter):
        return next(model for model in MODELS.values() if model.digest == adapter.base)

    def adapters(self, model):
        return [one for one in self.there if one.base == model.digest]

    def build(self, model, vectors, adapters):
        self.made += 1
        return Engine(model, self, adapters)

    def verify(self, model, report):
        report(1, 2)
        if model.name in self.spoilt:
            raise BadModel("It is not what was admitted.")

    @asynccontextmanager
    async def take(self, caller=ANN, model="a", kind=Kind.CHAT, n=1):
        lease = self.leases.begin("req_1", caller, kind)
        try:
            wanted = MODELS[model] if isinstance(model, str) else model
            await lease.take(Request(kind, wanted.name, {"n": n}), wanted)
            yield lease
        finally:
            lease.release()

    async def hold(self, seconds=0.0, gate=None, **what):
        """Hold a lease for so long, or until the gate is opened."""
        async with self.take(**what) as lease:
            await (gate.wait() if gate else asyncio.sleep(seconds))
            return lease

    def seat(self, model="a"):
        nobody = SeatView(MODELS[model], "text", "never called", 0, (), ())
        return next((view for view in self.pool.views() if view.model.name == model), nobody)


@asynccontextmanager
async def open_house(**settings):
    house = House(**settings)
    await house.pool.start([])
    try:
        yield house
    finally:
        await house.pool.stop()


def scenario(test):
    """Run a coroutine as a test."""

    def run():
        asyncio.run(asyncio.wait_for(test(), 20))

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


async def until(check):
    while not check():
        await asyncio.sleep(0.001)


@scenario
async def test_an_engine_comes_up_at_its_first_call_and_those_who_come_meanwhile_wait():
    """One start for all of them; each is told its place and what the engine was doing."""
    async with open_house(start_seconds=0.05) as house:
        leases = await asyncio.gather(*(house.hold() for _ in range(5)))
        assert house.made == 1 and house.log == ["a up"]
        assert sorted(lease.ticket.place for lease in leases) == [1, 2, 3, 4, 5]
        said = dict(leases[0].headers)["x-freehold-queue"]
        assert 'engine="stopped"' in said and "waited_ms=" in said
        assert (await house.hold()).headers == ()  # who does not wait is told nothing


@scenario
async def test_no_more_calls_at_once_than_slots():
    """Whatever the number of callers; and none is left over at the end."""
    random.seed(1)
    async with open_house(slots=3) as house:
        most = 0

        async def one():
            nonlocal most
            async with house.take(random.choice([ANN, BOB]), n=random.choice([1, 1, 2])):
                most = max(most, sum(2 if slot.width == 2 else 1 for slot in held()))
                await asyncio.sleep(random.random() / 500)

        def held():
            return house.pool._seats["a", "sha256:a", False].holding

        await asyncio.gather(*(one() for _ in range(200)))
        assert most == 3 and not held() and not house.seat().waiting


@scenario
async def test_one_caller_with_a_hundred_calls_does_not_delay_anothers_first():
    """Bob's goes as soon as any of ann's running ones ends."""
    async with open_house(slots=2) as house:
        done = []

        async def one(caller, name):
            await house.hold(0.005, caller=caller)
            done.append(name)

        tasks = [asyncio.create_task(one(ANN, "ann")) for _ in range(100)]
        await until(lambda: len(house.seat().waiting) >= 50)
        before = len(done)
        tasks.append(asyncio.create_task(one(BOB, "bob")))
        await asyncio.gather(*tasks)
        assert done.index("bob") - before <= 4


@scenario
async def test_a_full_line_sends_the_last_in_it_away():
    """Which is the caller with the most, even when another came later; with a time to come back."""
    async with open_house(slots=1, queue={"calls": 3}) as house:
        gate = asyncio.Event()
        await house.hold()  # it is up
        tasks = [asyncio.create_task(house.hold(gate=gate)) for _ in range(4)]
        await until(lambda: len(house.seat().waiting) == 3)
        bob = asyncio.create_task(house.hold(caller=BOB))
        await until(lambda: any(ticket.caller == BOB for ticket in house.seat().waiting))
        gate.set()
        found = await asyncio.gather(*tasks, bob, return_exceptions=True)
        assert [isinstance(one, QueueFull) for one in found] == [False, False, False, True, False]
        assert found[3].status == 429 and found[3].retry_after >= 1


@scenario
async def test_a_call_waits_so_long_and_no_longer():
    """503, and it is out of the line."""
    async with open_house(slots=1, queue={"seconds": 0.05}) as house:
        gate = asyncio.Event()
        holder = asyncio.create_task(house.hold(gate=gate))
        await until(lambda: house.seat().holding)
        with pytest.raises(Overloaded, match=r"waited 0\.05 s") as caught:
            await house.hold()
        assert caught.value.retry_after >= 1 and not house.seat().waiting
        gate.set()
        await holder


@scenario
async def test_the_time_in_which_an_engine_comes_up_does_not_count():
    """However long it takes, its first callers are answered."""
    async with open_house(start_seconds=0.3, queue={"seconds": 0.05}) as house:
        await asyncio.gather(house.hold(), house.hold())


@scenario
async def test_whoever_leaves_while_waiting_or_holding_leaves_nothing_behind():
    """A thousand calls, each cancelled at some moment: then as many slots as before, and the next call is served."""
    random.seed(2)
    async with open_house(slots=4, queue={"calls": 1000}) as house:
        tasks = []
        for number in range(1000):
            tasks.append(asyncio.create_task(house.hold(0.002, caller=(ANN, BOB)[number % 2])))
            if random.random() < 0.3:
                await asyncio.sleep(0)
            random.choice(tasks).cancel()
        await asyncio.sleep(0.01)
        for task in tasks:
            if random.random() < 0.5:
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        view = house.seat()
        assert view.holding == () and view.waiting == ()
        await asyncio.gather(*(house.hold() for _ in range(4)))


@scenario
async def test_a_call_cancelled_in_the_moment_of_its_turn_gives_the_slot_on():
    """Its turn has come but it has not heard of it yet."""
    async with open_house(slots=1) as house:
        async with house.take():
            second = asyncio.create_task(house.hold())
            third = asyncio.create_task(house.hold())
            await until(lambda: len(house.seat().waiting) == 2)
        second.cancel()  # the release above has just given it the slot
        await third
        assert house.seat().holding == ()


@scenario
async def test_releasing_twice_is_releasing_once():
    """As when the engine is done before the client has read."""
    async with open_house(slots=1) as house, house.take() as lease:
        lease.engine_done()
        async with house.take():
            lease.release()
            assert len(house.seat().holding) == 1


@scenario
async def test_choices_take_a_slot_each():
    """And more choices than slots take them all."""
    async with open_house(slots=2) as house, house.take(n=9):
        with pytest.raises(Unsupported):
            await house.hold(n=11)  # nobody waits for a refusal
        waiting = asyncio.create_task(house.hold())
        await until(lambda: house.seat().waiting)
        waiting.cancel()


@scenario
async def test_the_least_recently_used_makes_room():
    """There is memory for two: the third takes the place of the one that was called longest ago."""
    async with open_house() as house:
        for model in "abac":
            await house.hold(model=model)
        assert house.log == ["a up", "b up", "b down", "c up"]
        assert sorted(state.model for state in house.pool.states()) == ["a", "c"]


@scenario
async def test_nobody_is_stopped_in_mid_call():
    """The one who has to go answers what it has in hand, and then those in its line wait for it to come back."""
    async with open_house(memory_bytes=15, slots=1) as house:
        gate = asyncio.Event()
        first = asyncio.create_task(house.hold(gate=gate))
        await until(lambda: house.seat().holding)
        queued = asyncio.create_task(house.hold())
        other = asyncio.create_task(house.hold(model="b"))
        await until(lambda: house.seat().stage == "making room")
        assert house.log == ["a up"]
        gate.set()
        await asyncio.gather(first, queued, other)
        assert house.log == ["a up", "a down", "b up", "b down", "a up"]


@scenario
async def test_an_engine_with_callers_stays_a_while_before_it_makes_room():
    """So that two models that fight for the memory each get something done."""
    async with open_house(memory_bytes=15, slots=1, stay_seconds=2) as house:
        begun = asyncio.get_running_loop().time()
        stop = begun + 0.15

        async def busy():
            while asyncio.get_running_loop().time() < stop:
                await house.hold(0.005)

        keep = asyncio.create_task(busy())
        await until(lambda: house.seat().holding)
        other = asyncio.create_task(house.hold(model="b"))
        await keep
        assert "a down" not in house.log
        await other


@scenario
async def test_a_model_that_can_never_fit_says_so():
    """With the figures."""
    async with open_house(need=2_000_000_000) as house:
        with pytest.raises(EngineUnready, match=r"needs 2\.0 GB"):
            await house.hold()


@scenario
async def test_a_model_that_does_not_come_up_says_why_to_all_who_wait():
    """And a later call tries again."""
    async with open_house(broken=["a"]) as house:
        found = await asyncio.gather(*(house.hold() for _ in range(3)), return_exceptions=True)
        assert [type(one) for one in found] == [EngineUnready] * 3 and "It is damaged." in found[0].message
        house.broken = ()
        with pytest.raises(EngineUnready):  # for a moment nobody tries again
            await house.hold()
        assert house.made == 1
        next(iter(house.pool._seats.values())).failed_at = 0.0
        await house.hold()


@scenario
async def test_an_engine_that_nobody_waits_for_any_more_displaces_nobody():
    """A caller that leaves at once cannot have a busy engine stopped."""
    async with open_house(memory_bytes=15, slots=1, stay_seconds=0.1) as house:
        gate = asyncio.Event()
        busy = asyncio.create_task(house.hold(gate=gate))
        await until(lambda: house.seat().holding)
        gone = asyncio.create_task(house.hold(model="b"))
        await until(lambda: house.seat("b").stage == "waiting for memory")
        gone.cancel()
        await asyncio.sleep(0.2)
        gate.set()
        await busy
        await until(lambda: house.seat("b").stage == "stopped")
        assert house.log == ["a up"]


@scenario
async def test_an_idle_engine_is_stopped_and_comes_back():
    """After idle_seconds without a call."""
    async with open_house(idle_seconds=0.05) as house:
        await house.hold()
        await until(lambda: "a down" in house.log)
        await house.hold()
        assert house.log == ["a up", "a down", "a up"]


@scenario
async def test_calls_wait_while_their_engine_restarts():
    """Until it says that it is ready again."""
    async with open_house() as house:
        await house.hold()
        engine = next(iter(house.pool._seats.values())).engine
        engine.ready = False
        waiting = asyncio.create_task(house.hold())
        await until(lambda: house.seat().waiting)
        assert house.pool.unready == ["restarting"] and not waiting.done()
        engine.ready = True
        engine.on_ready()
        assert (await waiting).ticket.found == "restarting"


@scenario
async def test_stopping_sends_away_whoever_waits():
    """In the middle of a start too."""
    async with open_house(start_seconds=30) as house:
        waiting = asyncio.create_task(house.hold())
        await until(lambda: house.seat().stage == "starting")
        await house.pool.stop()
        with pytest.raises(Stopping):
            await waiting


@scenario
async def test_vectors_have_an_engine_of_their_own():
    """Its batches hold a whole text, which would make those who talk wait."""
    async with open_house() as house:
        await house.hold()
        await house.hold(kind=Kind.EMBEDDING)
        assert house.log == ["a up", "a up"]
        assert sorted(view.purpose for view in house.pool.views()) == ["text", "vectors"]


@scenario
async def test_a_caller_may_have_so_many_calls_in_hand():
    """Those that wait included; another caller is not touched by it."""
    async with open_house(callers={"calls_at_once": 2}) as house, house.take(), house.take():
        with pytest.raises(RateLimited, match="may have 2"):
            await house.hold()
        waiting = asyncio.create_task(house.hold(caller=BOB))
        await until(lambda: house.seat().waiting)
        waiting.cancel()


@scenario
async def test_a_caller_may_begin_so_many_calls_in_a_minute():
    """Then it is told when to come back; two hundred at once do not race past it."""
    async with open_house(slots=100, callers={"calls_per_minute": 60}) as house:
        found = await asyncio.gather(*(house.hold() for _ in range(200)), return_exceptions=True)
        refused = [one for one in found if isinstance(one, RateLimited)]
        assert len(refused) == 140 and {one.retry_after for one in refused} == {1}
        await house.hold(caller=BOB)


@scenario
async def test_a_call_that_comes_while_its_engine_is_brought_up_starts_no_second():
    """Neither at the server's start nor later."""
    async with open_house(start_seconds=0.05) as house:
        starting = asyncio.create_task(house.pool.start([MODELS["a"]]))
        await until(lambda: house.seat().stage == "starting")
        await asyncio.gather(starting, house.hold(), house.hold())
        assert house.made == 1 and house.log == ["a up"]


# adapters

RED, BLUE = adapter("red"), adapter("blue")
ALONE, WITH_RED, WITH_BOTH = "a", "a+a+red@1", "a+a+blue@1+a+red@1"  # engines, by what they have loaded


@scenario
async def test_an_adapter_is_answered_by_its_bases_engine():
    """One engine for the model and all its adapters, which knows them all from its start."""
    async with open_house(adapters=[RED, BLUE]) as house:
        for model in ("a", RED, BLUE, "a"):
            lease = await house.hold(model=model)
            assert lease.ticket.engine.serves(BLUE)
        assert house.log == [f"{WITH_BOTH} up"]
        assert [view.model.name for view in house.pool.views()] == ["a"]


@scenario
async def test_an_adapter_that_comes_later_brings_up_another_engine_and_no_call_fails():
    """Calls in hand are answered to their end by the engine before; who comes meanwhile does not wait; and who waits
    for the adapter waits for the start alone."""
    async with open_house(memory_bytes=100, slots=2, start_seconds=0.1) as house:
        gate = asyncio.Event()
        before = asyncio.create_task(house.hold(gate=gate))
        await until(lambda: house.seat().holding)
        house.there.append(RED)
        wants = asyncio.create_task(house.hold(model=RED))
        await until(lambda: house.seat().stage == "ready" and house.seat().waiting)
        while not wants.done():
            lease = await house.hold()
            assert lease.headers == ()  # it did not have to wait
            await asyncio.sleep(0.005)
        lease = await wants
        assert 'engine="loading an adapter"' in dict(lease.headers)["x-freehold-queue"]
        assert 0.1 <= lease.ticket.waited < 0.3
        assert house.log == [f"{ALONE} up", f"{WITH_RED} up"] and not before.done()
        assert len(house.pool.states()) == 2
        gate.set()
        assert not (await before).ticket.engine.serves(RED)
        await until(lambda: f"{ALONE} down" in house.log)
        assert len(house.pool.states()) == 1 and (await house.hold()).ticket.engine.serves(RED)


@scenario
async def test_no_more_calls_at_once_than_slots_in_either_engine():
    """Those that the engine before still answers take none of the new one's."""
    async with open_house(memory_bytes=100, slots=2) as house:
        old, new = asyncio.Event(), asyncio.Event()
        first = [asyncio.create_task(house.hold(gate=old)) for _ in range(2)]
        await until(lambda: len(house.seat().holding) == 2)
        house.there.append(RED)
        second = [asyncio.create_task(house.hold(gate=new, model=model)) for model in (RED, "a", RED)]
        await until(lambda: len(house.seat().holding) == 4)
        await asyncio.sleep(0.01)
        assert len(house.seat().holding) == 4 and len(house.seat().waiting) == 1
        new.set()
        await asyncio.gather(*second)
        assert not any(task.done() for task in first)
        old.set()
        await asyncio.gather(*first)


@scenario
async def test_where_the_memory_holds_no_two_the_engine_before_goes_first():
    """When its calls are done; nobody fails, and who comes meanwhile waits for the new one."""
    async with open_house(memory_bytes=15, slots=2) as house:
        gate = asyncio.Event()
        before = asyncio.create_task(house.hold(gate=gate))
        await until(lambda: house.seat().holding)
        house.there.append(RED)
        wants = asyncio.create_task(house.hold(model=RED))
        await until(lambda: house.seat().stage == "making room")
        later = asyncio.create_task(house.hold())
        await asyncio.sleep(0.01)
        assert house.log == [f"{ALONE} up"]
        gate.set()
        await asyncio.gather(before, wants, later)
        assert house.log == [f"{ALONE} up", f"{ALONE} down", f"{WITH_RED} up"]


@scenario
async def test_where_the_card_holds_no_two_the_engine_before_goes_first():
    """Which shows only when the second does not come up."""
    async with open_house(memory_bytes=100, most=1) as house:
        await house.hold()
        house.there.append(RED)
        lease = await house.hold(model=RED)
        assert lease.ticket.engine.serves(RED)
        assert house.log == [f"{ALONE} up", f"{ALONE} down", f"{WITH_RED} up"]


@scenario
async def test_another_model_waits_for_what_is_leaving_and_stops_nobody_for_it():
    """The memory of an engine that was followed counts until its last call is done."""
    async with open_house(memory_bytes=25, slots=1) as house:
        gate = asyncio.Event()
        before = asyncio.create_task(house.hold(gate=gate))
        await until(lambda: house.seat().holding)
        house.there.append(RED)
        await house.hold(model=RED)
        other = asyncio.create_task(house.hold(model="b"))
        await until(lambda: house.seat("b").stage == "waiting for memory")
        await asyncio.sleep(0.01)
        assert house.log == [f"{ALONE} up", f"{WITH_RED} up"]
        gate.set()
        await asyncio.gather(before, other)
        assert house.log == [f"{ALONE} up", f"{WITH_RED} up", f"{ALONE} down", "b up"]


@scenario
async def test_an_adapter_that_is_removed_while_it_is_waited_for_is_not_found():
    """And another that is waited for comes all the same."""
    async with open_house(memory_bytes=100) as house:
        await house.hold()
        house.there.append(BLUE)
        gone, there = asyncio.gather(house.hold(model=RED), return_exceptions=True), house.hold(model=BLUE)
        lease, (error,) = await asyncio.gather(there, gone)
        assert isinstance(error, ModelNotFound) and lease.ticket.engine.serves(BLUE)


@scenario
async def test_the_next_start_forgets_a_removed_adapter():
    """Until then it is harmless: nobody is led to it."""
    async with open_house(memory_bytes=100, adapters=[RED]) as house:
        await house.hold()
        house.there[:] = [BLUE]
        await house.hold(model=BLUE)
        assert house.log[:2] == [f"{WITH_RED} up", "a+a+blue@1 up"]


@scenario
async def test_an_adapter_whose_bytes_are_not_what_was_admitted_is_not_loaded():
    """Its callers are told; the model and its other adapters answer, and nothing is started for it."""
    async with open_house(memory_bytes=100, adapters=[RED, BLUE], spoilt=[BLUE.name]) as house:
        with pytest.raises(EngineUnready, match="blue@1 cannot be served: It is not what was admitted"):
            await house.hold(model=BLUE)
        await asyncio.gather(house.hold(), house.hold(model=RED))
        assert house.log == [f"{WITH_RED} up"]
        with pytest.raises(EngineUnready, match="not what was admitted"):
            await house.hold(model=BLUE)  # and so for a moment
        house.spoilt = ()
        next(iter(house.pool._seats.values())).unloadable.clear()
        await house.hold(model=BLUE)
        assert f"{WITH_BOTH} up" in house.log


@scenario
async def test_an_adapter_that_the_engine_leaves_out_is_told_to_its_callers_alone():
    """And it is not tried at every call."""
    async with open_house(memory_bytes=100, adapters=[RED, BLUE], left_out=[BLUE.name]) as house:
        found = await asyncio.gather(*(house.hold(model=one) for one in (BLUE, RED, "a")), return_exceptions=True)
        assert isinstance(found[0], EngineUnready) and "could not load it" in found[0].message
        assert not isinstance(found[1], Exception) and not isinstance(found[2], Exception)
        with pytest.raises(EngineUnready, match="could not load it"):
            await house.hold(model=BLUE)
        assert len(house.log) == 1


@scenario
async def test_no_adapter_keeps_its_model_from_answering():
    """Where the engine does not come up with adapters, and does not say which is at fault, it does without."""
    async with open_house(memory_bytes=100, adapters=[RED], broken=[RED.name]) as house:
        found = await asyncio.gather(house.hold(), house.hold(model=RED), return_exceptions=True)
        assert not isinstance(found[0], Exception)
        assert isinstance(found[1], EngineUnready) and "It is damaged." in found[1].message
        assert house.log == [f"{ALONE} up"]


@scenario
async def test_a_model_that_is_broken_says_so_with_adapters_too():
    """And nothing is held against them when it is mended."""
    async with open_house(memory_bytes=100, adapters=[RED], broken=["a"]) as house:
        found = await asyncio.gather(house.hold(), house.hold(model=RED), return_exceptions=True)
        assert [type(one) for one in found] == [EngineUnready] * 2
        house.broken = ()
        next(iter(house.pool._seats.values())).failed_at = 0.0
        await asyncio.gather(house.hold(), house.hold(model=RED))


@scenario
async def test_where_not_all_adapters_fit_those_that_are_called_are_loaded():
    """The others wait for their turn, in which the ones that were called longest ago make room for them."""
    small, large = adapter("small", size=2), adapter("large", size=40)
    async with open_house(memory_bytes=13, adapters=[large, RED, BLUE, small]) as house:
        with pytest.raises(EngineUnready, match="no memory for it"):
            await house.hold(model=large)
        await house.hold(model=RED)
        await house.hold(model=BLUE)
        assert (await house.hold(model=RED)).ticket.engine.serves(BLUE)
        lease = await house.hold(model=small)
        assert lease.ticket.engine.serves(RED) and not lease.ticket.engine.serves(BLUE)
        assert not isinstance(await house.hold(), Exception)


@scenario
async def test_the_time_in_which_an_adapter_is_loaded_does_not_count():
    """As with an engine's first start."""
    async with open_house(memory_bytes=100, start_seconds=0.2, queue={"seconds": 0.05}) as house:
        await house.hold()
        house.there.append(RED)
        await house.hold(model=RED)


@scenario
async def test_an_adapter_that_nobody_waits_for_any_more_starts_nothing():
    """A caller that leaves at once displaces no engine."""
    async with open_house(memory_bytes=15, slots=1) as house:
        gate = asyncio.Event()
        busy = asyncio.create_task(house.hold(gate=gate, model="b"))
        await until(lambda: house.seat("b").holding)
        house.there.append(RED)
        gone = asyncio.create_task(house.hold(model=RED))
        await until(lambda: house.seat().stage == "waiting for memory")
        gone.cancel()
        gate.set()
        await busy
        await until(lambda: house.seat().stage == "stopped")
        assert house.log == ["b up"] or house.log == ["b up", "b down"]


@scenario
async def test_the_vectors_of_an_adapter_come_from_an_engine_of_their_own():
    """The engine that answers texts has them all, and says of vectors nothing by adapter."""
    async with open_house(memory_bytes=100, adapters=[RED]) as house:
        lease = await house.hold(model=RED, kind=Kind.EMBEDDING)
        assert lease.ticket.engine.model == RED
        await house.hold(model=RED)
        assert house.log == ["a+red@1 up", f"{WITH_RED} up"]


@scenario
async def test_an_engine_that_restarts_without_an_adapter_serves_those_who_waited_for_it():
    """It was removed, the engine died, and came back without; another has it, if it is there again."""
    async with open_house(memory_bytes=100, adapters=[RED]) as house:
        await house.hold()
        engine = next(iter(house.pool._seats.values())).engine
        engine.ready = False
        waiting = asyncio.create_task(house.hold(model=RED))
        await until(lambda: house.seat().waiting)
        engine.adapters, engine.ready = {}, True
        engine.on_ready()
        assert (await waiting).ticket.engine is not engine


@scenario
async def test_stopping_stops_both_engines():
    """The one that took over and the one that still answers; and whoever waits is sent away."""
    async with open_house(memory_bytes=100, slots=1) as house:
        gate = asyncio.Event()
        before = asyncio.create_task(house.hold(gate=gate))
        await until(lambda: house.seat().holding)
        house.there.append(RED)
        await house.hold(model=RED)
        assert len(house.pool.states()) == 2
        await house.pool.stop()
        assert sorted(house.log) == sorted([f"{ALONE} up", f"{WITH_RED} up", f"{ALONE} down", f"{WITH_RED} down"])
        gate.set()
        await before


@scenario
async def test_adapters_come_and_go_under_load_and_no_call_fails():
    """Forty of them one after the other, while fifty callers call whatever there is."""
    random.seed(3)
    async with open_house(memory_bytes=60, slots=3, queue={"calls": 1000}) as house:
        done = failed = 0

        async def one():
            nonlocal done, failed
            for _ in range(20):
                model = random.choice(["a", *house.there])
                try:
                    lease = await house.hold(random.random() / 300, model=model)
                    wanted = MODELS[model] if isinstance(model, str) else model
                    assert lease.ticket.engine.serves(wanted)
                    done += 1
                except ModelNotFound:
                    failed += model in house.there  # only what was removed meanwhile may be missing
                await asyncio.sleep(random.random() / 100)

        async def keeper():
            for number in range(40):
                house.there.append(adapter(f"n{number}"))
                if len(house.there) > 5:
                    del house.there[0]
                await asyncio.sleep(0.03)

        await asyncio.gather(keeper(), *(one() for _ in range(50)))
        assert done > 700 and failed == 0
        await until(lambda: len(house.pool.states()) == 1)
        assert house.seat().holding == () and house.seat().waiting == ()
        ups, downs = (sum(line.endswith(word) for line in house.log) for word in ("up", "down"))
        assert ups == downs + 1
