"""The versions that a server hosts, and the choice of one for a request."""

from finetune_api.contract.routes import Route, Routes
from finetune_serving.gateway.hosting import Hosting, compute_percentile
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


def build_hosting(*routes: Route) -> Hosting:
    """Return the state of a server that has loaded all of its routes."""
    hosting = Hosting()
    hosting.set_routes(Routes(routes=list(routes)))
    for version in hosting.desired:
        version.mark_loaded()
    return hosting


def find_job(hosting: Hosting, name: str, percentile: float = 0) -> str | None:
    version = hosting.find_version(name, percentile)
    return version.route.job if version else None


def test_a_new_version_answers_only_after_it_is_loaded() -> None:
    hosting = Hosting()
    assert not hosting.is_settled()
    hosting = build_hosting(route("bot"))
    hosting.set_routes(Routes(routes=[route("bot", "second"), route("bot", "first", 0)]))
    assert find_job(hosting, "bot") == "first"
    new = hosting.next_to_load(0)
    assert new
    assert new.route.job == "second"
    new.mark_loaded()
    assert find_job(hosting, "bot") == "second"
    assert hosting.to_unload({version.route.served_name for version in hosting.desired}) == []


def test_a_version_can_be_requested_by_its_job() -> None:
    hosting = build_hosting(route("bot", "second"), route("bot", "first", 0))
    assert find_job(hosting, "bot@first", 99) == "first"
    assert find_job(hosting, "bot@second", 99) == "second"
    assert find_job(hosting, "bot@third") is None
    assert hosting.has_name("bot@first")
    assert not hosting.has_name("bot@third")


@given(st.integers(0, 100), st.floats(0, 100, exclude_max=True))
def test_weights_divide_the_percentiles(weight: int, percentile: float) -> None:
    hosting = build_hosting(route("bot", "second", weight), route("bot", "first", 100 - weight))
    assert find_job(hosting, "bot", percentile) == ("second" if percentile < weight else "first")


@given(st.text(max_size=20), st.integers(0, 100), st.integers(0, 100))
def test_a_client_in_a_canary_stays_in_it_as_it_grows(key: str, before: int, after: int) -> None:
    percentile = compute_percentile("bot", key)
    assert 0 <= percentile < 100
    small, large = sorted((before, after))
    if percentile < small:
        assert (
            find_job(build_hosting(route("bot", "new", large), route("bot", "old", 100 - large)), "bot", percentile)
            == "new"
        )


def test_keys_are_spread_evenly() -> None:
    inside = sum(compute_percentile("bot", f"user {number}") < 10 for number in range(10_000))
    assert 850 < inside < 1150


def test_requests_of_a_version_that_is_not_loaded_go_to_the_one_with_the_largest_weight() -> None:
    hosting = build_hosting(route("bot", "new", 10), route("bot", "old", 90))
    hosting.desired[0].is_loaded = False
    assert find_job(hosting, "bot", 5) == "old"


def test_a_refused_adapter_is_retried_with_growing_delays_while_others_load() -> None:
    hosting = Hosting()
    hosting.set_routes(Routes(routes=[route("bad"), route("good", "other")]))
    bad, good = hosting.desired
    for now in (0.0, 1.0, 3.0):
        assert bad.retry_at <= now
        bad.mark_failed("its rank is 99", now)
        assert hosting.next_to_load(now) is good
    good.mark_loaded()
    assert hosting.is_settled()
    assert hosting.next_to_load(6.9) is None
    assert hosting.next_to_load(7.0) is bad
    states = {model.model_name: (model.state, model.message) for model in hosting.build_report().models}
    assert states == {"bad": ("Refused", "its rank is 99"), "good": ("Loaded", "")}


def test_a_version_without_a_route_gets_no_requests_and_is_unloaded_once_it_has_drained() -> None:
    hosting = build_hosting(route("bot"), route("new", "other"))
    draining, kept = hosting.desired
    draining.in_flight = 1
    hosting.set_routes(Routes(routes=[route("new", "other", 50)]))
    assert hosting.desired == [kept]
    assert kept.route.weight == 50
    assert find_job(hosting, "bot") is None
    loaded = {draining.route.served_name, kept.route.served_name}
    assert hosting.to_unload(loaded) == []
    draining.in_flight = 0
    assert hosting.to_unload(loaded) == [draining.route.served_name]


def test_a_version_whose_route_returns_before_it_was_unloaded_is_still_loaded() -> None:
    hosting = build_hosting(route("bot"))
    first = hosting.desired[0]
    hosting.set_routes(Routes(routes=[]))
    hosting.set_routes(Routes(routes=[route("bot")]))
    assert hosting.desired == [first]
    assert hosting.names == ["bot"]


def test_requests_and_errors_are_reported() -> None:
    hosting = build_hosting(route("bot"))
    for status in (200, 500, 400):
        hosting.desired[0].count_request(status, 0.5)
    (model,) = hosting.build_report().models
    assert (model.requests, model.errors, model.seconds, model.job) == (3, 1, 1.5, "first")


def test_a_hidden_version_gets_only_requests_for_its_own_name() -> None:
    hosting = Hosting()
    hidden = route("bot", "next", 0).model_copy(update={"is_hidden": True})
    hosting.set_routes(Routes(routes=[hidden]))
    hosting.desired[0].mark_loaded()
    assert hosting.find_version("bot", 50) is None
    assert not hosting.has_name("bot")
    assert hosting.names == []
    assert hosting.find_version("bot@next", 50) is hosting.desired[0]
    hosting.set_routes(Routes(routes=[route("bot", "next", 100)]))
    assert hosting.desired[0].is_loaded
    assert hosting.find_version("bot", 50) is hosting.desired[0]
