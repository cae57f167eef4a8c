"""``manage.py telegram``: the bots and channels that keep the media."""

from __future__ import annotations

import getpass
import json
import sys
from argparse import ArgumentParser
from collections import Counter
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from apps.core import audit
from apps.core.command import clear_failures, shell_actor
from apps.telegram_cache.alerts import alerts
from apps.telegram_cache.documents import AUDITED, TelegramBot, TelegramChannel
from apps.telegram_cache.roster import roster
from apps.telegram_cache.selectors import all_bots, all_channels, waiting_uploads
from apps.telegram_cache.services.bot_records import known_bot, known_channel
from apps.telegram_cache.services.bots import add_and_check_bot, check_all, disable_bot, enable_bot, replace_token
from apps.telegram_cache.services.channels import (
    add_channel,
    disable_channel,
    enable_channel,
    make_channel_default,
    set_messages_per_min,
    set_playable,
    set_scratch_chat,
)
from apps.telegram_cache.services.checks import Finding
from apps.telegram_cache.services.rekeying import count_missing, rekey

PROGRESS_EVERY = 20


class Command(BaseCommand):
    help = "Add, check, change and list the Telegram bots and channels that keep the media."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
        for name, words in (
            ("add-bot", "add a bot, or give a known one its new token"),
            ("replace-token", "give a bot the new token that BotFather made"),
        ):
            bot = actions.add_parser(name, help=words)
            if name == "replace-token":
                bot.add_argument("bot_id")
            bot.add_argument(
                "--token-stdin", action="store_true", help="read the token from standard input instead of asking for it"
            )
        channel = actions.add_parser("add-channel", help="add a channel and check that a bot can post in it")
        channel.add_argument(
            "channel", help="its id, such as -1001234567890, its @name, or the link of one of its messages"
        )
        channel.add_argument("--not-default", action="store_true", help="keep sending new media to the present channel")
        actions.add_parser("check", help="ask Telegram about every bot and its rights, and say what to fix")
        listing = actions.add_parser("list", help="list bots, channels and alerts; never tokens")
        listing.add_argument("--json", action="store_true", help="print one JSON object")
        actions.add_parser("disable-bot", help="stop using a bot").add_argument("bot_id")
        actions.add_parser("enable-bot", help="use a bot again").add_argument("bot_id")
        actions.add_parser("disable-channel", help="send nothing new to a channel").add_argument("channel")
        actions.add_parser("enable-channel", help="use a channel again").add_argument("channel")
        actions.add_parser("set-default", help="send new media to this channel").add_argument("channel")
        scratch = actions.add_parser("set-scratch-chat", help="where short-lived copies of a channel's messages go")
        scratch.add_argument("channel")
        scratch.add_argument("chat", help="a chat all bots can post in, or `none`: into the channel itself")
        playable = actions.add_parser("set-playable", help="whether new media up to 50 MB is also posted playable")
        playable.add_argument("channel")
        playable.add_argument("choice", choices=["on", "off"])
        rate = actions.add_parser("set-rate", help="how many messages a minute each bot sends to a channel at most")
        rate.add_argument("channel")
        rate.add_argument("messages_per_min", type=int)
        rekeying = actions.add_parser("rekey", help="let every bot read what the others stored, at once")
        rekeying.add_argument("bot_id", nargs="*", help="default: every bot in use")

    def handle(self, *args: Any, **options: Any) -> None:
        with clear_failures():
            getattr(self, f"_{options['action'].replace('-', '_')}")(options)

    def _add_bot(self, options: dict[str, Any]) -> None:
        bot, findings = add_and_check_bot(_read_token(options["token_stdin"]))
        _record_bot("bot.add", bot)
        self._tell(findings)
        self.stdout.write(f"Added bot @{bot.username} ({bot.bot_id}).")

    def _replace_token(self, options: dict[str, Any]) -> None:
        known_bot(options["bot_id"])
        bot = replace_token(options["bot_id"], _read_token(options["token_stdin"]))
        _record_bot("bot.token", bot)
        self.stdout.write(f"Bot @{bot.username} ({bot.bot_id}) has its new token. What it stored stays readable.")

    def _add_channel(self, options: dict[str, Any]) -> None:
        channel, findings = add_channel(options["channel"], make_default=not options["not_default"])
        _record_channel("channel.add", channel)
        self._tell(findings)
        self.stdout.write(f"Added channel {channel.title} ({channel.channel_id}).")

    def _check(self, _options: dict[str, Any]) -> None:
        before = {bot.bot_id: bot.state for bot in all_bots()}
        findings = check_all()
        for bot in all_bots():
            if bot.state != before.get(bot.bot_id):
                _record_bot("bot.check", bot)
        self._tell(findings)
        if not findings:
            raise CommandError("There is no bot yet. Add one: manage.py telegram add-bot")
        if not all_channels():
            raise CommandError("There is no channel yet. Add one: manage.py telegram add-channel ID")
        if not all(finding.ok for finding in findings):
            raise CommandError("Something has to be fixed; see above.")

    def _tell(self, findings: list[Finding]) -> None:
        for finding in findings:
            self.stdout.write(f"{'ok  ' if finding.ok else 'FIX '} {finding.text} {finding.fix}".rstrip())

    def _list(self, options: dict[str, Any]) -> None:
        bots = [
            {"bot_id": bot.bot_id, "username": bot.username, "state": bot.state_now.value,
             "reason": bot.reason_now, "until": bot.until_now.isoformat() if bot.until_now else None,
             "barred": dict(bot.barred)}
            for bot in all_bots()
        ]  # fmt: skip
        channels = [
            {"channel_id": channel.channel_id, "title": channel.title, "username": channel.username,
             "state": channel.state, "reason": channel.reason or channel.alert, "is_default": channel.is_default,
             "scratch_chat_id": channel.scratch_chat_id, "playable": channel.playable}
            for channel in all_channels()
        ]  # fmt: skip
        warnings = alerts()
        waiting, next_at = waiting_uploads()
        if options["json"]:
            found = {
                "bots": bots,
                "channels": channels,
                "alerts": [asdict(alert) for alert in warnings],
                "waiting_uploads": {"count": waiting, "next_at": next_at.isoformat() if next_at else None},
            }
            self.stdout.write(json.dumps(found))
            return
        for bot in bots:
            self.stdout.write(
                f"bot      {bot['bot_id']:<16} @{bot['username']:<28} {bot['state']} {bot['reason']}".rstrip()
            )
            for channel_id, reason in bot["barred"].items():
                self.stdout.write(f"         stores nothing in {channel_id}: {reason}")
        for channel in channels:
            mark = "default" if channel["is_default"] else ""
            line = f"channel  {channel['channel_id']:<16} {channel['title']:<29} {channel['state']} {mark}"
            line = f"{line} {channel['reason']}"
            self.stdout.write(line.rstrip())
        if next_at:
            self.stdout.write(f"waiting  {waiting} uploads wait for their turn, the first until {next_at:%H:%M:%S} UTC")
        for alert in warnings:
            self.stdout.write(f"ALERT    {alert.text}\n         -> {alert.fix}")

    def _disable_bot(self, options: dict[str, Any]) -> None:
        disable_bot(options["bot_id"])
        _record_bot("bot.disable", known_bot(options["bot_id"]))
        self.stdout.write("Disabled. What it stored stays readable through the other bots.")

    def _enable_bot(self, options: dict[str, Any]) -> None:
        bot = enable_bot(options["bot_id"])
        _record_bot("bot.enable", bot)
        self.stdout.write(f"Bot @{bot.username} is in use.")

    def _disable_channel(self, options: dict[str, Any]) -> None:
        disable_channel(options["channel"])
        _record_channel("channel.disable", known_channel(options["channel"]))
        self.stdout.write("Disabled. What it holds stays readable.")

    def _enable_channel(self, options: dict[str, Any]) -> None:
        channel, findings = enable_channel(options["channel"])
        _record_channel("channel.enable", channel)
        self._tell(findings)
        self.stdout.write("In use. New media goes there after: manage.py telegram set-default")

    def _set_default(self, options: dict[str, Any]) -> None:
        make_channel_default(options["channel"])
        _record_channel("channel.default", known_channel(options["channel"]))
        self.stdout.write("New media goes there from now on. The other channels stay readable.")

    def _set_scratch_chat(self, options: dict[str, Any]) -> None:
        channel = set_scratch_chat(options["channel"], "" if options["chat"] == "none" else options["chat"])
        _record_channel("channel.settings", channel)
        self.stdout.write(f"Copies go to {channel.scratch_chat_id or 'the channel itself'}.")

    def _set_playable(self, options: dict[str, Any]) -> None:
        _record_channel("channel.settings", set_playable(options["channel"], options["choice"] == "on"))
        self.stdout.write(f"Playable copies of new media: {options['choice']}.")

    def _set_rate(self, options: dict[str, Any]) -> None:
        channel = set_messages_per_min(options["channel"], options["messages_per_min"])
        _record_channel("channel.settings", channel)
        self.stdout.write(f"Each bot sends at most {channel.messages_per_min} messages a minute there.")

    def _rekey(self, options: dict[str, Any]) -> None:
        bot_ids = [known_bot(bot_id).bot_id for bot_id in options["bot_id"]] or [bot.bot_id for bot in roster().bots]
        total = count_missing(bot_ids)
        made: Counter[str] = Counter()
        failed = 0
        try:
            for number, done in enumerate(rekey(bot_ids), start=1):
                made[done.bot_id] += not done.problem
                if done.problem:
                    failed += 1
                    self.stdout.write(f"part {done.index} of {done.asset_id}, bot {done.bot_id}: {done.problem}")
                if number % PROGRESS_EVERY == 0 or number == total:
                    self.stdout.write(f"{number} of {total} ({100 * number // max(1, total)} %)")
        finally:  # what was done before Ctrl-C counts too
            for bot_id, count in made.items():
                _record("bot.rekey", "bot", bot_id, {"parts": count})
        if failed:
            raise CommandError(f"{failed} of {total} could not be done. Run it again later.")
        self.stdout.write(f"Every bot can read everything: {total} were missing.")


def _record_bot(action: str, bot: TelegramBot) -> None:
    _record(action, "bot", bot.bot_id, {"username": bot.username, "state": bot.state})


def _record_channel(action: str, channel: TelegramChannel) -> None:
    _record(action, "channel", channel.channel_id, {name: getattr(channel, name) for name in AUDITED})


def _record(action: str, kind: str, target_id: str, after: dict[str, Any]) -> None:
    audit.record(actor=shell_actor(), action=action, target_kind=kind, target_id=target_id, after=after)


def _read_token(from_stdin: bool) -> str:
    """Never from an argument: arguments show in the list of processes."""
    if not from_stdin and sys.stdin.isatty():
        return getpass.getpass("Bot token: ")
    return sys.stdin.readline(1000)
