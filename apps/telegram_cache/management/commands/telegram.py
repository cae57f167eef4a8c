"""``manage.py telegram``: the bots and channels that keep the media."""

from __future__ import annotations

import getpass
import json
import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from apps.core.command import clear_failures
from apps.telegram_cache.selectors import all_bots, all_channels
from apps.telegram_cache.services.bots import add_bot, check_all, disable_bot
from apps.telegram_cache.services.channels import add_channel, disable_channel
from apps.telegram_cache.services.checks import Finding


class Command(BaseCommand):
    help = "Add, check and list the Telegram bots and channels that keep the media."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
        bot = actions.add_parser("add-bot", help="add a bot, or give a known one its new token")
        bot.add_argument(
            "--token-stdin", action="store_true", help="read the token from standard input instead of asking for it"
        )
        channel = actions.add_parser("add-channel", help="add a channel and check that a bot can post in it")
        channel.add_argument("channel", help="its id, such as -1001234567890, or its @name")
        channel.add_argument("--not-default", action="store_true", help="keep sending new media to the present channel")
        actions.add_parser("check", help="ask Telegram about every bot and its rights, and say what to fix")
        listing = actions.add_parser("list", help="list bots and channels; never their tokens")
        listing.add_argument("--json", action="store_true", help="print one JSON object")
        actions.add_parser("disable-bot", help="stop using a bot").add_argument("bot_id")
        actions.add_parser("disable-channel", help="send nothing new to a channel").add_argument("channel")

    def handle(self, *args: Any, **options: Any) -> None:
        with clear_failures():
            getattr(self, f"_{options['action'].replace('-', '_')}")(options)

    def _add_bot(self, options: dict[str, Any]) -> None:
        # never as an argument: arguments show in the list of processes
        token = getpass.getpass("Bot token: ") if _asks(options["token_stdin"]) else sys.stdin.readline(1000)
        bot = add_bot(token)
        self.stdout.write(f"Added bot @{bot.username} ({bot.bot_id}).")

    def _add_channel(self, options: dict[str, Any]) -> None:
        channel, findings = add_channel(options["channel"], make_default=not options["not_default"])
        self._tell(findings)
        self.stdout.write(f"Added channel {channel.title} ({channel.channel_id}).")

    def _check(self, _options: dict[str, Any]) -> None:
        findings = check_all()
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
            {"bot_id": bot.bot_id, "username": bot.username, "state": bot.state, "reason": bot.reason,
             "until": bot.until.isoformat() if bot.until else None, "barred": dict(bot.barred)}
            for bot in all_bots()
        ]  # fmt: skip
        channels = [
            {"channel_id": channel.channel_id, "title": channel.title, "username": channel.username,
             "state": channel.state, "reason": channel.reason, "is_default": channel.is_default}
            for channel in all_channels()
        ]  # fmt: skip
        if options["json"]:
            self.stdout.write(json.dumps({"bots": bots, "channels": channels}))
            return
        for bot in bots:
            self.stdout.write(
                f"bot      {bot['bot_id']:<16} @{bot['username']:<28} {bot['state']} {bot['reason']}".rstrip()
            )
        for channel in channels:
            mark = "default" if channel["is_default"] else ""
            line = f"channel  {channel['channel_id']:<16} {channel['title']:<29} {channel['state']} {mark}"
            line = f"{line} {channel['reason']}"
            self.stdout.write(line.rstrip())

    def _disable_bot(self, options: dict[str, Any]) -> None:
        disable_bot(options["bot_id"])
        self.stdout.write("Disabled. What it stored stays readable through the other bots.")

    def _disable_channel(self, options: dict[str, Any]) -> None:
        disable_channel(options["channel"])
        self.stdout.write("Disabled. What it holds stays readable.")


def _asks(from_stdin: bool) -> bool:
    return not from_stdin and sys.stdin.isatty()
