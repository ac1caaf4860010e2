"""`tinysaver-edge run --large` watched from outside while its host goes away and comes back."""

from __future__ import annotations

import json
import re

import pytest

from tests.cli.test_run_service import Running, get
from tests.remote.hosts import repository
from tests.remote.triton import Triton, needs_triton
from tests.stream.sinks.test_mqtt import until

pytestmark = [pytest.mark.slow, needs_triton]


def test_metrics_page_and_summary_tell_of_a_host_that_was_away(tmp_path) -> None:
    pytest.importorskip("prometheus_client")
    served = repository(tmp_path)
    triton = Triton(tmp_path, served.path).start()
    one = Running(
        tmp_path / "bundle", "--source", "belt=demo://?fps=60", "--quiet",
        "--large", triton.url("large"), "--deadline-ms", "300", "--audit-share", "0",
    )  # fmt: skip

    def figure(name: str) -> float:
        text = get(f"http://127.0.0.1:{one.metrics}/metrics")
        found = re.findall(rf"^tinysaver_{re.escape(name)} (\S+)$", text, re.M)
        return float(found[0]) if found else -1.0

    def of_host(name: str, more: str = "") -> float:
        return figure(f'large_host_{name}{{host="{triton.url("large")}"{more}}}')

    try:
        one.up()
        assert until(lambda: of_host("answered_total") > 5)
        assert figure("fallback_share") == 0
        assert of_host("in_use") == 1
        assert of_host("model", f',sha256="{served.served.sha256}",version="1"') == 1
        triton.kill()
        assert until(lambda: of_host("breaker", ',state="closed"') == 0)
        assert until(lambda: figure("fallback_share") > 0.05)
        assert figure('large_failures_total{kind="unreachable"}') >= 3
        triton.start()
        assert until(lambda: of_host("reconnects_total") == 1)
        assert of_host("breaker", ',state="closed"') == 1
        answered = of_host("answered_total")
        assert until(lambda: of_host("answered_total") > answered)
        page = json.loads(get(f"http://127.0.0.1:{one.page}/state.json"))
        assert page["hosts"]["hosts"][0]["reconnects"] == 1
        assert page["promise"]["all"]["fallback_share"] > 0
        assert figure("large_sent_bytes_total") >= page["hosts"]["traffic"]["sent_bytes"]
    finally:
        code, _, err = one.stop()
        triton.stop()
    assert code == 143
    assert re.search(
        r"% the saver's for want of the large model(, a drop between .* expected)?$", err, re.M
    )
    assert "came back 1 times" in err
    assert "MB sent; failed: " in err
