"""All checks together, and what is shown of them."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from holdfast.client.local import LocalCluster
from holdfast.server.diagnose.finding import Context, Finding, failed, passed, warned
from holdfast.server.diagnose.registry import diagnose
from holdfast.server.diagnose.report import exit_code, render
from holdfast.server.main import cli

FINDINGS = [passed("a.b", "good"), warned("c", "hm", "look"), failed("d", "bad", "repair")]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return LocalCluster.create(tmp_path_factory.mktemp("local"), 2).nodes[0].config_file


def test_a_failure_is_exit_code_one_and_a_warning_is_not() -> None:
    assert [exit_code(FINDINGS[:count]) for count in (1, 2, 3)] == [0, 0, 1]


def test_the_report_is_for_people_or_for_programs() -> None:
    text = render(FINDINGS, "table")
    assert "fail  d    bad" in text
    assert "-> repair" in text
    assert "1 pass, 1 warn, 1 fail" in text
    facts = json.loads(render(FINDINGS, "json"))
    assert facts == yaml.safe_load(render(FINDINGS, "yaml"))
    assert facts["result"] == "fail"
    assert facts["findings"][0] == {"check": "a.b", "result": "pass", "detail": "good", "remedy": None}
    assert [json.loads(render(FINDINGS[:count], "json"))["result"] for count in (1, 2)] == ["pass", "warn"]


def test_without_a_usable_configuration_nothing_else_is_looked_at(tmp_path: Path) -> None:
    file = tmp_path / "node.yaml"
    file.write_text("node_id: a\nnodeid: b\n")
    assert [finding.result for finding in diagnose(file, now_s=time.time)] == ["fail"]


def test_a_check_that_breaks_hides_nothing_and_further_ones_can_be_given(config: Path) -> None:
    def check_broken(_: Context) -> Iterator[Finding]:
        yield passed("first", "seen")
        raise RuntimeError("s3cr3t")

    def check_provider(_: Context) -> Iterator[Finding]:
        yield warned("provider.x", "away", "start it")

    found = diagnose(config, now_s=time.time, extra=[check_broken, check_provider], timeout_s=0.2)
    by_name = {finding.check: finding for finding in found}
    assert by_name["configuration"].result == "pass"
    assert by_name["first"].result == "pass"
    assert by_name["broken"].result == "fail"
    assert "s3cr3t" not in render(found, "json")
    assert by_name["provider.x"].result == "warn"


def test_a_node_that_was_never_started_is_told_what_is_missing(config: Path) -> None:
    result = CliRunner().invoke(cli, ["diagnose", "--config", str(config), "--format", "json"])
    found = {finding["check"]: finding["result"] for finding in json.loads(result.stdout)["findings"]}
    assert result.exit_code == 1
    assert found["peer.node-2.cluster"] == "fail"  # nobody runs
    assert {result for check, result in found.items() if check.startswith(("certificate.", "port."))} == {"pass"}
    assert found["seal.self"] == "pass"
