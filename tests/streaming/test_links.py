"""Signed links: what they hold, what they refuse, and changing the secrets that sign them."""

from __future__ import annotations

import io
import json
from urllib.parse import parse_qsl, urlsplit

import pytest
from django.core.management import call_command
from hypothesis import given
from hypothesis import strategies as st

from apps.core.errors import LinkExpired, LinkInvalid
from apps.streaming.links import CLOCK_SKEW_S, LONGEST_LIFE_S, SignedLink, check_link, sign_link

PATH = "/stream/audio/dQw4w9WgXcQ"
NOW = 1_700_000_000
FIELDS = {"path": PATH, "asset_id": "abc", "key_prefix": "aaaaaaaa", "expires_at": NOW + 100, "attachment": False}


def query_of(link: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(link).query))


def check(link: str, *, now: float = NOW) -> SignedLink:
    return check_link(urlsplit(link).path, query_of(link), now=now)


def use_keys(settings, *keys: str) -> None:
    settings.ENV = settings.ENV.model_copy(update={"link_keys": keys})


class TestLinks:
    @given(
        st.text(min_size=1, max_size=40),
        st.text(max_size=20),
        st.booleans(),
        st.sampled_from(["", "192.0.2.1", "2001:db8::/64"]),
    )
    def test_what_was_signed_is_read_back(self, asset_id, key_prefix, attachment, bound_to):
        made = {"asset_id": asset_id, "key_prefix": key_prefix, "attachment": attachment, "bound_to": bound_to}
        try:
            link = sign_link(path=PATH, expires_at=NOW + 1, **made)
        except UnicodeEncodeError:
            return  # lone surrogates are no text
        parsed = dict(parse_qsl(urlsplit(link).query, keep_blank_values=True))
        assert check_link(PATH, parsed, now=NOW) == SignedLink(expires_at=NOW + 1, **made)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("asset", "abd"), ("key_id", "bbbbbbbb"), ("expires", str(NOW + 101)), ("download", "1"),
            ("ip", "192.0.2.2"), ("sig", "A" * 43), ("sig", ""), ("expires", "-1"), ("expires", "1e9"),
        ],
    )  # fmt: skip
    def test_a_changed_link_is_refused(self, name, value):
        for bound_to in ("", "192.0.2.1"):
            query = query_of(sign_link(**FIELDS, bound_to=bound_to))
            with pytest.raises(LinkInvalid):
                check_link(PATH, {**query, name: value}, now=NOW)

    @given(
        st.dictionaries(
            st.sampled_from(["asset", "key_id", "expires", "download", "ip", "sig"]),
            st.text(max_size=50) | st.integers().map(str) | st.none(),
            min_size=1,
        ),
        st.sampled_from([PATH, PATH + "/", PATH.upper(), "", "/stream/audio/aaaaaaaaaaa"]),
        st.sampled_from(["", "192.0.2.1"]),
    )
    def test_whatever_is_changed_left_out_or_added_nothing_else_is_opened(self, changed, path, bound_to):
        """None leaves the field out. Whatever is sent, the answer is the very link that was signed, or a refusal."""
        made = SignedLink(
            asset_id=FIELDS["asset_id"], key_prefix=FIELDS["key_prefix"], expires_at=FIELDS["expires_at"],
            attachment=FIELDS["attachment"], bound_to=bound_to,
        )  # fmt: skip
        signed = query_of(sign_link(**FIELDS, bound_to=bound_to))
        query = {**signed, **changed}
        query = {name: value for name, value in query.items() if value is not None}
        try:
            opened = check_link(path, query, now=NOW)
        except (LinkInvalid, LinkExpired):
            return
        assert (opened, path, query["sig"]) == (made, PATH, signed["sig"])

    def test_the_binding_cannot_be_taken_off(self):
        query = query_of(sign_link(**FIELDS, bound_to="192.0.2.1"))
        del query["ip"]
        with pytest.raises(LinkInvalid):
            check_link(PATH, query, now=NOW)
        assert "ip=" not in sign_link(**FIELDS)

    def test_it_is_good_for_its_path_only(self):
        with pytest.raises(LinkInvalid):
            check_link("/stream/video/dQw4w9WgXcQ", query_of(sign_link(**FIELDS)), now=NOW)

    def test_clocks_may_differ_by_a_little_and_not_more(self):
        link = sign_link(**FIELDS)
        assert check(link, now=NOW + 100 + CLOCK_SKEW_S - 0.01)
        with pytest.raises(LinkExpired):
            check(link, now=NOW + 100 + CLOCK_SKEW_S)

    def test_a_link_from_a_clock_that_is_far_ahead_does_not_live_for_ever(self):
        longest = {**FIELDS, "expires_at": NOW + LONGEST_LIFE_S + CLOCK_SKEW_S}
        assert check(sign_link(**longest))
        with pytest.raises(LinkInvalid):
            check(sign_link(**{**longest, "expires_at": longest["expires_at"] + 1}))


class TestSecrets:
    def test_links_outlive_a_change_of_the_secret_and_end_with_their_secret(self, settings):
        by_secret_key = sign_link(**FIELDS)
        one, two = "1" * 40, "2" * 40
        use_keys(settings, one)
        by_one = sign_link(**FIELDS)
        use_keys(settings, two, one)
        by_two = sign_link(**FIELDS)
        assert len({by_secret_key, by_one, by_two}) == 3
        assert all(check(link) for link in (by_secret_key, by_one, by_two))
        use_keys(settings, two)
        assert check(by_two)
        with pytest.raises(LinkInvalid):
            check(by_one)

    def test_a_secret_that_is_believed_but_does_not_sign_yet(self, settings):
        one, two = "1" * 40, "2" * 40
        use_keys(settings, two, one)
        by_two = sign_link(**FIELDS)
        use_keys(settings, one, two)
        assert check(by_two)
        assert sign_link(**FIELDS) != by_two

    def test_the_command_gives_both_steps_and_keeps_what_is_out_valid(self, settings):
        def run() -> dict[str, str]:
            out = io.StringIO()
            call_command("rotate_link_keys", "--json", stdout=out)
            return json.loads(out.getvalue())

        link = sign_link(**FIELDS)
        step = run()
        assert step["first"] == ""
        use_keys(settings, *step["then"].split(","))
        assert check(link)
        by_first = sign_link(**FIELDS)
        step = run()
        use_keys(settings, *step["first"].split(","))
        assert sign_link(**FIELDS) == by_first
        use_keys(settings, *step["then"].split(","))
        assert check(by_first)
        assert sign_link(**FIELDS) != by_first
        out = io.StringIO()
        call_command("rotate_link_keys", stdout=out)
        assert out.getvalue().count("LINK_KEYS=") == 2
