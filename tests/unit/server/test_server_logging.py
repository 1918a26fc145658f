"""Logs: JSON of one line, from whatever library, and nothing in them that is named like a secret."""

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from holdfast.proto.errors import Corruption
from holdfast.server.config import LogConfig
from holdfast.server.logging import REDACTED, configure, is_sensitive

MARKER = "s3cr3t-marker"


class Output:
    def __init__(self) -> None:
        self.stream = io.StringIO()

    def lines(self) -> list[dict[str, Any]]:
        assert MARKER not in self.stream.getvalue()
        return [json.loads(line) for line in self.stream.getvalue().splitlines()]


@pytest.fixture
def output() -> Iterator[Output]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    out = Output()
    configure(LogConfig(level="info", format="json"), node_id="node-1", stream=out.stream)
    yield out
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def test_an_event_is_one_json_line_with_node_level_time_and_logger(output: Output) -> None:
    structlog.stdlib.get_logger("a.b").info("role changed", role="leader", term=3)
    (line,) = output.lines()
    assert line["event"] == "role changed"
    assert (line["role"], line["term"], line["node_id"], line["level"], line["logger"]) == (
        "leader", 3, "node-1", "info", "a.b",
    )  # fmt: skip
    assert line["timestamp"].endswith("Z")


def test_the_standard_librarys_loggers_arrive_the_same_way(output: Output) -> None:
    logging.getLogger("other").warning("low on %s", "space", extra={"peer": "node-2", "token": MARKER})
    (line,) = output.lines()
    assert (line["event"], line["peer"], line["token"], line["node_id"]) == (
        "low on space",
        "node-2",
        REDACTED,
        "node-1",
    )


@pytest.mark.parametrize(
    "name",
    [
        *("token", "root_token", "X-Holdfast-Token", "share", "shares", "secret", "client_secret", "password", "data"),
        *("passphrase", "payload", "key", "root_key", "private_key", "keyring", "value"),
    ],
)
def test_fields_named_like_secrets_are_blanked_however_deep(output: Output, name: str) -> None:
    structlog.stdlib.get_logger("x").info("e", **{name: MARKER}, deep={"in": [{name: MARKER}]})
    (line,) = output.lines()
    assert line[name] == REDACTED
    assert line["deep"] == {"in": [{name: REDACTED}]}


@pytest.mark.parametrize(
    "name", ["method", "outcome", "request_id", "reason", "node_id", "term", "key_file", "database"]
)
def test_ordinary_fields_are_not(name: str) -> None:
    assert not is_sensitive(name)


def test_bytes_are_never_shown(output: Output) -> None:
    structlog.stdlib.get_logger("x").info("e", frame=MARKER.encode(), parts=[MARKER.encode()])
    (line,) = output.lines()
    assert line["frame"] == f"[{len(MARKER)} bytes]"
    assert line["parts"] == [f"[{len(MARKER)} bytes]"]


def fail() -> None:
    try:
        raise KeyError(MARKER)
    except KeyError as error:
        raise ValueError(f"cannot use {MARKER}") from error


@pytest.mark.parametrize("library", ["structlog", "logging"])
def test_an_exception_is_its_classes_and_frames_without_its_text(output: Output, library: str) -> None:
    logger: Any = structlog.stdlib.get_logger("x") if library == "structlog" else logging.getLogger("x")
    try:
        fail()
    except ValueError:
        logger.exception("it failed")
    (line,) = output.lines()
    assert line["exception"] == ["ValueError", "KeyError"]
    assert line["frames"][-1].endswith(" fail")
    assert line["level"] == "error"


def test_our_own_errors_keep_their_text_which_is_safe(output: Output) -> None:
    try:
        raise Corruption("the journal has a hole at 7")
    except Corruption:
        structlog.stdlib.get_logger("x").exception("it failed")
    (line,) = output.lines()
    assert line["exception"] == ["Corruption: the journal has a hole at 7"]


def test_the_level_holds(output: Output) -> None:
    structlog.stdlib.get_logger("x").debug("quiet")
    logging.getLogger("x").debug("quiet")
    assert output.lines() == []


def test_console_format_is_readable_and_redacted() -> None:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    try:
        configure(LogConfig(format="console"), node_id="node-1", stream=stream)
        structlog.stdlib.get_logger("x").info("hello", password=MARKER)
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        structlog.reset_defaults()
    assert "hello" in stream.getvalue()
    assert MARKER not in stream.getvalue()
