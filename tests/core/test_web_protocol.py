import asyncio
import socket
import threading
from contextlib import suppress

import httpx
import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from websockets.sync.client import connect as open_websocket

from apps.core import web_protocol
from apps.core.web_protocol import HEAD_MAX_BYTES, MAX_PIPELINED, BoundedHttpProtocol, header_lines, send_whole
from tests.waiting import wait_until

LARGE = bytes(16 * 1024 * 1024)  # more than the kernel keeps for a client that takes nothing


async def echo(scope, receive, send):  # noqa: C901 - one branch for each address
    body = b""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})
        return
    if scope["path"].startswith("/whole"):
        own = [(b"content-length", b"5"), (b"x-path", scope["path"].encode())]
        if not send_whole(scope, 200, header_lines(own), b"whole"):
            await send({"type": "http.response.start", "status": 200, "headers": [*own, (b"x-usual", b"yes")]})
            await send({"type": "http.response.body", "body": b"whole"})
        return
    if scope["path"] == "/begun":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1000")]})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass
        return
    if scope["path"] == "/large":
        own = [(b"content-length", b"%d" % len(LARGE))]
        if "whole" not in scope["query_string"].decode() or not send_whole(scope, 200, header_lines(own), LARGE):
            await send({"type": "http.response.start", "status": 200, "headers": own})
            await send({"type": "http.response.body", "body": LARGE})
        return
    if scope["path"] == "/headers":
        while (await receive()).get("more_body"):
            pass
        names = b" ".join(name for name, _ in scope["headers"])
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(names))]})
        await send({"type": "http.response.body", "body": names})
        return
    if scope["path"] == "/at-once":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})
        return
    while (message := await receive())["type"] == "http.request":
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
def port():
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    config = uvicorn.Config(
        echo,
        http=BoundedHttpProtocol,
        loop="uvloop",
        lifespan="off",
        log_config=None,
        access_log=False,
        ws="websockets-sansio",
    )
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
    thread.start()
    listener_port = listener.getsockname()[1]
    yield listener_port
    server.should_exit = True
    thread.join(timeout=60)
    assert not thread.is_alive()


def connect(port):
    return socket.create_connection(("127.0.0.1", port), timeout=60)


def read_all(client):
    """Until the server ends the connection: with a reset where something came that it no longer reads."""
    received = b""
    with suppress(ConnectionResetError):
        while chunk := client.recv(65536):
            received += chunk
    return received


class TestBoundedHttpProtocol:
    @pytest.mark.parametrize("requests_before", [0, 1])
    def test_a_websocket_opens_and_outlives_the_time_for_a_head(self, port, monkeypatch, requests_before):
        """Told by the timers themselves: however slow this machine is, none ends a connection by mistake."""
        timers, start = [], BoundedHttpProtocol._start_timer

        def start_timer(protocol):
            start(protocol)
            timers.append(protocol._head_timer)

        monkeypatch.setattr(BoundedHttpProtocol, "_start_timer", start_timer)
        client = connect(port)
        for _ in range(requests_before):
            client.sendall(b"GET /at-once HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.recv(65536).startswith(b"HTTP/1.1 200")
        with open_websocket("ws://x/", sock=client) as websocket:
            for _ in range(2):
                websocket.send("still here")
                assert websocket.recv(timeout=60) == "still here"
                assert timers
                assert all(timer.cancelled() for timer in timers)

    def test_serves_many_requests_on_a_connection_with_bodies_larger_than_a_head(self, port):
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60) as client:
            for size in (0, 10, HEAD_MAX_BYTES * 3, 5):
                assert len(client.post("/", content=b"x" * size).content) == size

    def test_serves_requests_sent_all_at_once(self, port):
        with connect(port) as client:
            request = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
            last = request.replace(b"Host: x", b"Host: x\r\nConnection: close")
            client.sendall(request * 20 + last)
            assert read_all(client).count(b"200 OK") == 21

    def test_a_first_request_whose_address_cannot_be_read_is_refused_and_no_fault(self, port, caplog):
        with connect(port) as client:
            client.sendall(b"CONNECT 192.0.2.1:80 HTTP/1.1\r\nHost: x\r\n\r\n")
            assert read_all(client).startswith(b"HTTP/1.1 400")
        assert "Fatal error" not in caplog.text

    @pytest.mark.parametrize("apart", [False, True], ids=["in one piece", "in two pieces"])
    def test_what_follows_a_body_is_no_header(self, port, apart):
        """A proxy sets X-Forwarded-For in the head, and may let trailers of the caller's pass."""
        request = b"POST /headers HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        with connect(port) as client:
            client.sendall(request + b"1\r\na\r\n" + (b"" if apart else b"0\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n"))
            if apart:
                client.sendall(b"0\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n")
            assert read_all(client).endswith(b"\r\n\r\nhost transfer-encoding connection")

    @pytest.mark.parametrize(
        "lines",
        [
            b"Content-Length: 0\r\nContent-Length: 5",
            b"Content-Length: 5\r\nTransfer-Encoding: chunked",
            b"Transfer-Encoding: chunked\r\nContent-Length: 5",
            b"Transfer-Encoding: chunked, identity",
            b"Transfer-Encoding: xchunked",
            b"Transfer-Encoding : chunked",
            b"Content-Length: +5",
            b"Content-Length: 5, 5",
            b"X-A: b\nContent-Length: 5",
        ],
    )
    def test_a_body_whose_end_can_be_read_in_two_ways_ends_the_connection(self, port, lines):
        """A proxy may have read it in the other way, and taken for a body what we take for the next request."""
        with connect(port) as client:
            following = b"GET /whole/2 HTTP/1.1\r\nHost: x\r\n\r\n"
            client.sendall(b"POST /whole/1 HTTP/1.1\r\nHost: x\r\n" + lines + b"\r\n\r\n0\r\n\r\n" + following)
            answer = read_all(client)
        assert answer.startswith(b"HTTP/1.1 400")
        assert b"/whole/2" not in answer

    @pytest.mark.parametrize(
        ("version", "hosts", "status"),
        [
            (b"1.1", (b"x",), b"200"),
            (b"1.1", (), b"400"),
            (b"1.1", (b"x", b"x"), b"400"),
            (b"1.0", (), b"200"),
            (b"1.0", (b"x", b"y"), b"400"),
        ],
    )
    def test_says_once_whom_it_asks(self, port, version, hosts, status):
        """RFC 9112 3.2: a proxy may go by another Host than we do."""
        lines = b"".join(b"Host: %b\r\n" % host for host in hosts)
        with connect(port) as client:
            client.sendall(b"GET /whole HTTP/%b\r\n%bConnection: close\r\n\r\n" % (version, lines))
            assert read_all(client).startswith(b"HTTP/1.1 " + status)

    @pytest.mark.parametrize("path", [b"/", b"/at-once"], ids=["of a body that is read", "of an answered request"])
    @pytest.mark.parametrize("endless", [b"0\r\nX-Long: ", b"0\r\n" + b"X-Y: 1\r\n" * 9999, b"1;"])
    def test_refuses_endless_trailers_and_extensions(self, port, path, endless):
        with connect(port) as client:
            client.sendall(b"POST %b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" % path)
            if path == b"/at-once":
                assert b"200 OK" in client.recv(65536)
            client.sendall(endless)
            with pytest.raises((BrokenPipeError, ConnectionResetError)):
                client.sendall(b"a" * 100 * 1024 * 1024)

    def test_a_body_in_many_small_pieces_is_read(self, port):
        pieces = [b"x" * 100] * 5000
        assert httpx.post(f"http://127.0.0.1:{port}/", content=iter(pieces), timeout=60).content == b"".join(pieces)

    @pytest.mark.parametrize(
        "start", [b"GET /", b"GET / HTTP/1.1\r\nX-Long: ", b"GET / HTTP/1.1\r\n" + b"X-Y: 1\r\n" * 9999]
    )
    def test_refuses_an_endless_head(self, port, start):
        with connect(port) as client:
            with suppress(BrokenPipeError, ConnectionResetError):
                client.sendall(start + b"a" * HEAD_MAX_BYTES * 4)
            try:
                answer = read_all(client)
            except ConnectionResetError:  # we were still sending
                return
            assert answer.startswith((b"HTTP/1.1 431", b"HTTP/1.1 400"))

    def test_closes_a_connection_that_never_finishes_its_head(self, port, monkeypatch):
        monkeypatch.setattr(web_protocol, "HEAD_TIMEOUT_S", 0.3)
        with connect(port) as silent, connect(port) as slow:
            slow.sendall(b"GET / HTTP/1.1\r\nHost:")
            assert read_all(silent) == b""
            assert read_all(slow) == b""

    def test_the_second_head_on_a_connection_is_timed_as_well(self, port, monkeypatch):
        with connect(port) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"200 OK" in client.recv(65536)
            monkeypatch.setattr(web_protocol, "HEAD_TIMEOUT_S", 0.3)
            client.sendall(b"GET / HTTP/1.1\r\nHo")
            assert read_all(client) == b""

    @pytest.mark.parametrize(
        ("request_head", "rest"),
        [
            (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\r\n"),
            (b"POST /at-once HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\na", b"b"),
        ],
        ids=["blank lines", "the rest of a body that nobody reads"],
    )
    def test_bytes_that_begin_no_request_do_not_hold_a_connection(self, port, monkeypatch, request_head, rest):
        with connect(port) as client:
            client.sendall(request_head)
            assert b"200 OK" in client.recv(65536)
            monkeypatch.setattr(web_protocol, "HEAD_TIMEOUT_S", 0.3)
            client.sendall(rest)  # uvicorn's keep-alive timer is off now: without ours it stays open for ever
            assert read_all(client) == b""

    @pytest.mark.parametrize(
        "rest",
        [
            b"no request at all\r\n\r\n",
            b"GET / HTTP/1.1\r\nX-Long: " + b"a" * HEAD_MAX_BYTES,
            b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * (MAX_PIPELINED + 1),
        ],
        ids=["nonsense", "an endless head", "a websocket", "very many requests"],
    )
    def test_nothing_is_written_into_an_answer_that_has_begun(self, port, rest):
        with connect(port) as client:
            client.sendall(b"GET /begun HTTP/1.1\r\nHost: x\r\n\r\n")
            received = b""
            while not received.endswith(b"begun"):
                received += client.recv(65536)
            with suppress(BrokenPipeError, ConnectionResetError):
                client.sendall(rest)
            with suppress(ConnectionResetError):  # we were still sending
                assert read_all(client) == b""

    def test_serves_many_requests_that_wait_for_their_turn(self, port):
        with connect(port) as client:
            client.sendall(b"GET /at-once HTTP/1.1\r\nHost: x\r\n\r\n" * MAX_PIPELINED)
            client.sendall(b"GET /whole HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert read_all(client).count(b"200 OK") == MAX_PIPELINED + 1

    @pytest.mark.parametrize("query", [b"", b"?whole"])
    @pytest.mark.parametrize("close", [b"", b"Connection: close\r\n"], ids=["kept", "closing"])
    def test_a_client_that_never_takes_the_end_of_its_answer_is_cut_off(self, port, monkeypatch, query, close):
        monkeypatch.setattr(web_protocol, "CLIENT_STALL_S", 0.2)
        lost, connection_lost = [], BoundedHttpProtocol.connection_lost

        def connection_lost_and_note(protocol, exc):
            connection_lost(protocol, exc)
            lost.append(protocol)

        monkeypatch.setattr(BoundedHttpProtocol, "connection_lost", connection_lost_and_note)
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", port))
            client.sendall(b"GET /large%b HTTP/1.1\r\nHost: x\r\n%b\r\n" % (query, close))
            wait_until(lambda: lost)

    def test_an_application_hears_that_its_client_left_also_when_another_request_waits(self, port, monkeypatch):
        ended, run_asgi = [], RequestResponseCycle.run_asgi

        async def run_asgi_and_note(cycle, app):
            path = cycle.scope["path"]
            await run_asgi(cycle, app)
            ended.append(path)

        monkeypatch.setattr(RequestResponseCycle, "run_asgi", run_asgi_and_note)
        with connect(port) as client:
            client.sendall(b"GET /begun HTTP/1.1\r\nHost: x\r\n\r\nGET /at-once HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.recv(65536).startswith(b"HTTP/1.1 200")
        wait_until(lambda: ended)
        assert ended == ["/begun"]


class TestSendWhole:
    def test_answers_in_order_among_others_sent_all_at_once(self, port):
        with connect(port) as client:
            for number in range(20):
                client.sendall(b"GET /whole/%d HTTP/1.1\r\nHost: x\r\n\r\n" % number)
                client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc")
            client.sendall(b"GET /whole/20 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            answers = read_all(client).split(b"HTTP/1.1 200 OK\r\n")[1:]
        assert [b"x-path: /whole/%d\r\n" % number in answers[2 * number] for number in range(21)] == [True] * 21
        assert all(answer.endswith(b"\r\n\r\nabc") for answer in answers[1::2])
        assert all(answer.count(b"date: ") == 1 for answer in answers)
        assert not any(b"x-usual" in answer for answer in answers[::2])
        assert [b"\r\nconnection: close\r\n" in answer for answer in answers[::2]] == [False] * 20 + [True]

    def test_leaves_head_to_the_usual_way(self, port):
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60) as client:
            for _ in range(2):
                answer = client.head("/whole")
                assert (answer.headers["x-usual"], answer.headers["content-length"], answer.content) == (
                    "yes",
                    "5",
                    b"",
                )
            assert "x-usual" not in client.get("/whole").headers
