"""Requests that Schemathesis makes up from /openapi.json: the server never fails, and answers as it documents.

NBGPT_FUZZ_CALLS says how many of each operation; `.ci/long` asks for many.
"""

import os

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from servers import serving

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")

N_CALLS = int(os.environ.get("NBGPT_FUZZ_CALLS", 70))
QUIET = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck), "phases": [Phase.generate]}


@pytest.fixture(scope="module")
def fuzzed():
    with serving("--chat-template", "plain", "--timeout", 5, "--log-level", "warning") as server:
        yield server


def test_no_request_is_too_much(fuzzed):
    schemathesis.checks.load_all_checks()
    checks = [schemathesis.checks.CHECKS.get_one(name) for name in ("not_a_server_error", "status_code_conformance")]
    schema = schemathesis.openapi.from_url(f"{fuzzed.url}/openapi.json")
    n_calls = 0
    for operation in schema.get_all_operations():

        @settings(max_examples=N_CALLS, **QUIET)
        @given(case=operation.ok().as_strategy())
        def ask(case):
            nonlocal n_calls
            n_calls += 1
            if isinstance(case.body, dict) and isinstance(case.body.get("max_tokens"), int):
                case.body["max_tokens"] = min(case.body["max_tokens"], 20)  # so that many calls fit into a minute
            case.validate_response(case.call(base_url=fuzzed.url), checks=checks)

        ask()
    print(f"{n_calls} made-up requests")
    assert n_calls >= 7 * N_CALLS  # routes without a body have few different requests
    assert fuzzed.process.poll() is None
    fuzzed.wait_idle()
