from django.apps import AppConfig


class TelegramCacheConfig(AppConfig):
    name = "apps.telegram_cache"
    label = "telegram_cache"
