import json
import threading
import warnings
from dataclasses import replace

import pytest

from opsd_lab.rollouts import SamplingParams, VLLMServerSampler
from opsd_lab.rollouts.agreement import agreement
from tests.engines.faulty import proxies
from tests.engines.serving import free_port, perturb, require_vllm, save_tiny, server, stop, tiny

PROMPTS = [list(b"What is 3 + 4?"), list(b"abc"), list(b"Tom has 12 shells and finds 5 more.")]
PARAMS = SamplingParams(max_new_tokens=16, n=4, seed=3)
ROUNDING = 1e-4


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def url(folder, tmp_path_factory):
    require_vllm()
    with server(folder, tmp_path_factory.mktemp("log") / "server.txt") as (address, _):
        yield address


def trained(folder, seed=1):
    policy = tiny(folder)
    perturb(policy, seed)
    return policy


def over(policy, *addresses, **options):
    return VLLMServerSampler(policy, addresses, progress=False, **{"timeout": 30.0, "pause": 0.05, "attempts": 3} | options)


@pytest.fixture
def expected(url, folder):
    """What a server without faults draws."""
    with over(trained(folder), url) as sampler:
        return sampler.sample(PROMPTS, PARAMS)


def test_rollouts_are_the_policys_own_and_follow_every_update(url, folder):
    policy = tiny(folder)
    drawn = []
    with over(policy, url) as sampler:
        for seed in range(3):
            if seed:
                perturb(policy, seed)
                sampler.update(policy)
            rollouts = sampler.sample(PROMPTS, PARAMS)
            assert [list(r.prompt_ids) for r in rollouts] == [p for p in PROMPTS for _ in range(4)]
            assert max(agreement(policy, r).largest for r in rollouts) < ROUNDING
            drawn.append([r.completion_ids for r in rollouts])
    assert drawn[0] != drawn[1] != drawn[2]


def test_a_rollout_is_the_same_whichever_server_draws_it_and_whatever_beside_it(url, folder, expected):
    with proxies(url, 3) as several, over(trained(folder), *(p.url for p in several)) as sampler:
        assert sampler.sample(PROMPTS, PARAMS) == expected
        assert sampler.sample(PROMPTS[1:2], PARAMS) == expected[4:8]
        other = sampler.sample(PROMPTS, replace(PARAMS, seed=9))
    assert [r.completion_ids for r in other] != [r.completion_ids for r in expected]


def every_third(answer):
    return lambda number, path, real: answer(real) if number >= 0 and number % 3 == 1 else real()


PASSING = {
    "the connection broken off": every_third(lambda real: None),
    "an internal error": every_third(lambda real: (500, b'{"error": "out of memory"}')),
    "too busy": every_third(lambda real: (503, b"busy")),
    "JSON cut short": every_third(lambda real: (200, real()[1][:-40])),
}


@pytest.mark.parametrize("fault", PASSING)
def test_a_passing_fault_costs_no_rollout_and_doubles_none(fault, url, folder, expected):
    with proxies(url, 1) as (proxy,), over(trained(folder), proxy.url, concurrency=2) as sampler:
        proxy.fault = PASSING[fault]
        assert sampler.sample(PROMPTS, PARAMS) == expected
        assert proxy.completions > len(expected)  # some were asked for again


def wrong_ids(number, path, real):
    status, content = real()
    if number < 0:
        return status, content
    answer = json.loads(content)
    answer["choices"][0]["prompt_token_ids"][0] += 1
    return status, json.dumps(answer).encode()


def no_ids(number, path, real):
    status, content = real()
    return status, content if number < 0 else content.replace(b'"token_ids"', b'"tokens"')


LASTING = {
    "completed other prompt ids": wrong_ids,
    "without token ids": no_ids,
    "answered /v1/completions with 500": lambda n, p, real: (500, b"broken") if n >= 0 else real(),
    "cannot be reached, or broke off": lambda n, p, real: None,
    "runtime loading is off.*It did not load the LoRA.*--enable-lora": lambda n, p, real: (
        (400, b"runtime loading is off") if "load_lora" in p else real()
    ),
    "answers /v1/models with something else": lambda n, p, real: (200, b'{"hello": 1}') if "models" in p else real(),
}


@pytest.mark.parametrize("words", LASTING)
def test_a_server_with_a_lasting_fault_is_named_and_the_others_do_its_work(words, url, folder, expected):
    with proxies(url, 2) as (bad, good), over(trained(folder), url) as first:
        first.close()
        bad.fault = LASTING[words]
        with (
            pytest.warns(UserWarning, match=f"{bad.url}.*{words}|{words}.*{bad.url}"),
            over(trained(folder), bad.url, good.url) as sampler,
        ):
            assert sampler.sample(PROMPTS, PARAMS) == expected


def test_a_hung_server_is_named_and_the_others_do_its_work(url, folder, expected):
    with proxies(url, 2) as (hung, good), over(trained(folder), hung.url, good.url, timeout=4.0, attempts=2) as sampler:
        hung.fault = lambda n, p, real: (hung.ended.wait(20), None)[1] if n >= 0 else real()
        with pytest.warns(UserWarning, match=rf"{hung.url} did not answer /v1/completions within 4 s"):
            assert sampler.sample(PROMPTS, PARAMS) == expected


def test_what_was_finished_before_every_server_failed_is_not_asked_for_again(url, folder, expected):
    with proxies(url, 1) as (proxy,), over(trained(folder), proxy.url, concurrency=1, attempts=2) as sampler:
        proxy.fault = lambda n, p, real: real() if n < 5 else None
        with pytest.warns(UserWarning), pytest.raises(RuntimeError, match=rf"5 of 12 completions are finished and kept.*{proxy.url}"):
            sampler.sample(PROMPTS, PARAMS)
        proxy.fault, proxy.finished[:] = None, []
        assert sampler.sample(PROMPTS, PARAMS) == expected
        assert len(proxy.finished) == 7


def test_a_server_that_was_started_again_gets_its_adapter_again(url, folder, expected):
    policy = trained(folder)
    with over(policy, url) as sampler:
        assert sampler.sample(PROMPTS, PARAMS) == expected
        (known,) = sampler._servers
        known.endpoint.unload_adapter(known.name)  # what a new start forgets
        assert sampler.sample(PROMPTS, PARAMS) == expected


def test_a_server_of_another_model_is_named(url, tmp_path):
    with over(tiny(save_tiny(tmp_path, seed=1)), url) as sampler, pytest.raises(RuntimeError, match=rf"{url} does not sample from"):
        sampler.sample(PROMPTS, PARAMS)


def test_a_server_killed_in_the_middle_is_named_and_the_rest_is_kept_for_another(url, folder, expected, tmp_path):
    policy = trained(folder)
    with (
        server(folder, tmp_path / "server.txt") as (second, process),
        over(policy, second, url, attempts=1, concurrency=1) as sampler,
    ):
        dying, sound = (known.endpoint for known in sampler._servers)
        draw, wait, killed = dying.complete, sound.complete, threading.Event()

        def killed_at_the_second(*arguments):
            if killed.is_set() or not sampler._done:
                return draw(*arguments)
            stop(process)
            killed.set()
            return draw(*arguments)

        dying.complete = killed_at_the_second
        sound.complete = lambda *arguments: (killed.wait(60), wait(*arguments))[1]
        with pytest.warns(UserWarning, match=rf"{second} cannot be reached"):
            assert sampler.sample(PROMPTS, PARAMS) == expected


def test_servers_that_cannot_be_used_are_all_named(folder):
    require_vllm()
    addresses = [f"http://127.0.0.1:{free_port()}" for _ in range(2)]
    with pytest.warns(UserWarning), pytest.raises(RuntimeError, match=rf"{addresses[0]}.*{addresses[1]}"):
        over(tiny(folder), *addresses)


def test_a_model_name_that_is_not_served_is_named_with_what_is(url, folder):
    with pytest.warns(UserWarning), pytest.raises(RuntimeError, match=r"serves \['.*'\], not 'another'"):
        over(tiny(folder), url, model="another")


def test_a_policy_without_a_lora_and_a_sampler_without_servers_are_refused(folder):
    with pytest.raises(ValueError, match="has no LoRA; servers take adapters only"):
        over(tiny(folder, lora=False), "http://127.0.0.1:1")
    with pytest.raises(ValueError, match="no endpoints"):
        over(tiny(folder))


def test_a_sound_run_warns_of_nothing(url, folder, expected):
    with warnings.catch_warnings(), over(trained(folder), url) as sampler:
        warnings.simplefilter("error")
        assert sampler.sample(PROMPTS, PARAMS) == expected
