"""The outbound guard, against real sockets on this machine and a resolver that lies."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import aiohttp
import httpx
import pytest
import trustme
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from apps.core import outbound, outbound_aiohttp
from apps.core.addresses import is_public, literal_address
from apps.core.outbound import OutboundRefused, check_url
from apps.core.outbound_aiohttp import guarded_aiohttp_session
from apps.core.outbound_async import guarded_async_httpx_client
from apps.core.outbound_httpx import guarded_httpx_client
from tests.standins.server import StandIn

LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))
ONLY_THIS = (ipaddress.ip_network("127.0.0.1/32"),)
PRIVATE = [
    "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",  # noqa: S104 - compared, not bound
    "240.0.0.1", "255.255.255.255", "192.0.2.1", "::1", "::", "fe80::1", "fc00::1", "fec0::1", "ff02::1",
    "::ffff:127.0.0.1", "::ffff:10.0.0.1", "2002:7f00:1::", "2002:a00:1::1", "64:ff9b::7f00:1", "64:ff9b::a00:1",
    "64:ff9b:1::a00:1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "::7f00:1", "2001:db8::1",
]  # fmt: skip
PUBLIC = ["8.8.8.8", "142.250.1.1", "2606:4700::1", "::ffff:8.8.8.8", "2002:808:808::1", "64:ff9b::808:808"]
LOOPBACK_SPELLINGS = ["localhost", "127.0.0.1", "2130706433", "0x7f000001", "0x7f.1", "127.1", "017700000001"]


class Site(StandIn):
    """Answers /ok, redirects /to?u=... and /loop; with ``tls``, over HTTPS for localhost."""

    def __init__(self, authority: trustme.CA | None = None) -> None:
        super().__init__()
        self.authority = authority

    @property
    def scheme(self) -> str:
        return "https" if self.authority else "http"

    def server_ssl(self) -> ssl.SSLContext | None:
        if self.authority is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
        return context

    def make_app(self) -> web.Application:
        async def ok(_request: web.Request) -> web.Response:
            self.counts["ok"] += 1
            return web.Response(text="ok")

        async def to(request: web.Request) -> web.Response:
            self.counts["to"] += 1
            raise web.HTTPFound(request.query["u"])

        async def hops(request: web.Request) -> web.Response:
            left = int(request.match_info["left"])
            raise web.HTTPFound(f"/hops/{left - 1}" if left else "/ok")

        app = web.Application()
        app.router.add_get("/ok", ok)
        app.router.add_get("/to", to)
        app.router.add_get("/hops/{left}", hops)
        return app


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as running:
        yield running


@pytest.fixture
def allow(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def set_networks(*networks: ipaddress.IPv4Network | ipaddress.IPv6Network) -> None:
        env = outbound.settings.ENV.model_copy(update={"outbound_allow": networks})
        monkeypatch.setattr(outbound.settings, "ENV", env)

    return set_networks


Get = Callable[[str], object]


@pytest.fixture(params=["httpx", "async httpx", "aiohttp"])
def get(request: pytest.FixtureRequest) -> Get:
    """Fetch an address with one of the guarded clients; the text of the answer."""

    def with_httpx(url: str) -> str:
        with guarded_httpx_client(follow_redirects=True) as client:
            return client.get(url).text

    def with_async_httpx(url: str) -> str:
        async def run() -> str:
            async with guarded_async_httpx_client(follow_redirects=True) as client:
                return (await client.get(url)).text

        return asyncio.run(run())

    def with_aiohttp(url: str) -> str:
        async def run() -> str:
            async with guarded_aiohttp_session() as session, session.get(url) as response:
                return await response.text()

        return asyncio.run(run())

    return {"httpx": with_httpx, "async httpx": with_async_httpx, "aiohttp": with_aiohttp}[request.param]


class TestAddresses:
    @pytest.mark.parametrize("address", PRIVATE)
    def test_private_ones_are_not_public_in_any_wrapping(self, address: str) -> None:
        assert not is_public(ipaddress.ip_address(address))

    @pytest.mark.parametrize("address", PUBLIC)
    def test_public_ones_are(self, address: str) -> None:
        assert is_public(ipaddress.ip_address(address))

    @given(st.ip_addresses(v=4))
    def test_a_wrapped_address_is_as_public_as_what_it_wraps(self, address: ipaddress.IPv4Address) -> None:
        for prefix in ("::ffff:0:0", "64:ff9b::"):
            wrapped = ipaddress.IPv6Address(int(ipaddress.IPv6Address(prefix)) | int(address))
            assert is_public(wrapped) == is_public(address)

    @pytest.mark.parametrize("host", LOOPBACK_SPELLINGS[1:])
    def test_odd_spellings_of_an_address_are_read_as_a_resolver_would(self, host: str) -> None:
        assert literal_address(host) == "127.0.0.1"

    @pytest.mark.parametrize("host", ["example.com", "beef.cafe", "1.2.3.4.5", "fab"])
    def test_names_are_not_addresses(self, host: str) -> None:
        assert literal_address(host) is None


class TestCheckUrl:
    @pytest.mark.parametrize(
        "url",
        [
            "", "example.com", "ftp://example.com/", "file:///etc/passwd", "https://", "https://user@example.com/",
            "https://u:p@example.com/", "https://example.com:99999/", "https://example.com:0/", "https://[::1/",
            "http://example.com/", "https://127.0.0.1/", "https://0x7f.1/", "https://2130706433/", "https://[::1]/",
            "https://[::ffff:127.0.0.1]/", "https://169.254.169.254/latest", "https://[fe80::1%25eth0]/",
            "https://256.256.256.256/", "https://1.2.3/", "https://017700000001/", "https://134744072/",
            "https://8.8.8.8./", "https://08.8.8.8/", "https://0x08080808/", "https://example.0x/", "https://example.1/",
            "https://1.2.3.4.5/", "https://99999999999/",
        ],
    )  # fmt: skip
    def test_refuses_what_is_not_public_https(self, url: str) -> None:
        with pytest.raises(OutboundRefused):
            check_url(url, allow=())

    @pytest.mark.parametrize(
        "url",
        ["https://example.com/", "https://example.com:8443/x?y#z", "https://8.8.8.8/", "https://1.example.0xg/",
         "https://4.3.2.1.in-addr.arpa/", "https://[2606:4700::6810:84e5]/"],
    )  # fmt: skip
    def test_lets_public_https_through(self, url: str) -> None:
        check_url(url, allow=())

    def test_lets_plain_http_through_only_where_it_is_allowed_by_address(self) -> None:
        check_url("http://127.0.0.1:8081/x", allow=LOOPBACK)
        check_url("http://[::ffff:127.0.0.1]/", allow=LOOPBACK)
        with pytest.raises(OutboundRefused):
            check_url("http://8.8.8.8/", allow=LOOPBACK)

    @given(st.text(max_size=60))
    def test_raises_nothing_else(self, url: str) -> None:
        for text in (url, f"https://{url}", f"https://[{url}]/"):
            try:
                check_url(text, allow=LOOPBACK)
            except OutboundRefused:
                continue


class TestClients:
    def test_reach_an_allowed_address(self, site: Site, get: Get) -> None:
        assert get(f"{site.url}/ok") == "ok"

    @pytest.mark.parametrize("host", [*LOOPBACK_SPELLINGS, "[::1]", "[::ffff:127.0.0.1]"])
    def test_reach_no_private_address_in_any_spelling(
        self, site: Site, get: Get, allow: Callable[..., None], host: str
    ) -> None:
        allow()
        for scheme in ("http", "https"):
            with pytest.raises(OutboundRefused):
                get(f"{scheme}://{host}:{site.port}/ok")
        assert not site.counts

    def test_do_not_reach_a_name_that_resolves_to_a_private_address(
        self, site: Site, get: Get, allow: Callable[..., None]
    ) -> None:
        allow(ipaddress.ip_network("10.0.0.0/8"))  # so that plain HTTP is not refused by its text alone
        with pytest.raises(OutboundRefused):
            get(f"http://localhost:{site.port}/ok")
        assert not site.counts

    def test_refuse_a_redirect_to_a_private_address(self, site: Site, get: Get, allow: Callable[..., None]) -> None:
        allow(*ONLY_THIS)
        for target in (f"http://127.0.0.2:{site.port}/ok", "http://[::1]:1/", "https://127.0.0.2/", "http://8.8.8.8/"):
            with pytest.raises(OutboundRefused):
                get(f"{site.url}/to?u={target}")
        assert site.counts["ok"] == 0
        assert site.counts["to"] == 4

    def test_follow_five_redirects_and_not_six(self, site: Site, get: Get) -> None:
        assert get(f"{site.url}/hops/4") == "ok"
        with pytest.raises((OutboundRefused, httpx.TooManyRedirects)):
            get(f"{site.url}/hops/5")

    def test_connect_to_the_address_that_was_checked_when_the_name_changes_its_answer(
        self, site: Site, get: Get, allow: Callable[..., None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A resolver that first gives an allowed address, then a private one (and the other way round)."""
        allow(*ONLY_THIS)
        answers = ["127.0.0.1", "127.0.0.2", "127.0.0.2"]
        asked: list[str] = []
        real = socket.getaddrinfo

        def lying(host: object, *arguments: object, **named: object) -> object:
            if host not in {"rebind.test", b"rebind.test"}:
                return real(host, *arguments, **named)  # type: ignore[call-overload]
            asked.append(answers[min(len(asked), len(answers) - 1)])
            return real(asked[-1], *arguments, **named)  # type: ignore[call-overload]

        monkeypatch.setattr(socket, "getaddrinfo", lying)
        assert get(f"http://rebind.test:{site.port}/ok") == "ok"
        assert asked == ["127.0.0.1"]
        with pytest.raises(OutboundRefused):
            get(f"http://rebind.test:{site.port}/ok")
        assert site.counts["ok"] == 1

    def test_check_certificates_against_ssl_cert_file(
        self, get: Get, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        authority = trustme.CA()
        with Site(authority) as site:
            with pytest.raises((httpx.ConnectError, aiohttp.ClientConnectorCertificateError)):
                get(f"{site.url}/ok")
            authority.cert_pem.write_to_path(tmp_path / "ca.pem")
            monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
            assert get(f"https://localhost:{site.port}/ok") == "ok"


class TestSessions:
    async def test_read_the_authorities_once(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        trustme.CA().cert_pem.write_to_path(tmp_path / "ca.pem")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        reads: list[str] = []
        real = outbound_aiohttp.make_tls_context

        def counted() -> ssl.SSLContext:
            reads.append("authorities")
            return real()

        monkeypatch.setattr(outbound_aiohttp, "make_tls_context", counted)
        for _ in range(3):
            async with guarded_aiohttp_session():
                pass
        assert len(reads) == 1


class TestProxy:
    async def test_a_proxy_is_not_checked_but_the_target_is(self, site: Site, allow: Callable[..., None]) -> None:
        allow(ipaddress.ip_network("10.0.0.0/8"))
        async with guarded_aiohttp_session() as session:
            with pytest.raises(OutboundRefused):
                await session.get("http://127.0.0.1/ok", proxy=site.url)
            async with session.get("http://example.test/ok", proxy=site.url) as response:
                assert await response.text() == "ok"
