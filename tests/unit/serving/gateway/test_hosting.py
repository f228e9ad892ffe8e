"""Which versions a server hosts, and which one answers a request."""

from finetune_api.contract.routes import Route, Routes
from finetune_serving.gateway.hosting import Hosting, position_of
from hypothesis import given
from hypothesis import strategies as st


def route(name: str, job: str = "first", weight: int = 100) -> Route:
    return Route(
        model_name=name,
        job=job,
        uri=f"pvc://out/{job}",
        digest=f"sha256:{job.encode().hex():0>64}",
        bytes=1,
        weight=weight,
    )


def host(*routes: Route) -> Hosting:
    """Return a server that has loaded all of its routes."""
    hosting = Hosting()
    hosting.want(Routes(routes=list(routes)))
    for version in hosting.wanted:
        version.loaded()
    return hosting


def answering(hosting: Hosting, name: str, position: float = 0) -> str | None:
    version = hosting.find(name, position)
    return version.route.job if version else None


def test_a_new_version_answers_only_once_it_is_loaded() -> None:
    hosting = Hosting()
    assert not hosting.is_settled()
    hosting = host(route("bot"))
    hosting.want(Routes(routes=[route("bot", "second"), route("bot", "first", 0)]))
    assert answering(hosting, "bot") == "first"
    new = hosting.next_to_load(0)
    assert new
    assert new.route.job == "second"
    new.loaded()
    assert answering(hosting, "bot") == "second"
    assert hosting.to_drop({one.route.served_name for one in hosting.wanted}) == []


def test_one_version_is_asked_for_by_its_job() -> None:
    hosting = host(route("bot", "second"), route("bot", "first", 0))
    assert answering(hosting, "bot@first", 99) == "first"
    assert answering(hosting, "bot@second", 99) == "second"
    assert answering(hosting, "bot@third") is None
    assert hosting.knows("bot@first")
    assert not hosting.knows("bot@third")


@given(st.integers(0, 100), st.floats(0, 100, exclude_max=True))
def test_weights_divide_the_positions(weight: int, position: float) -> None:
    hosting = host(route("bot", "second", weight), route("bot", "first", 100 - weight))
    assert answering(hosting, "bot", position) == ("second" if position < weight else "first")


@given(st.text(max_size=20), st.integers(0, 100), st.integers(0, 100))
def test_who_is_in_a_canary_stays_in_it_as_it_grows(key: str, before: int, after: int) -> None:
    position = position_of("bot", key)
    assert 0 <= position < 100
    small, large = sorted((before, after))
    if position < small:
        assert answering(host(route("bot", "new", large), route("bot", "old", 100 - large)), "bot", position) == "new"


def test_keys_are_spread_evenly() -> None:
    inside = sum(position_of("bot", f"user {number}") < 10 for number in range(10_000))
    assert 850 < inside < 1150


def test_the_share_of_a_version_that_is_not_loaded_goes_to_the_largest_one() -> None:
    hosting = host(route("bot", "new", 10), route("bot", "old", 90))
    hosting.wanted[0].is_loaded = False
    assert answering(hosting, "bot", 5) == "old"


def test_a_refused_adapter_waits_longer_each_time_and_its_siblings_go_on() -> None:
    hosting = Hosting()
    hosting.want(Routes(routes=[route("bad"), route("good", "other")]))
    bad, good = hosting.wanted
    for now in (0.0, 1.0, 3.0):
        assert bad.due <= now
        bad.fail("its rank is 99", now)
        assert hosting.next_to_load(now) is good
    good.loaded()
    assert hosting.is_settled()
    assert hosting.next_to_load(6.9) is None
    assert hosting.next_to_load(7.0) is bad
    states = {model.model_name: (model.state, model.message) for model in hosting.report().models}
    assert states == {"bad": ("Refused", "its rank is 99"), "good": ("Loaded", "")}


def test_a_name_without_a_route_no_longer_answers_and_is_dropped_when_its_requests_are_done() -> None:
    hosting = host(route("bot"), route("new", "other"))
    leaving, staying = hosting.wanted
    leaving.in_flight = 1
    hosting.want(Routes(routes=[route("new", "other", 50)]))
    assert hosting.wanted == [staying]
    assert staying.route.weight == 50
    assert answering(hosting, "bot") is None
    known = {leaving.route.served_name, staying.route.served_name}
    assert hosting.to_drop(known) == []
    leaving.in_flight = 0
    assert hosting.to_drop(known) == [leaving.route.served_name]


def test_a_version_that_comes_back_before_it_was_dropped_is_still_loaded() -> None:
    hosting = host(route("bot"))
    first = hosting.wanted[0]
    hosting.want(Routes(routes=[]))
    hosting.want(Routes(routes=[route("bot")]))
    assert hosting.wanted == [first]
    assert hosting.names == ["bot"]


def test_requests_and_errors_are_told() -> None:
    hosting = host(route("bot"))
    for status in (200, 500, 400):
        hosting.wanted[0].answered(status, 0.5)
    (told,) = hosting.report().models
    assert (told.requests, told.errors, told.seconds, told.job) == (3, 1, 1.5, "first")


def test_a_hidden_version_answers_to_its_own_name_only() -> None:
    hosting = Hosting()
    hidden = route("bot", "next", 0).model_copy(update={"is_hidden": True})
    hosting.want(Routes(routes=[hidden]))
    hosting.wanted[0].loaded()
    assert hosting.find("bot", 50) is None
    assert not hosting.knows("bot")
    assert hosting.names == []
    assert hosting.find("bot@next", 50) is hosting.wanted[0]
    proven = route("bot", "next", 100)
    hosting.want(Routes(routes=[proven]))
    assert hosting.wanted[0].is_loaded
    assert hosting.find("bot", 50) is hosting.wanted[0]
