"""/metrics: what it says is what happened, under names that stay, to those who may look and nobody else."""

import contextlib
import json
import sqlite3
import threading
import time
from pathlib import Path

import pytest
from harness import Running, Wire, ask, chat, get, post, serving, until
from prometheus_client.parser import text_string_to_metric_families
from upstream import KEY, Upstream

from freehold.metrics import FAMILIES, HISTOGRAM, SECONDS, Histogram, Metrics
from freehold.types import Kind, Outcome, Seen, Settlement, Usage

CHAT = "/v1/chat/completions"


def figures(server: Running, key: str | None = None) -> dict[str, dict[tuple, float]]:
    """The page, by name and by the labels' values in the order of their names."""
    status, headers, body = get(server, "/metrics", key or server.key)
    assert status == 200 and headers["content-type"].startswith("text/plain; version=0.0.4"), body
    found: dict[str, dict[tuple, float]] = {}
    for family in text_string_to_metric_families(body.decode()):
        for sample in family.samples:
            labels = tuple(value for _, value in sorted(sample.labels.items()))
            assert labels not in found.setdefault(sample.name, {}), f"{sample.name}{labels} is there twice"
            found[sample.name][labels] = sample.value
    return found


def test_the_page_says_what_the_ledger_says(tmp_path, tiny_model):
    """Calls by outcome and tokens are the sums of the ledger's rows; each histogram has as many as it should."""
    with serving(tmp_path / "home", tiny_model) as server:
        for tokens in (1, 3, 8):
            assert ask(server, CHAT, chat({"tokens": tokens}))[0] == 200
        assert ask(server, CHAT, chat({"tokens": 5, "each_ms": 20}, stream=True))[0] == 200
        assert ask(server, CHAT, chat({"status": 400}))[0] == 400
        assert ask(server, "/v1/completions", {"model": "tiny", "prompt": "one two"})[0] == 200
        with Wire(server.port) as wire:
            wire.send(post(CHAT, chat({"tokens": 500, "each_ms": 20}, stream=True), server.key))
            heard = b""
            while b"word" not in heard:
                heard += wire.socket.recv(65536)
        ended = "freehold_calls_total"
        until(lambda: ("chat.completions", "tiny", "abandoned") in figures(server)[ended])
        until(lambda: server.calls(1)[0]["outcome"] == "abandoned")  # written a moment later
        found = figures(server)
        with contextlib.closing(sqlite3.connect(server.home / "freehold.db")) as connection:
            unsettled = "SELECT count(*) FROM calls WHERE outcome IS NULL"
            until(lambda: connection.execute(unsettled).fetchone() == (0,))
            rows = connection.execute("SELECT kind, model, outcome, count(*) FROM calls GROUP BY 1, 2, 3").fetchall()
            sums = connection.execute("SELECT sum(prompt_tokens), sum(completion_tokens) FROM calls").fetchone()
            chats = connection.execute("SELECT sum(total_ms) / 1000 FROM calls WHERE kind LIKE 'chat%'").fetchone()[0]
        assert found[ended] == {tuple(row[:3]): row[3] for row in rows} and len(rows) == 4
        tokens = found["freehold_tokens_total"]
        assert (tokens["tiny", "prompt"], tokens["tiny", "completion"]) == sums and sums[1] > 17
        assert found["freehold_call_seconds_count"]["chat.completions", "tiny"] == 6
        assert found["freehold_call_seconds_sum"]["chat.completions", "tiny"] == pytest.approx(chats)
        assert found["freehold_time_to_first_token_seconds_count"]["tiny",] == 2
        assert found["freehold_wait_seconds_count"]["tiny",] == 7
        assert found["freehold_time_per_token_seconds_count"]["tiny",] == 1
        assert 0.02 <= found["freehold_time_per_token_seconds_sum"]["tiny",] < 0.2


def test_names_and_labels_stay(fake):
    """Every metric that is written is in the list that the reference is made of, with the labels of the list."""
    ask(fake, CHAT, chat("hi", stream=True))
    body = get(fake, "/metrics", fake.key)[2].decode()
    known = {family.name: family for family in FAMILIES}
    for found in text_string_to_metric_families(body):
        if found.name.startswith("process_"):
            continue
        family = known.pop(found.name)
        assert found.type == family.kind, found.name
        for sample in found.samples:
            assert set(sample.labels) - {"le"} == set(family.labels), sample
            assert ("le" in sample.labels) == (family.kind == HISTOGRAM and sample.name.endswith("_bucket"))
    assert set(known) == {"freehold_trace_spans", "freehold_trace_bytes"}, "these are there where traces are"
    assert "process_start_time_seconds" in body and "process_resident_memory_bytes" in body


def test_a_name_that_a_client_made_up_makes_no_series(fake):
    """However many come, there is one more count and no more lines."""
    ask(fake, CHAT, chat("hi") | {"model": "first-of-many"})
    before = get(fake, "/metrics", fake.key)[2].decode()
    for number in range(20):
        assert ask(fake, CHAT, chat("hi") | {"model": f'x{number}"}} 1\nfreehold_calls_total 7'})[0] == 404
    after = get(fake, "/metrics", fake.key)[2].decode()
    assert before.count("\n") == after.count("\n") and "first-of-many" not in after and "x1" not in after
    refused = [figures(fake)["freehold_calls_total"]["chat.completions", "", "refused"]]
    assert refused[0] >= 21


def test_only_those_who_may_look_may_read_it(fake):
    """No key, a wrong one and a member's are refused; an auditor's is good; nothing but GET and HEAD is taken."""
    assert get(fake, "/metrics")[0] == 401
    assert get(fake, "/metrics", "fh_wrong")[0] == 401
    for role, status in (("member", 403), ("auditor", 200), ("operator", 200)):
        made = fake.cli("keys", "create", f"reads-{role}", "--role", role, "--json")
        assert get(fake, "/metrics", json.loads(made.stdout)["key"])[0] == status, role
    assert ask(fake, "/metrics", {})[0] == 405


def scrape(server: Running, *rows: str) -> int:
    with Wire(server.port) as wire:
        return wire.send("\r\n".join(["GET /metrics HTTP/1.1", *rows, "", ""])).read()[0]


def test_it_can_be_opened_to_this_machine_alone(tmp_path, tiny_model):
    """With metrics.open a request from loopback needs no key, unless a proxy handed it on or it came by another name;
    a key that is sent has to be good all the same."""
    with serving(tmp_path / "home", tiny_model, env={"FREEHOLD_METRICS_OPEN": "true"}) as server:
        assert scrape(server, f"Host: 127.0.0.1:{server.port}") == 200
        assert scrape(server, "Host: localhost") == 200 and scrape(server, "Host: [::1]:9") == 200
        assert scrape(server, "Host: [::1]") == 200 and scrape(server, "Host: [::1") == 401
        assert scrape(server, "Host: evil.example") == 401 and scrape(server) == 401
        for header in ("X-Forwarded-For: 10.0.0.1", "Forwarded: for=10.0.0.1", "Via: 1.1 proxy", "X-Real-IP: 10.0.0.1"):
            assert scrape(server, "Host: localhost", header) == 401
        assert scrape(server, "Host: localhost", "Authorization: Bearer fh_wrong") == 401
        assert get(server, "/admin/status")[0] == 401


def test_it_is_not_opened_behind_a_proxy(tmp_path, tiny_model):
    """There everybody comes from this machine: the two settings together are refused at the start."""
    env = {"FREEHOLD_METRICS_OPEN": "true", "FREEHOLD_SERVER_BEHIND_PROXY": "true"}
    with pytest.raises(AssertionError, match=r"metrics\.open"):
        Running(tmp_path / "home", "--engine", "fake", "--model", str(tiny_model), env=env)


def test_the_line_the_slots_and_the_engine_are_as_they_are(tmp_path, tiny_model):
    """With one slot taken and two calls waiting it says so; an engine that was killed has been restarted once."""
    with serving(tmp_path / "home", tiny_model, env={"FREEHOLD_ENGINE_SLOTS": "1"}) as server:
        slow = chat({"tokens": 40, "each_ms": 50})
        threads = [threading.Thread(target=ask, args=(server, CHAT, slow)) for _ in range(3)]
        for thread in threads:
            thread.start()
        text = ("tiny", "text")
        found = until(lambda: (now := figures(server))["freehold_queue_calls"][text] == 2 and now)
        assert (found["freehold_slots"][text], found["freehold_slots_in_use"][text]) == (1, 1)
        time.sleep(0.2)
        assert figures(server)["freehold_queue_oldest_seconds"][text] >= 0.2
        assert found["freehold_engine_up"]["fake", *text] == 1
        for thread in threads:
            thread.join()
        assert ask(server, CHAT, chat({"die_after": 2}))[0] == 502
        until(lambda: figures(server)["freehold_engine_restarts_total"]["fake", *text] == 1)
        until(lambda: figures(server)["freehold_engine_up"]["fake", *text] == 1)
        assert figures(server)["freehold_queue_calls"][text] == 0


def test_the_seal_is_shown_as_the_kernel_has_it(fake, tmp_path, tiny_model):
    """By process and layer, as 'freehold status' has it; where it is switched off that is a 0."""
    shown = figures(fake)["freehold_seal_active"]
    known = {
        (layer["name"], process["who"]): float(layer["active"])
        for process in fake.status()["seal"]["processes"]
        for layer in process["layers"]
    }
    assert shown.items() <= known.items() and ("seccomp", "gateway") in shown and ("seccomp", "engine tiny") in shown
    with serving(tmp_path / "home", tiny_model, env={"FREEHOLD_SEAL": "off"}) as server:
        assert figures(server)["freehold_seal_active"]["seal", "gateway"] == 0


def test_the_audit_head_and_the_processes_are_shown(fake):
    """The head grows with each event; memory and start time are those of the process."""
    before = figures(fake)["freehold_audit_head"][()]
    fake.cli("keys", "create", "one-more")
    found = figures(fake)
    assert found["freehold_audit_head"][()] == before + 1 == fake.status()["audit"]["events"]
    resident = int(Path(f"/proc/{fake.process.pid}/statm").read_text().split()[1]) * 4096
    assert found["freehold_resident_bytes"]["gateway",] == pytest.approx(resident, rel=0.2)
    assert time.time() - 600 < found["process_start_time_seconds"][()] < time.time()
    assert found["freehold_info"]["strict", "best", fake.status()["version"]] == 1


def test_an_answer_that_was_withheld_counts_as_failed(tmp_path, tiny_model):
    """While another holds the database, the ledger is failing and says so, and what the ledger calls failed is not
    counted as answered."""
    with serving(tmp_path / "home", tiny_model) as server:
        assert ask(server, CHAT, chat("hi"))[0] == 200
        with contextlib.closing(sqlite3.connect(server.home / "freehold.db", isolation_level=None)) as holder:
            holder.execute("BEGIN IMMEDIATE")
            status, _, _ = ask(server, CHAT, chat("hi"))
            assert status == 503
            assert figures(server)["freehold_ledger_failing"][()] == 1
            holder.execute("ROLLBACK")
        until(lambda: figures(server)["freehold_ledger_failing"][()] == 0)
        until(lambda: server.calls(1)[0]["outcome"] == "failed")
        ended = figures(server)["freehold_calls_total"]
        assert ended == {("chat.completions", "tiny", "answered"): 1, ("chat.completions", "tiny", "failed"): 1}


def test_what_left_the_house_is_counted_by_upstream(tmp_path, tiny_model):
    """Calls and bytes; an upstream whose breaker is open is shown so; what never left is not counted."""
    far = Upstream()
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "key").write_text(KEY)
    (home / "freehold.toml").write_text(
        f'upstream_hosts = ["{far.host}", "127.0.0.1:1"]\n[upstreams.far]\nurl = "{far.url}"\nmodels = ["far-1"]\n'
        f'key_file = "{tmp_path / "key"}"\nretries = 0\n'
        '[upstreams.gone]\nurl = "http://127.0.0.1:1/v1"\nmodels = ["gone-1"]\nretries = 0\nbreaker_failures = 1\n'
    )
    try:
        with serving(home, tiny_model) as server:
            for _ in range(2):
                assert ask(server, CHAT, chat("hi") | {"model": "far-1"})[0] == 200
            assert ask(server, CHAT, chat("hi") | {"model": "gone-1"})[0] == 502
            found = figures(server)
            assert found["freehold_left_the_house_calls_total"] == {("far",): 2, ("gone",): 0}
            sent = sum(len(got["body"]) for got in far.got)
            assert found["freehold_left_the_house_bytes_total"] == {("far",): sent, ("gone",): 0}
            assert found["freehold_upstream_up"] == {("far",): 1, ("gone",): 0}
            assert found["freehold_tokens_total"]["far-1", "prompt"] == 14
            assert found["freehold_seal_active"]["seccomp", "relay, worker"] == 1
    finally:
        far.close()


def test_the_command_shows_the_same(fake):
    """As text as it comes, and as a list for programs."""
    text = fake.cli("metrics").stdout
    assert "# TYPE freehold_calls_total counter" in text and text.count("\n") > 50
    rows = json.loads(fake.cli("metrics", "--json").stdout)
    assert {"name": "freehold_ledger_failing", "labels": {}, "value": 0.0} in rows


def test_openmetrics_is_given_to_who_prefers_it(fake):
    """As Prometheus asks for it; it ends with its mark."""
    with Wire(fake.port) as wire:
        head = f"Host: x\r\nAuthorization: Bearer {fake.key}\r\nAccept: application/openmetrics-text; version=1.0.0\r\n"
        status, headers, body = wire.send(f"GET /metrics HTTP/1.1\r\n{head}\r\n").read()
    assert status == 200 and headers["content-type"].startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")


def test_a_histogram_holds_what_lies_on_a_bound_within_it():
    """As Prometheus has it: 'le' is less than or equal; the last bucket has all."""
    found = Histogram(SECONDS)
    for seconds in (0.005, 0.0051, 600, 601):
        found.add(seconds)
    buckets = dict(found.buckets())
    assert (buckets["0.005"], buckets["0.01"], buckets["600.0"], buckets["+Inf"]) == (1, 2, 3, 4)
    assert found.total == pytest.approx(1201.0101)


def test_a_call_costs_a_few_microseconds():
    """To be counted; the bound is loose, for machines that do other things."""
    metrics = Metrics()
    end = Settlement(Outcome.ANSWERED, 200, usage=Usage(10, 5, 2), first_token_ms=20.0, total_ms=60.0, waited_ms=0.0)
    seen = Seen("req_1", "admin", Kind.CHAT, end, "tiny")
    began = time.process_time()
    for _ in range(5000):
        metrics.see(seen)
    assert (time.process_time() - began) / 5000 < 100e-6
    assert metrics.outcomes() == {"answered": 5000}


def test_energy_is_summed_where_a_counter_says_it():
    """And is not there where none does: no figure is made up."""
    metrics = Metrics()
    for joules in (1.5, None, 2.0):
        end = Settlement(Outcome.ANSWERED, 200, total_ms=60.0, joules=joules)
        metrics.see(Seen("req_1", "admin", Kind.CHAT, end, "tiny"))
        metrics.see(Seen("req_1", "admin", Kind.CHAT, Settlement(Outcome.ANSWERED, 200), "dark"))
    found = {family.name: samples for family, samples in metrics.samples()}
    assert found["freehold_energy_joules"] == [(("tiny",), 3.5)]
