"""Django settings, derived from the typed environment (``ytserver.env``). Nothing here reads ``os.environ``."""

from __future__ import annotations

import sys

from ytserver.env import BASE_DIR, find_service_urls, load_env

ENV = load_env()
SERVICES = find_service_urls(ENV)

DEBUG = False  # Django's own debug pages show code and settings to anybody; faults go to the log instead
DEBUG_PROPAGATE_EXCEPTIONS = True  # up to OpaqueErrorMiddleware, which logs them
SECRET_KEY = ENV.secret_key.get_secret_value()
ALLOWED_HOSTS = list(ENV.own_hosts)
CSRF_TRUSTED_ORIGINS = [ENV.base_url]
PUBLIC_IS_HTTPS = ENV.base_url.startswith("https://")

INSTALLED_APPS = [
    *(["daphne"] if sys.argv[1:2] == ["runserver"] else []),  # only runserver needs it, and it brings all of Twisted
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "channels",
    "apps.core",
    "apps.streaming",
    "apps.keys",
    "apps.telegram_cache",
    "apps.downloads",
    "apps.analytics",
    "apps.dashboard",
]

MIDDLEWARE = [
    "apps.core.middleware.RequestIdMiddleware",
    "apps.core.middleware.SecurityHeadersMiddleware",
    "apps.keys.middleware.RateLimitHeadersMiddleware",
    "apps.core.middleware.OpaqueErrorMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "apps.core.suspend.SuspendMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "apps.keys.middleware.AdminUserMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "ytserver.urls"
ASGI_APPLICATION = "ytserver.asgi.application"
APPEND_SLASH = False
DATABASES: dict[str, dict[str, str]] = {}  # MongoDB through MongoEngine; no SQL anywhere

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

CACHES = {
    "default": {
        "BACKEND": "django_redis.cache.RedisCache",
        "LOCATION": SERVICES.redis_url or "redis://127.0.0.1:0/0",
        "KEY_PREFIX": "yt",
        "OPTIONS": {
            "SOCKET_CONNECT_TIMEOUT": 2,
            "SOCKET_TIMEOUT": 5,
            "SERIALIZER": "django_redis.serializers.json.JSONSerializer",  # the default, pickle, runs what it reads
        },
    }
}
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "channels_redis.core.RedisChannelLayer",
        "CONFIG": {
            # the layer waits 5 s at a time for messages: the Redis library's own limit of 5 s would end the websocket
            "hosts": [{"address": SERVICES.redis_url or "redis://127.0.0.1:0/0", "socket_timeout": 15}],
            "prefix": "yt:channels",
        },
    }
}

SESSION_ENGINE = "apps.keys.session_store"
SESSION_COOKIE_NAME = "ytserver_session"
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_SECURE = PUBLIC_IS_HTTPS
SESSION_COOKIE_AGE = ENV.session_max_s
CSRF_COOKIE_SECURE = PUBLIC_IS_HTTPS
CSRF_COOKIE_SAMESITE = "Lax"
CSRF_FAILURE_VIEW = "apps.core.api_errors.csrf_failure"
MESSAGE_STORAGE = "django.contrib.messages.storage.session.SessionStorage"
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
SECURE_HSTS_SECONDS = 31536000 if PUBLIC_IS_HTTPS else 0
SILENCED_SYSTEM_CHECKS = [
    "security.W005",  # other names below this one are not ours to decide about
    "security.W008",  # the reverse proxy redirects to https; health checks from inside use http
    "security.W021",  # and so is a browser's preload list
]
X_FRAME_OPTIONS = "DENY"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.Argon2PasswordHasher"]
DATA_UPLOAD_MAX_MEMORY_SIZE = 64 * 1024

USE_TZ = True
TIME_ZONE = "UTC"
USE_I18N = False
STATIC_URL = "/static/"
STATIC_ROOT = None  # WhiteNoise serves what the finders find: nothing has to be collected
STATICFILES_DIRS = [BASE_DIR / "static"]
STATICFILES_FINDERS = [
    "django.contrib.staticfiles.finders.FileSystemFinder",
    "django.contrib.staticfiles.finders.AppDirectoriesFinder",
    "apps.dashboard.frontend.VendorFinder",
]
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = False

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "apps.keys.drf.ApiKeyAuthentication",
        "apps.keys.drf.AdminSessionAuthentication",  # before the kept key: on the admin's routes the role decides
        "apps.keys.browser_key.BrowserKeyAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["apps.keys.drf.HasApiKey"],
    "DEFAULT_RENDERER_CLASSES": [
        "rest_framework.renderers.JSONRenderer",
        "apps.downloads.rendering.PageRenderer",
    ],
    "DEFAULT_PARSER_CLASSES": [
        "apps.core.parsers.JSONParser",
        "rest_framework.parsers.FormParser",
        "rest_framework.parsers.MultiPartParser",
    ],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "apps.core.api_errors.handle_exception",
    "UNAUTHENTICATED_USER": None,
    "UNAUTHENTICATED_TOKEN": None,
    "URL_FORMAT_OVERRIDE": None,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "ytserver",
    "VERSION": "1.0.0",
    "DESCRIPTION": "Send a YouTube link and an API key; get metadata, a file, or a stream you can seek in.",
    "SERVE_INCLUDE_SCHEMA": False,
    "TAGS": [  # in the order of the page of the docs: what callers look for first
        {"name": "media", "description": "Metadata, files and streams"},
        {"name": "lists", "description": "Search, playlists and channels"},
        {"name": "jobs", "description": "Fetches in the background"},
        {"name": "server", "description": "The server, and what a key may do"},
        {"name": "admin", "description": "Running the server; needs a key with the scope admin"},
    ],
    "POSTPROCESSING_HOOKS": [
        "apps.downloads.openapi.add_stream_routes",
    ],
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "SERVE_PERMISSIONS": ["rest_framework.permissions.AllowAny"],
    "SERVE_AUTHENTICATION": [],
}

LOGGING_CONFIG = "apps.core.logs.configure_logging"
LOGGING = {"level": "INFO"}
