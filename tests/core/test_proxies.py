import ipaddress

import pytest

from apps.core.proxies import see_through_proxies

TRUSTED = tuple(ipaddress.ip_network(text) for text in ("127.0.0.0/8", "10.0.0.0/24", "fd00::/8"))


def seen(peer, *forwarded, proto=None, trusted=TRUSTED, scheme="http"):
    headers = [(b"x-forwarded-for", text.encode()) for text in forwarded]
    headers += [(b"x-forwarded-proto", proto.encode())] if proto else []
    scope = {"client": (peer, 5000) if peer else None, "headers": headers, "scheme": scheme}
    see_through_proxies(scope, trusted)
    return (scope["client"] or ("",))[0], scope["scheme"]


class TestSeeThroughProxies:
    @pytest.mark.parametrize(
        ("peer", "forwarded", "expected"),
        [
            ("127.0.0.1", ["203.0.113.7"], "203.0.113.7"),
            ("127.0.0.1", ["1.2.3.4, 203.0.113.7"], "203.0.113.7"),  # 1.2.3.4: the caller's own invention
            ("127.0.0.1", ["1.2.3.4", "203.0.113.7, 10.0.0.9"], "203.0.113.7"),
            ("::ffff:127.0.0.1", ["203.0.113.7:5123"], "203.0.113.7"),
            ("fd00::2", ["[2001:db8::7]:443"], "2001:db8::7"),
            ("127.0.0.1", ["10.0.0.5, 10.0.0.9"], "10.0.0.5"),  # everybody is trusted: the farthest
            ("127.0.0.1", ["203.0.113.7, nonsense"], "127.0.0.1"),
            ("127.0.0.1", ["203.0.113.7, nonsense, 10.0.0.9"], "10.0.0.9"),
            ("127.0.0.1", ["", " , "], "127.0.0.1"),
            ("127.0.0.1", [], "127.0.0.1"),
            ("198.51.100.1", ["203.0.113.7"], "198.51.100.1"),  # not a proxy of ours
            ("", ["203.0.113.7"], ""),
        ],
    )
    def test_the_first_address_that_is_no_proxy_of_ours_is_the_caller(self, peer, forwarded, expected):
        assert seen(peer, *forwarded)[0] == expected

    def test_nobody_is_believed_by_default(self):
        assert seen("127.0.0.1", "203.0.113.7", proto="https", trusted=()) == ("127.0.0.1", "http")

    @pytest.mark.parametrize(
        ("peer", "proto", "scheme", "expected"),
        [
            ("127.0.0.1", "https", "http", "https"),
            ("127.0.0.1", "https", "ws", "wss"),
            ("127.0.0.1", "http", "http", "http"),
            ("127.0.0.1", "https, http", "http", "http"),
            ("198.51.100.1", "https", "http", "http"),
        ],
    )
    def test_https_is_believed_from_proxies_only(self, peer, proto, scheme, expected):
        assert seen(peer, proto=proto, scheme=scheme)[1] == expected

    def test_a_very_long_list_costs_little(self):
        assert seen("127.0.0.1", ", ".join(["10.0.0.9"] * 3000))[0] == "10.0.0.9"
