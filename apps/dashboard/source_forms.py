"""The forms for cookies, proxies and PO tokens: secrets go in, and are never sent back."""

from __future__ import annotations

from typing import Any

from django import forms

from apps.dashboard.forms import AdminForm
from apps.downloads.documents import ProxyUse


class SecretTextarea(forms.Textarea):
    """What was typed is never sent back to the page."""

    def format_value(self, value: Any) -> str:
        return ""


class CookiesForm(AdminForm):
    """A cookies.txt. It is checked and stored encrypted; no page ever shows it again."""

    name = forms.CharField(max_length=64, help_text="Your own name for them. The cookies of that name are replaced.")
    cookies = forms.CharField(
        label="cookies.txt",
        max_length=60_000,
        strip=False,
        widget=SecretTextarea(attrs={"rows": 8, "autocomplete": "off", "spellcheck": "false"}),
        help_text="The whole text of the file. It is stored encrypted and never shown again.",
    )


class PoTokensForm(AdminForm):
    """PO tokens. They are checked and stored encrypted; no page ever shows them again."""

    name = forms.CharField(max_length=64, help_text="Your own name for them. The tokens of that name are replaced.")
    tokens = forms.CharField(
        label="Tokens",
        max_length=16 * 1024,
        widget=SecretTextarea(attrs={"rows": 6, "autocomplete": "off", "spellcheck": "false"}),
        help_text="One a line, such as web.gvs+AbC...; and a line visitor_data=... when they were made for a visitor.",
    )


class ProxyForm(AdminForm):
    """A proxy's address. It is stored encrypted; no page ever shows its password again."""

    name = forms.CharField(max_length=64, help_text="Your own name for it. The proxy of that name is replaced.")
    proxy = forms.CharField(
        label="Address",
        max_length=500,
        widget=forms.PasswordInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
        help_text="Such as http://user:password@host:8080 or socks5://host:1080.",
    )
    use = forms.ChoiceField(
        label="Used for",
        choices=[
            (ProxyUse.BOTH.value, "both"),
            (ProxyUse.EXTRACT.value, "asking YouTube about videos"),
            (ProxyUse.DOWNLOAD.value, "downloading media"),
        ],
    )
