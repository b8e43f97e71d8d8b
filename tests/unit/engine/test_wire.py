"""Frames and failures between engine and client."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from meterpost.core import errors
from meterpost.core.errors import InvalidInput, MeterpostError, Permanent, Transient
from meterpost.core.problem import Problem
from meterpost.engine.ports import Caller
from meterpost.engine.wire import (
    PROBLEMS_MAX,
    BadFrame,
    FrameTooLarge,
    Request,
    error_of,
    problem_frame,
    receive_frame,
    send_frame,
)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair()
    with one, other:
        yield one, other


def test_frames_arrive_whole_and_in_order(pair: tuple[socket.socket, socket.socket]) -> None:
    """Two frames sent back to back are received as the two objects they were."""
    one, other = pair
    send_frame(one, {"n": 1, "text": "Zürich 漢字"}, 1000)
    send_frame(one, {"n": 2}, 1000)
    assert receive_frame(other, 1000) == {"n": 1, "text": "Zürich 漢字"}
    assert receive_frame(other, 1000) == {"n": 2}
    one.close()
    assert receive_frame(other, 1000) is None


def test_a_frame_too_large_is_neither_sent_nor_read(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    """The limit holds on both sides: before the first byte is written, and by the length alone."""
    one, other = pair
    with pytest.raises(FrameTooLarge):
        send_frame(one, {"text": "x" * 200}, 100)
    one.sendall((1 << 31).to_bytes(4, "big"))
    with pytest.raises(FrameTooLarge):
        receive_frame(other, 100)


@pytest.mark.parametrize("body", [b"nonsense", b"[1]", b"\xff\xfe", b"[" * 100_000])
def test_bytes_that_are_no_object_are_refused(
    pair: tuple[socket.socket, socket.socket], body: bytes
) -> None:
    """What is not a JSON object is a bad frame, however deep it nests."""
    one, other = pair
    one.sendall(len(body).to_bytes(4, "big") + body)
    with pytest.raises(BadFrame):
        receive_frame(other, 1 << 20)


def test_an_end_within_a_frame_is_no_end_between_frames(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    """A peer that dies while it sends is told apart from one that has nothing more to say."""
    one, other = pair
    one.sendall(b"\0\0\0\x10half")
    one.close()
    with pytest.raises(EOFError):
        receive_frame(other, 100)


def _all_errors() -> list[type[MeterpostError]]:
    return [
        each
        for each in vars(errors).values()
        if isinstance(each, type) and issubclass(each, MeterpostError)
    ]


@pytest.mark.parametrize("class_", _all_errors())
def test_each_failure_arrives_as_the_class_it_was(class_: type[MeterpostError]) -> None:
    """Sentence, hint and class survive the way for every failure of the core's tree."""
    again = error_of(problem_frame(class_("It happened.", hint="Do this.")).pop("problem"))
    assert type(again) is class_
    assert (again.sentence, again.hint, again.code) == ("It happened.", "Do this.", class_.code)


def test_a_failure_the_core_does_not_know_arrives_as_its_nearest_class() -> None:
    """A connector's own failure keeps its code and becomes the core class it derives from."""

    class Odd(Permanent):
        code = "odd"

    again = error_of(problem_frame(Odd("Odd."))["problem"])
    assert type(again) is Permanent
    assert again.code == "odd"
    assert Permanent.code == "permanent"


def test_problems_and_waits_arrive_too() -> None:
    """Collected problems arrive with their places, up to a limit that is told; so does a wait."""
    listed = [Problem("bad", "Bad.", f"row {n}", "Mend it.") for n in range(PROBLEMS_MAX + 5)]
    again = error_of(problem_frame(InvalidInput("No.", listed))["problem"])
    assert isinstance(again, InvalidInput)
    assert again.problems == tuple(listed[:PROBLEMS_MAX])
    assert f"of {PROBLEMS_MAX + 5} problems" in again.sentence
    later = error_of(problem_frame(Transient("Later.", after_s=2.5))["problem"])
    assert isinstance(later, Transient)
    assert later.after_s == 2.5


def test_a_request_survives_the_way_and_hides_its_token() -> None:
    """What is sent is what was asked; a key does not appear where a request is printed."""
    request = Request("close", {"period": "2026-10"}, Caller(token="mp_x.SECRET"), "C1", "00-a")
    assert Request.from_frame(request.to_frame()) == request
    assert "SECRET" not in repr(request)


@pytest.mark.parametrize(
    "frame",
    [
        {},
        {"operation": ""},
        {"operation": 7},
        {"operation": "x" * 201},
        {"operation": "x", "arguments": []},
        {"operation": "x", "extra": 1},
        {"operation": "x", "token": 5},
    ],
)
def test_a_malformed_request_is_refused(frame: dict[str, object]) -> None:
    """Every word is checked before anything is done with it."""
    with pytest.raises(BadFrame):
        Request.from_frame(frame)
