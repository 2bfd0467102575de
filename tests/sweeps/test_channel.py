import os
import threading

import pytest

from llama_exp.sweeps.channel import Channel, Inbox, post


@pytest.fixture
def pair():
    one, other = Channel.make_pair()
    yield one, other
    one.close()
    other.close()


def test_messages_and_open_files_arrive_one_by_one(pair, tmp_path):
    with open(tmp_path / "file", "w") as file:
        assert pair[0].send("first", 1, files=[file.fileno()])
        assert pair[0].send("second", {"a": [2]})
        message, [arrived] = pair[1].receive()
    os.write(arrived, b"through")
    os.close(arrived)
    assert message == ("first", 1) and (tmp_path / "file").read_text() == "through"
    assert pair[1].receive() == (("second", {"a": [2]}), [])


def test_a_message_larger_than_the_sockets_memory(pair):
    text = "x" * 3_000_000
    sender = threading.Thread(target=pair[0].send, args=(text,))
    sender.start()
    assert pair[1].receive() == ((text,), [])
    sender.join()


def test_the_other_ends_death_is_noticed(pair):
    pair[0].close()
    with pytest.raises(EOFError):
        pair[1].receive()
    assert not pair[1].send("nobody hears it")


def test_a_result_of_any_size_waits_for_nobody_else(pair):
    """Its sender goes on only if the inbox is drained; a process that holds the pipe open does not matter."""
    reader, writer = os.pipe()
    inbox, value = Inbox(reader), {"losses": list(range(100_000))}
    sender = threading.Thread(target=post, args=(writer, value))
    sender.start()
    while sender.is_alive():
        assert inbox.drain()
    assert inbox.read() == value
    os.close(writer)
    os.close(reader)


def test_half_a_result_is_none():
    reader, writer = os.pipe()
    inbox = Inbox(reader)
    assert inbox.read() is None
    os.write(writer, (1000).to_bytes(8, "big") + b"only this")
    assert inbox.read() is None
    os.close(writer)
    assert not inbox.drain() and inbox.read() is None
    os.close(reader)


def test_nobody_reads_the_result():
    reader, writer = os.pipe()
    os.close(reader)
    post(writer, "x" * 100_000)  # the job ends as usual
    os.close(writer)
