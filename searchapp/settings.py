"""Every setting, each read from the environment once. A bad value stops the start with its name."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured

BASE_DIR = Path(__file__).resolve().parent.parent


# --- reading the environment -------------------------------------------------------------------


def env_str(name: str, default: str = "") -> str:
    """The variable, else the content of the file NAME_FILE names (secrets), else the default."""
    path = os.environ.get(f"{name}_FILE")
    if path:
        try:
            return Path(path).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise ImproperlyConfigured(f"{name}_FILE={path!r} cannot be read: {error}") from error
    return os.environ.get(name, default)


def env_int(name: str, default: int, minimum: int = 0) -> int:
    raw = env_str(name, str(default))
    try:
        value = int(raw)
    except ValueError as error:
        raise ImproperlyConfigured(f"{name}={raw!r} is not a whole number") from error
    if value < minimum:
        raise ImproperlyConfigured(f"{name}={raw!r} must be at least {minimum}")
    return value


def env_bool(name: str, default: bool) -> bool:
    raw = env_str(name, "1" if default else "0").lower()
    if raw in {"1", "true", "yes", "on"}:
        return True
    if raw in {"0", "false", "no", "off", ""}:
        return False
    raise ImproperlyConfigured(f"{name}={raw!r} is not yes or no")


def env_list(name: str, default: str = "") -> list[str]:
    return [part.strip() for part in env_str(name, default).split(",") if part.strip()]


def env_pairs(name: str, default: str = "") -> dict[str, str]:
    """name=value,name=value"""
    pairs = {}
    for part in env_list(name, default):
        key, sign, value = part.partition("=")
        if not sign or not key.strip() or not value.strip():
            raise ImproperlyConfigured(f"{name}: {part!r} is not name=value")
        pairs[key.strip()] = value.strip()
    return pairs


def database_from_url(url: str) -> dict[str, Any]:
    """Django's database settings for a postgresql:// URL; raises ImproperlyConfigured otherwise."""
    parts = urlsplit(url)
    if parts.scheme not in {"postgres", "postgresql"}:
        raise ImproperlyConfigured("DATABASE_URL must start with postgresql://")
    options: dict[str, Any] = dict(parse_qsl(parts.query))
    host = options.pop("host", unquote(parts.hostname or ""))
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": unquote(parts.path.lstrip("/")) or "podium",
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": host,
        "PORT": str(parts.port or ""),
        "OPTIONS": options,
    }


# --- where things lie --------------------------------------------------------------------------

VAR_DIR = Path(env_str("VAR_DIR", str(BASE_DIR / "var"))).resolve()
MEDIA_ROOT = Path(env_str("MEDIA_ROOT", str(VAR_DIR / "media"))).resolve()
EMBEDDED_STATE_FILE = VAR_DIR / "embedded.json"


def _embedded_urls() -> dict[str, str]:
    """Where the embedded servers listen, as `make up` wrote it; empty before its first run."""
    try:
        state = json.loads(EMBEDDED_STATE_FILE.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {key: str(state[key]) for key in ("database_url", "redis_url") if key in state}


def _secret_key() -> str:
    """SECRET_KEY, or a key generated once and kept in VAR_DIR, readable by its owner only."""
    key = env_str("SECRET_KEY")
    if key:
        return key
    path = VAR_DIR / "secret_key"
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        pass
    VAR_DIR.mkdir(parents=True, exist_ok=True)
    key = secrets.token_urlsafe(50)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:  # another process of the same start was quicker
        return path.read_text(encoding="utf-8").strip()
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(key)
    return key


# --- security ----------------------------------------------------------------------------------

DEBUG = env_bool("DEBUG", False)
SECRET_KEY = _secret_key()
# This machine is always allowed: health checks come from here.
ALLOWED_HOSTS = [*env_list("ALLOWED_HOSTS"), "localhost", "127.0.0.1", "[::1]"]
CSRF_TRUSTED_ORIGINS = env_list("CSRF_TRUSTED_ORIGINS")
# HTTPS=yes says that people reach Podium over https, directly or through a proxy.
HTTPS = env_bool("HTTPS", False)
SESSION_COOKIE_SECURE = HTTPS
CSRF_COOKIE_SECURE = HTTPS
SECURE_SSL_REDIRECT = HTTPS
SECURE_REDIRECT_EXEMPT = ["^healthz$", "^readyz$", "^metrics$"]
SECURE_HSTS_SECONDS = 31_536_000 if HTTPS else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = HTTPS
SECURE_HSTS_PRELOAD = HTTPS
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if HTTPS else None
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
SESSION_COOKIE_HTTPONLY = True
CONTENT_SECURITY_POLICY = (
    "default-src 'self'; img-src 'self' data:; style-src 'self'; script-src 'self'; "
    "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)

# --- Django ------------------------------------------------------------------------------------

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "django.contrib.postgres",
    "django.contrib.humanize",
    "searchapp",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "searchapp.middleware.content_security_policy",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "searchapp.middleware.full_disk",
]
ROOT_URLCONF = "searchapp.urls"
WSGI_APPLICATION = "searchapp.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]
LANGUAGE_CODE = "en"
TIME_ZONE = env_str("TIME_ZONE", "UTC")
USE_I18N = True
USE_TZ = True
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "home"
LOGOUT_REDIRECT_URL = "home"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
STATIC_URL = "static/"
STATIC_ROOT = VAR_DIR / "staticfiles"
STATICFILES_DIRS = [BASE_DIR / "static"]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"},
}
MEDIA_URL = "/no-direct-access/"  # files leave through views that check rights

# --- database and broker -----------------------------------------------------------------------

_EMBEDDED = _embedded_urls()
DATABASE_URL = env_str(
    "DATABASE_URL", _EMBEDDED.get("database_url", "postgresql://podium@127.0.0.1:5432/podium")
)
DATABASES = {"default": {**database_from_url(DATABASE_URL), "CONN_HEALTH_CHECKS": True}}
DATABASES["default"]["OPTIONS"].setdefault(
    "pool", {"min_size": 1, "max_size": env_int("DATABASE_POOL_SIZE", 16, 2), "timeout": 10}
)
REDIS_URL = env_str("REDIS_URL", _EMBEDDED.get("redis_url", "redis://127.0.0.1:6379/0"))

# --- Celery ------------------------------------------------------------------------------------

CELERY_BROKER_URL = REDIS_URL
CELERY_TASK_IGNORE_RESULT = True  # answers travel on their own reply lists (searchapp/engine)
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_TASK_DEFAULT_QUEUE = "default"
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_BROKER_TRANSPORT_OPTIONS = {
    # Job state and leases live in Postgres; redelivery is the second net.
    "visibility_timeout": 600,
    "unacked_restore_interval": 10,
    "socket_timeout": 5,
    "socket_connect_timeout": 2,
}

# --- the engine --------------------------------------------------------------------------------

# A model name or directory; empty means the MiniLM weights of the installed package.
EMBED_MODEL = env_str("EMBED_MODEL")
# Empty means the built-in untrained baseline; else any sentence-transformers CrossEncoder.
RERANK_MODEL = env_str("RERANK_MODEL")
DEVICE = env_str("DEVICE", "auto")
# Numbers the reranker computes in: auto, float32, bfloat16, float16, fp8.
RERANK_DTYPE = env_str("RERANK_DTYPE", "auto")
RERANK_DEADLINE_MS = env_int("RERANK_DEADLINE_MS", 8000, 1)
EMBED_DEADLINE_MS = env_int("EMBED_DEADLINE_MS", 1500, 1)
# More waiting messages than this and a search is told at once that the reranker is busy.
RERANK_QUEUE_LIMIT = env_int("RERANK_QUEUE_LIMIT", 200, 1)
# Scores kept in Redis for searches that come again; 0 keeps none.
SCORE_CACHE_BYTES = env_int("SCORE_CACHE_MB", 64) * 1024 * 1024
# How many rerank workers `make up` starts: a number, or one per NVIDIA GPU it sees; 0 when they run
# elsewhere.
RERANK_WORKERS = (
    None if env_str("RERANK_WORKERS", "auto") == "auto" else env_int("RERANK_WORKERS", 1)
)
# Vectors of a collection are scanned exactly up to here; above, an HNSW index is built.
EXACT_SCAN_MAX_PASSAGES = env_int("EXACT_SCAN_MAX_PASSAGES", 30_000)
# Searches are kept this long for their pages and their log; 0 keeps them for ever.
TRACE_DAYS = env_int("TRACE_DAYS", 90)

# --- uploads -----------------------------------------------------------------------------------

MAX_UPLOAD_BYTES = env_int("MAX_UPLOAD_MB", 200, 1) * 1024 * 1024
MAX_EXPANDED_BYTES = env_int("MAX_EXPANDED_MB", 1000, 1) * 1024 * 1024
MAX_ARCHIVE_MEMBERS = env_int("MAX_ARCHIVE_MEMBERS", 20_000, 1)
PARSE_MEMORY_BYTES = env_int("PARSE_MEMORY_MB", 1500, 64) * 1024 * 1024
PARSE_TIMEOUT_SECONDS = env_int("PARSE_TIMEOUT_SECONDS", 300, 1)
DATA_UPLOAD_MAX_MEMORY_SIZE = 5 * 1024 * 1024
DATA_UPLOAD_MAX_NUMBER_FILES = 2000
FILE_UPLOAD_PERMISSIONS = 0o640

# --- the API ----------------------------------------------------------------------------------

# What one key gets in a minute; 0 is no limit. They share one machine out among its callers:
# about what one GPU serves is fast, and ten times that may queue as slow.
API_REQUESTS_PER_MINUTE = env_int("API_REQUESTS_PER_MINUTE", 30_000)
API_FAST_BYTES_PER_MINUTE = env_int("API_FAST_BYTES_PER_MINUTE", 100_000_000)
API_SLOW_BYTES_PER_MINUTE = env_int("API_SLOW_BYTES_PER_MINUTE", 1_000_000_000)
API_FAST_PAIRS_PER_MINUTE = env_int("API_FAST_PAIRS_PER_MINUTE", 60_000)
API_SLOW_PAIRS_PER_MINUTE = env_int("API_SLOW_PAIRS_PER_MINUTE", 600_000)
# What one rerank or embed request may count for (150 bytes per text, the query per document).
API_MAX_REQUEST_BYTES = env_int("API_MAX_REQUEST_BYTES", 5_000_000)
# What one request may send, documents apart: these may be as large as uploads.
API_MAX_BODY_BYTES = env_int("API_MAX_BODY_BYTES", 10_000_000, 1000)

# A slow rerank or embed may wait this long; official clients give up after a minute.
API_SLOW_DEADLINE_MS = env_int("API_SLOW_DEADLINE_MS", 50_000, 1)
# Model ids that programs have in their code already, and what answers to them here.
API_MODEL_ALIASES = env_pairs(
    "API_MODEL_ALIASES", "zerank-2=default,zerank-1=default,zerank-1-small=default"
)
# The signed addresses of files and page images work this long; 0 is for ever.
API_FILE_URL_DAYS = env_int("API_FILE_URL_DAYS", 7)
# What keys asked for is kept this long, by the hour; 0 keeps it for ever.
API_USAGE_DAYS = env_int("API_USAGE_DAYS", 400)

# --- demo --------------------------------------------------------------------------------------

DEMO = env_bool("DEMO", True)

# --- measurements ------------------------------------------------------------------------------

# Who may read /metrics from another machine: the bearer of this token.
METRICS_TOKEN = env_str("METRICS_TOKEN")

# --- logs --------------------------------------------------------------------------------------

LOG_LEVEL = env_str("LOG_LEVEL", "INFO")
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {
            "class": "searchapp.api.redacting.LineWithoutKeys",
            "format": "%(asctime)s %(levelname)s %(name)s %(message)s",
        }
    },
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": LOG_LEVEL},
    # They report every call: of an assistant, and of each document that is copied.
    "loggers": {"mcp": {"level": "WARNING"}, "httpx2": {"level": "WARNING"}},
}
