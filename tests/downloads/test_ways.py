"""Cookies and proxies: kept encrypted, chosen in turn, resting when YouTube turns against them."""

from datetime import timedelta

import pytest
from mongoengine.errors import NotUniqueError

from apps.core.clock import utcnow
from apps.core.documents import AuditEntry
from apps.core.errors import BotCheck, InvalidParameter, NotFound, UpstreamError
from apps.core.secrets import decrypt_secret, encrypt_secret
from apps.downloads.documents import Identity, IdentityKind, ProxyUse
from apps.downloads.services.identities import (
    Actor,
    add_cookies,
    add_po_tokens,
    add_proxy,
    remove_identity,
    set_identity_enabled,
    view_identities,
)
from apps.downloads.services.ways import FIRST_REST_S, LONGEST_REST_S, PooledWays

WHO = Actor(name="tester")
COOKIES = (
    "# Netscape HTTP Cookie File\n"
    "#HttpOnly_.youtube.com\tTRUE\t/\tTRUE\t1999999999\tLOGIN_INFO\tcookie-value-1\n"
    ".youtube.com\tTRUE\t/\tTRUE\t0\tYSC\tcookie-value-2\n"
    ".bank.example\tTRUE\t/\tTRUE\t1999999999\tsession\tnot-for-youtube\n"
)
ADDRESS = "http://someone:proxy-word@198.51.100.7:8080"


@pytest.fixture
def ways(mongo):
    return PooledWays()


def proxy(name: str, use: ProxyUse = ProxyUse.BOTH) -> str:
    return add_proxy(name, f"http://{name}.example:8080", use=use, actor=WHO).id


def rest_s(identity_id: str) -> float:
    return (Identity.objects.get(id=identity_id).resting_until - utcnow()).total_seconds()


def wake_up(identity_id: str) -> None:
    Identity.objects(id=identity_id).update_one(set__resting_until=utcnow() - timedelta(seconds=1))


class TestKeeping:
    def test_secrets_are_encrypted_and_other_sites_cookies_left_out(self, mongo):
        add_cookies("mine", COOKIES, actor=WHO)
        add_proxy("out", ADDRESS, actor=WHO)
        stored = str(list(Identity._get_collection().find()))
        for secret in ("cookie-value", "not-for-youtube", "proxy-word", "someone", "198.51.100.7"):
            assert secret not in stored
        kept = decrypt_secret(Identity.objects.get(kind="cookies").secret_encrypted)
        assert "LOGIN_INFO\tcookie-value-1" in kept
        assert "not-for-youtube" not in kept

    def test_what_is_shown_says_enough_and_no_secret(self, mongo):
        cookies, proxy = add_cookies("mine", COOKIES, actor=WHO), add_proxy("out", ADDRESS, actor=WHO)
        assert (cookies.about, cookies.state) == ("2 cookies, with a login", "ready")
        assert (proxy.about, proxy.use) == ("http://198.51.100.7:8080, with a password", "both")
        assert "proxy-word" not in repr(view_identities(IdentityKind.PROXY))

    @pytest.mark.parametrize(
        "text", ["", "hello", '[{"domain": ".youtube.com"}]', ".bank.example\tTRUE\t/\tTRUE\t1\ta\tb\n"]
    )
    def test_what_is_no_cookie_file_is_refused(self, mongo, text):
        with pytest.raises(InvalidParameter):
            add_cookies("mine", text, actor=WHO)

    @pytest.mark.parametrize(
        "address",
        [
            "",
            "example.com:80",
            "ftp://h:1",
            "http://h",
            "http://h:0",
            "http://h:99999",
            "http://h:1/path",
            "http://h h:1",
        ],
    )
    def test_what_is_no_proxy_is_refused_without_being_quoted(self, mongo, address):
        with pytest.raises(InvalidParameter) as caught:
            add_proxy("out", address, actor=WHO)
        assert not address or address not in caught.value.message

    def test_the_same_name_again_replaces_the_secret_and_ends_the_rest(self, ways):
        first = add_proxy("out", ADDRESS, actor=WHO)
        ways.note_failure((first.id,), "bot_check")
        again = add_proxy("out", "socks5://198.51.100.8:1080", use=ProxyUse.EXTRACT, actor=WHO)
        assert (again.id, again.state, again.use) == (first.id, "ready", "extract")
        assert ways.choose().proxy == "socks5://198.51.100.8:1080"

    def test_names_are_unique_in_the_database(self, mongo):
        Identity.ensure_indexes()
        Identity(kind="proxy", name="a", secret_encrypted=encrypt_secret("x")).save()
        with pytest.raises(NotUniqueError):
            Identity(kind="proxy", name="a", secret_encrypted=encrypt_secret("x")).save()

    def test_every_change_is_on_the_audit_log_without_the_secret(self, mongo):
        identity = add_proxy("out", ADDRESS, actor=WHO)
        set_identity_enabled(identity.id, enabled=False, kind=IdentityKind.PROXY, actor=WHO)
        remove_identity(identity.id, kind=IdentityKind.PROXY, actor=WHO)
        entries = AuditEntry.objects.order_by("at")
        assert {entry.action for entry in entries} == {"proxy.add", "proxy.disable", "proxy.remove"}
        assert "proxy-word" not in str([entry.to_mongo() for entry in entries])
        with pytest.raises(NotFound):
            remove_identity(identity.id, kind=IdentityKind.PROXY, actor=WHO)


class TestChoosing:
    def test_with_nothing_in_the_pool_the_way_is_plain(self, ways):
        assert ways.choose().is_plain

    def test_healthy_ones_take_turns(self, ways):
        ids = {proxy("a"), proxy("b"), proxy("c")}
        assert {ways.choose().proxy_id for _ in range(3)} == ids

    def test_one_proxy_does_both_unless_others_are_for_downloads(self, ways):
        proxy("a")
        way = ways.choose()
        assert way.proxy == ways.choose_exit(way).proxy == "http://a.example:8080"
        proxy("d", ProxyUse.DOWNLOAD)
        way = ways.choose()
        assert (way.proxy, ways.choose_exit(way).proxy) == ("http://a.example:8080", "http://d.example:8080")

    def test_a_proxy_for_asking_only_is_not_downloaded_through(self, ways):
        proxy("e", ProxyUse.EXTRACT)
        way = ways.choose()
        assert (way.proxy, ways.choose_exit(way).proxy) == ("http://e.example:8080", None)

    def test_asking_neither_takes_nor_waits_for_a_proxy_for_downloads(self, ways):
        download = proxy("d", ProxyUse.DOWNLOAD)
        assert ways.choose().proxy is None
        assert Identity.objects.get(id=download).last_used_at is None
        ways.note_failure((download,), "upstream_unreachable")
        way = ways.choose()  # it rests, and asking goes on
        with pytest.raises(UpstreamError):
            ways.choose_exit(way)

    def test_a_proxy_of_both_that_rests_since_is_not_downloaded_through(self, ways):
        both = proxy("a")
        way = ways.choose()
        ways.note_failure((both,), "rate_limited")
        with pytest.raises(UpstreamError):
            ways.choose_exit(way)

    def test_cookies_stay_with_their_proxy_while_it_is_well(self, ways):
        cookies = add_cookies("mine", COOKIES, actor=WHO).id
        for name in "abcde":
            proxy(name)
        met = {ways.choose().proxy_id for _ in range(6)}
        assert len(met) == 1
        ways.note_failure(tuple(met), "upstream_unreachable")
        other = ways.choose()
        assert other.cookies_id == cookies
        assert other.proxy_id not in met

    def test_when_all_cookies_rest_it_goes_without_but_never_past_the_proxies(self, ways):
        cookies, only = add_cookies("mine", COOKIES, actor=WHO).id, proxy("a")
        ways.note_failure((cookies,), "cookies_refused")
        assert (ways.choose().cookies, ways.choose().proxy_id) == (None, only)
        ways.note_failure((only,), "bot_check")
        with pytest.raises(BotCheck) as caught:
            ways.choose()
        assert 0 < caught.value.retry_after_s <= FIRST_REST_S

    def test_one_that_is_off_is_not_used(self, ways):
        off = proxy("a")
        set_identity_enabled(off, enabled=False, kind=IdentityKind.PROXY, actor=WHO)
        assert ways.choose().is_plain

    def test_one_whose_key_is_gone_rests_and_the_next_is_taken(self, ways):
        lost, fine = proxy("a"), proxy("b")
        Identity.objects(id=lost).update_one(set__secret_encrypted="gAAAAA" + "A" * 94)
        assert {ways.choose().proxy_id for _ in range(3)} == {fine}
        assert Identity.objects.get(id=lost).last_error == "secret_unreadable"


class TestPoTokens:
    TEXT = "web.gvs+c2VjcmV0LW9uZQ\nmweb.player+c2VjcmV0LXR3bw"
    BOUND = f"{TEXT}\nvisitor_data=VmlzaXRvcg%3D%3D"

    def test_are_encrypted_and_described_without_anything_secret(self, mongo):
        view = add_po_tokens("mine", self.BOUND, actor=WHO)
        assert view.about == "web.gvs, mweb.player, of a visitor: used without cookies"
        stored = str(list(Identity._get_collection().find())) + repr(PooledWays().choose())
        assert not any(secret in stored for secret in ("c2VjcmV0", "VmlzaXRvcg"))

    def test_are_chosen_in_turn_and_rest_like_the_others(self, ways):
        first, second = (add_po_tokens(name, self.TEXT, actor=WHO).id for name in "ab")
        assert {ways.choose().po_token_id for _ in range(2)} == {first, second}
        ways.note_failure((first,), "bot_check")
        assert {ways.choose().po_token_id for _ in range(2)} == {second}
        ways.note_failure((second,), "rate_limited")
        assert ways.choose().is_plain  # YouTube is asked without
        wake_up(first)
        way = ways.choose()
        assert (way.po_token_id, way.po_tokens.clients) == (first, ("web", "mweb"))
        ways.note_answer(way.ids)
        assert Identity.objects.get(id=first).strikes == 0

    def test_those_of_a_visitor_never_go_along_with_cookies(self, ways):
        bound = add_po_tokens("bound", self.BOUND, actor=WHO).id
        cookies = add_cookies("mine", COOKIES, actor=WHO).id
        assert (ways.choose().cookies_id, ways.choose().po_token_id) == (cookies, "")
        free = add_po_tokens("free", self.TEXT, actor=WHO).id
        assert ways.choose().po_token_id == free
        ways.note_failure((cookies, free), "bot_check")
        assert (ways.choose().cookies_id, ways.choose().po_token_id) == ("", bound)

    def test_stay_with_their_proxy(self, ways):
        add_po_tokens("mine", self.BOUND, actor=WHO)
        for name in "abcde":
            proxy(name)
        assert len({ways.choose().proxy_id for _ in range(6)}) == 1

    @pytest.mark.parametrize(
        "text",
        ["", "c2VjcmV0", "web+c2VjcmV0LW9uZQ", "web.gvs+short", "web.all+c2VjcmV0LW9uZQ", "visitor_data=VmlzaXRvcg",
         "web.gvs+c2VjcmV0 LW9uZQ", f"{TEXT}\nvisitor_data=a b c d e f g", "\n".join([TEXT] * 6)],
    )  # fmt: skip
    def test_what_is_none_is_refused_without_being_quoted(self, mongo, text):
        with pytest.raises(InvalidParameter) as caught:
            add_po_tokens("mine", text, actor=WHO)
        assert "c2VjcmV0" not in caught.value.message


class TestResting:
    def test_each_failure_in_a_row_doubles_the_rest_up_to_six_hours(self, ways):
        only = proxy("a")
        for number in range(12):
            ways.note_failure((only,), "bot_check")
            expected = min(FIRST_REST_S * 2**number, LONGEST_REST_S)
            assert expected - 20 < rest_s(only) <= expected + 1
            wake_up(only)
        assert ways.choose().proxy_id == only  # after its rest it is tried again

    def test_many_failures_of_the_same_moment_are_one(self, ways):
        only = proxy("a")
        for _ in range(5):
            ways.note_failure((only,), "bot_check")
        assert Identity.objects.get(id=only).strikes == 1

    def test_an_answer_forgives_but_does_not_end_a_rest(self, ways):
        only = proxy("a")
        way = ways.choose()
        ways.note_failure((only,), "bot_check")
        ways.note_answer(way.ids)  # of a question from before
        with pytest.raises(BotCheck):
            ways.choose()
        wake_up(only)
        ways.note_answer(ways.choose().ids)
        after = Identity.objects.get(id=only)
        assert (after.strikes, after.resting_until, after.answers) == (0, None, 1)


class TestChangedCookies:
    CHANGED = COOKIES.replace("cookie-value-1", "cookie-value-9")

    def test_are_kept(self, ways):
        add_cookies("mine", COOKIES, actor=WHO)
        ways.keep_cookies(ways.choose(), self.CHANGED)
        assert "cookie-value-9" in ways.choose().cookies

    def test_never_replace_what_an_operator_put_in_meanwhile(self, ways):
        add_cookies("mine", COOKIES, actor=WHO)
        old = ways.choose()
        add_cookies("mine", COOKIES.replace("cookie-value-1", "fresh"), actor=WHO)
        ways.keep_cookies(old, self.CHANGED)
        assert "fresh" in ways.choose().cookies

    def test_nonsense_is_dropped(self, ways):
        add_cookies("mine", COOKIES, actor=WHO)
        ways.keep_cookies(ways.choose(), "nonsense")
        assert "cookie-value-1" in ways.choose().cookies
