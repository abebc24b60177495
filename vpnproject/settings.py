"""Settings of the control side: web, gateway web, control worker, keys worker and beat."""

from __future__ import annotations

import os
from pathlib import Path

from core import request_id
from servers.hostnet.state import json_lines, redis_connections
from servers.hostnet.state.redis_urls import broker_options, broker_url, own_redis

from . import env
from .runner.files import read_settings

BASE_DIR = Path(__file__).resolve().parent.parent
VAR = Path(os.environ.get("VPN_VAR", BASE_DIR / "var")).resolve()
env.load_file(VAR / "settings.env")
# Reads that file: what is in it is handed to further control nodes (core.handing_over).
GIVEN_SETTINGS = read_settings

SECRET_KEY = env.secret("SECRET_KEY", VAR / "secret_key")
FIELD_KEYS = env.field_keys(VAR / "field_keys")
DEBUG = env.flag("DEBUG", False)

# Where clients reach the API; written into every profile.
API_URLS = env.api_urls([])
# The port of gateway web on the tunnel's gateway address. Never 443: clients drop ":443" and would go to port 80.
GATEWAY_PORT = env.whole("GATEWAY_PORT", 9790, low=1024, high=65535)
# The port of Redis on its machine's address in the mesh, for other machines.
MESH_REDIS_PORT = env.whole("MESH_REDIS_PORT", 9791, low=1024, high=65535)
# Proxies whose X-Forwarded-For is believed. Empty: the address of the TCP connection is the client's.
TRUSTED_PROXIES = env.words("TRUSTED_PROXIES", [])

# How far a request's timestamps may be from our clock, either way.
CLOCK_WINDOW = env.whole("CLOCK_WINDOW", 600, low=30, high=3600)
# How long a connect waits for one host to confirm the new peer before it tries the next host.
CONFIRM_TIMEOUT = env.seconds("CONFIRM_TIMEOUT", 1.0, low=0.05, high=60)
# A connect that waited longer for its turn is told to come again: its client is about to give up.
CONNECT_PATIENCE = env.seconds("CONNECT_PATIENCE", 25.0, low=1, high=60)
# A connection that no host has confirmed is ended after this; it must be longer than any connect can take.
PENDING_TIMEOUT = env.seconds("PENDING_TIMEOUT", 30.0, low=1, high=600)
# Seconds for which a better gateway must have been well before it takes a network back from the one that stood in.
NETWORK_HYSTERESIS = env.seconds("NETWORK_HYSTERESIS", 30.0, low=0, high=3600)
# Wrong second factors in a row, per user and per address, and the seconds after which they are forgotten.
ATTEMPTS_PER_USER = env.whole("ATTEMPTS_PER_USER", 10, low=1, high=1000)
ATTEMPTS_PER_ADDRESS = env.whole("ATTEMPTS_PER_ADDRESS", 30, low=1, high=10000)
CONNECTS_PER_HOUR = env.whole("CONNECTS_PER_HOUR", 600, low=10, high=100000)
# Seconds for which a client that waits for its user's sign-in is held before it is told to ask again; and how many
# clients are held at a time (by the pool that waits, which has its own number). Others are told at once.
SIGN_IN_HOLD = env.seconds("SIGN_IN_HOLD", 20.0, low=0, high=25)
SIGN_INS_HELD = 1
ATTEMPTS_WINDOW = env.whole("ATTEMPTS_WINDOW", 600, low=10, high=86400)
# Views of profile links per address and minute.
LINK_VIEWS_PER_MINUTE = env.whole("LINK_VIEWS_PER_MINUTE", 30, low=1, high=100000)
# Requests for sign-in pages per address and minute; one sign-in is four, and an office has one address.
SIGN_IN_VIEWS_PER_MINUTE = env.whole("SIGN_IN_VIEWS_PER_MINUTE", 600, low=4, high=100000)
DECISION_DAYS = env.whole("DECISION_DAYS", 365, low=1, high=36500)

# Every host name is let through to /key/ (clients come by whatever address is in their profile, and a ping by
# the gateway's); vpnproject.middleware.AdminHost applies this list to everything else.
ADMIN_HOSTS = env.words("ALLOWED_HOSTS", ["*"])
ALLOWED_HOSTS = ["*"]

INSTALLED_APPS = [
    "unfold",
    "unfold.contrib.filters",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "core",
    "users",
    "servers",
    "wgpeers",
]
MIDDLEWARE = [
    "vpnproject.middleware.PageHeaders",
    "vpnproject.middleware.WordsForButtons",
    "django.middleware.security.SecurityMiddleware",
    "vpnproject.middleware.AdminHost",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "vpnproject.middleware.CommonForAdmin",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "vpnproject.second_factor.gate.Gate",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "vpnproject.urls"
CSRF_FAILURE_VIEW = "vpnproject.errors.not_from_our_page"
WSGI_APPLICATION = "vpnproject.wsgi.application"
APPEND_SLASH = False
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        # A factor keeps its templates in its own folder: "pin/panel.html".
        "DIRS": [BASE_DIR / "vpnproject" / "templates", BASE_DIR / "users" / "factors"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

DATABASES = {"default": env.database(VAR / "database" / "db.sqlite3")}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

PASSWORD_HASHERS = [
    "django.contrib.auth.hashers.Argon2PasswordHasher",
    "django.contrib.auth.hashers.PBKDF2PasswordHasher",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "vpnproject.passwords.NotTheOneTimePassword"},
]
LOGIN_REDIRECT_URL = "admin:index"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = not DEBUG
SESSION_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_AGE = 12 * 3600
SESSION_ENGINE = "core.session_store"
# "required": each administrator sets one up before anything else. "off", for labs: nobody has to; who has one shows it.
ADMIN_SECOND_FACTOR = env.one_of("ADMIN_SECOND_FACTOR", "required", "off")
SECURE_CONTENT_TYPE_NOSNIFF = True
# A redirect ends a client's tunnel: should SECURE_SSL_REDIRECT ever be turned on, it is for people's pages alone.
SECURE_REDIRECT_EXEMPT = [r"^key/", r"^ku/"]
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
# Seconds for which browsers ask for people's pages by HTTPS alone; 0: they are not told to. They are told only where
# the certificate that web is served with is not self-signed.
HSTS_SECONDS = env.whole("HSTS_SECONDS", 30 * 86400, low=0, high=2 * 365 * 86400)
CERTIFICATE = VAR / "certificate.pem"
# Where bin/run puts the client, for users to download.
CLIENT_WHEEL = VAR / "client"

LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_TZ = True
FORMAT_MODULE_PATH = "vpnproject.formats"
STATIC_URL = "static/"
STATIC_ROOT = VAR / "static"
# A page must not be a failure because collectstatic has not run yet (tests, a first look by runserver).
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "whitenoise.storage.CompressedStaticFilesStorage"},
}

REDIS_URL = env.redis_url(own_redis(VAR, env.kept(VAR / "redis_password")))
# How a URL of Redis is reached; core.redis_store knows no other part and finds it here.
REDIS_POOL = redis_connections.pool
CELERY_BROKER_URL = broker_url(REDIS_URL)
CELERY_BROKER_TRANSPORT_OPTIONS = {
    # A producer (a connect, an admin's save) must fail fast when Redis is away; the sweeps make up for it.
    "socket_timeout": 5,
    "socket_connect_timeout": 2,
    "retry_on_timeout": False,
    "max_retries": 1,
    "interval_start": 0,
    "interval_max": 0.2,
    # Only the keys queue holds work for longer than moments; see users.tasks.
    "visibility_timeout": 600,
    **broker_options(REDIS_URL),
}

# The connect API authenticates by its own envelope, never by a session; see wgpeers.protocol.envelope.
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [],
    "DEFAULT_PERMISSION_CLASSES": [],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "UNAUTHENTICATED_USER": None,
}
DATA_UPLOAD_MAX_MEMORY_SIZE = 5 * 1024 * 1024
# A server's page has ten fields a route; one with 1,000 routes can be saved. The size bounds what it costs.
DATA_UPLOAD_MAX_NUMBER_FIELDS = 20_000

LOG_FORMAT = env.one_of("LOG_FORMAT", json_lines.LINE, json_lines.JSON)
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        json_lines.LINE: {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"},
        json_lines.JSON: {"()": json_lines.JsonLines, "context": request_id.of_log},
    },
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": LOG_FORMAT}},
    "root": {"handlers": ["stderr"], "level": env.text("LOG_LEVEL", "INFO")},
    # Refused requests are recorded as decisions; Django's own warning for each 4xx would only be noise.
    "loggers": {"django.request": {"level": "ERROR"}},
}

from .admin_theme import UNFOLD  # noqa: E402, F401  (the theme is long and has nothing to do with the rest)
