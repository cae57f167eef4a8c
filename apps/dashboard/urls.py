"""Addresses of the admin, below ``/admin/``."""

from __future__ import annotations

from django.urls import path, register_converter
from django.urls.converters import StringConverter

from apps.dashboard.views import (
    account,
    admins,
    analytics,
    assets,
    audit,
    auth,
    jobs,
    key_changes,
    keys,
    overview,
    settings,
    sources,
    system,
    telegram,
    telegram_bots,
    telegram_channels,
    trying,
    users,
    warm_ups,
    webhooks,
)


class NameConverter(StringConverter):
    """Ids and names as they occur in addresses here: nothing that needs escaping."""

    regex = "[A-Za-z0-9@_-]{1,64}"


class UsernameConverter(StringConverter):
    regex = "[A-Za-z0-9._@+-]{1,64}"


class ChangeConverter(StringConverter):
    regex = "on|off|up|down"


class IdentityKindConverter(StringConverter):
    regex = "cookies|proxy|po_token"


register_converter(NameConverter, "id")
register_converter(UsernameConverter, "username")
register_converter(ChangeConverter, "on_off_up_down")
register_converter(IdentityKindConverter, "identity_kind")

app_name = "dashboard"
urlpatterns = [
    path("", overview.overview, name="overview"),
    path("overview/live", overview.overview_live, name="overview-live"),
    path("analytics", analytics.analytics, name="analytics"),
    path("analytics/data", analytics.analytics_data, name="analytics-data"),
    path("analytics/export", analytics.analytics_export, name="analytics-export"),
    path("analytics/keys/<id:prefix>", analytics.analytics_key, name="analytics-key"),
    path("overview/history", overview.overview_history, name="overview-history"),
    path("login", auth.login, name="login"),
    path("login/code", auth.login_code, name="login-code"),
    path("logout", auth.logout, name="logout"),
    path("theme", auth.theme, name="theme"),
    path("keys", keys.key_list, name="keys"),
    path("keys/new", keys.key_new, name="keys-new"),
    path("keys/<id:prefix>", keys.key_detail, name="keys-detail"),
    path("keys/<id:prefix>/deactivate", keys.key_deactivate, name="keys-deactivate"),
    path("keys/<id:prefix>/activate", keys.key_activate, name="keys-activate"),
    path("keys/<id:prefix>/edit", key_changes.key_edit, name="keys-edit"),
    path("keys/<id:prefix>/rotate", key_changes.key_rotate, name="keys-rotate"),
    path("keys/<id:prefix>/delete", key_changes.key_delete, name="keys-delete"),
    path("users", users.user_list, name="users"),
    path("users/new", users.user_new, name="users-new"),
    path("users/of/<username:username>", users.user_detail, name="users-detail"),
    path("users/of/<username:username>/edit", users.user_edit, name="users-edit"),
    path("users/of/<username:username>/switch", users.user_switch, name="users-switch"),
    path("users/of/<username:username>/delete", users.user_delete, name="users-delete"),
    path("cache", assets.asset_list, name="assets"),
    path("cache/<id:asset_id>", assets.asset_detail, name="assets-detail"),
    path("cache/<id:asset_id>/<id:name>", assets.asset_work, name="assets-work"),
    path("jobs", jobs.job_list, name="jobs"),
    path("jobs/<id:job_id>", jobs.job_detail, name="jobs-detail"),
    path("jobs/<id:job_id>/cancel", jobs.job_cancel, name="jobs-cancel"),
    path("jobs/<id:job_id>/retry", jobs.job_retry, name="jobs-retry"),
    path("sources", sources.sources, name="sources"),
    path("sources/providers/<id:name>/<on_off_up_down:what>", sources.provider_change, name="sources-provider"),
    path("sources/cookies/new", sources.cookies_new, name="sources-cookies-new"),
    path("sources/proxies/new", sources.proxy_new, name="sources-proxy-new"),
    path("sources/po-tokens/new", sources.po_tokens_new, name="sources-po-tokens-new"),
    path(
        "sources/<identity_kind:kind>/<id:identity_id>/<on_off_up_down:what>",
        sources.identity_switch,
        name="sources-identity-switch",
    ),
    path(
        "sources/<identity_kind:kind>/<id:identity_id>/remove", sources.identity_remove, name="sources-identity-remove"
    ),
    path("telegram", telegram.telegram, name="telegram"),
    path("telegram/check", telegram.check, name="telegram-check"),
    path("telegram/bots/new", telegram_bots.bot_new, name="telegram-bot-new"),
    path("telegram/bots/<id:bot_id>", telegram_bots.bot_detail, name="telegram-bot"),
    path("telegram/bots/<id:bot_id>/token", telegram_bots.bot_token, name="telegram-bot-token"),
    path("telegram/bots/<id:bot_id>/disable", telegram_bots.bot_disable, name="telegram-bot-disable"),
    path("telegram/bots/<id:bot_id>/enable", telegram_bots.bot_enable, name="telegram-bot-enable"),
    path("telegram/channels/new", telegram_channels.channel_new, name="telegram-channel-new"),
    path("telegram/channels/<id:channel_id>", telegram_channels.channel_detail, name="telegram-channel"),
    path(
        "telegram/channels/<id:channel_id>/settings",
        telegram_channels.channel_settings,
        name="telegram-channel-settings",
    ),
    path(
        "telegram/channels/<id:channel_id>/disable", telegram_channels.channel_disable, name="telegram-channel-disable"
    ),
    path("telegram/channels/<id:channel_id>/enable", telegram_channels.channel_enable, name="telegram-channel-enable"),
    path(
        "telegram/channels/<id:channel_id>/default", telegram_channels.channel_default, name="telegram-channel-default"
    ),
    path("account", account.account, name="account"),
    path("account/password", account.password, name="account-password"),
    path("account/second-factor", account.second_factor, name="account-second-factor"),
    path("account/second-factor/off", account.second_factor_off, name="account-second-factor-off"),
    path("account/recovery-codes", account.recovery_codes, name="account-recovery-codes"),
    path("account/confirm", account.confirm, name="account-confirm"),
    path("account/sessions/end", account.log_out_elsewhere, name="account-sessions-end"),
    path("admins", admins.admin_list, name="admins"),
    path("admins/new", admins.admin_new, name="admins-new"),
    path("admins/<id:user_id>", admins.admin_detail, name="admins-detail"),
    path("admins/<id:user_id>/role", admins.admin_role, name="admins-role"),
    path("admins/<id:user_id>/switch", admins.admin_switch, name="admins-switch"),
    path("admins/<id:user_id>/password", admins.admin_password, name="admins-password"),
    path("admins/<id:user_id>/second-factor", admins.admin_second_factor, name="admins-second-factor"),
    path("webhooks/<id:prefix>", webhooks.webhook, name="webhooks-key"),
    path("webhooks/<id:prefix>/set", webhooks.webhook_set, name="webhooks-set"),
    path("webhooks/<id:prefix>/remove", webhooks.webhook_remove, name="webhooks-remove"),
    path("webhooks/<id:prefix>/test", webhooks.webhook_test, name="webhooks-test"),
    path("webhooks/<id:prefix>/again/<id:job_id>", webhooks.webhook_again, name="webhooks-again"),
    path("warm-ups", warm_ups.warm_up_list, name="warm-ups"),
    path("warm-ups/new", warm_ups.warm_up_new, name="warm-ups-new"),
    path("warm-ups/limits", warm_ups.warm_up_limits, name="warm-ups-limits"),
    path("warm-ups/<id:warm_up_id>", warm_ups.warm_up_detail, name="warm-ups-detail"),
    path("warm-ups/<id:warm_up_id>/pause", warm_ups.warm_up_pause, name="warm-ups-pause"),
    path("warm-ups/<id:warm_up_id>/resume", warm_ups.warm_up_resume, name="warm-ups-resume"),
    path("warm-ups/<id:warm_up_id>/cancel", warm_ups.warm_up_cancel, name="warm-ups-cancel"),
    path("settings", settings.settings_page, name="settings"),
    path("system", system.system, name="system"),
    path("try", trying.start, name="try"),
    path("try/<id:video_id>", trying.video, name="try-video"),
    path("audit", audit.audit_list, name="audit"),
]
