"""HyperKitty's own settings, on the PostgreSQL database in TEST_DATABASE."""
import os
from urllib.parse import urlsplit

from hyperkitty.tests.settings_test import *  # noqa: F403

_url = urlsplit(os.environ["TEST_DATABASE"])
DATABASES = {"default": {
    "ENGINE": "django.db.backends.postgresql", "NAME": _url.path[1:], "USER": _url.username,
    "HOST": _url.hostname, "PORT": _url.port, "ATOMIC_REQUESTS": True,
}}
HAYSTACK_CONNECTIONS = {"default": {"ENGINE": "haystack.backends.simple_backend.SimpleEngine"}}
MIDDLEWARE = (*MIDDLEWARE, "shop.tidings_user")  # noqa: F405
