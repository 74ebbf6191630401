"""Addresses of servers, as users give them, as they are asked, and as they are told in errors."""

import base64
import re
from collections.abc import Mapping, Sequence

import httpx

from langchain_rain.engines.replicas import Replica
from langchain_rain.errors import RainConfigError

MAX_PORT = 65535


def checked_urls(given: str | Sequence[str]) -> list[str]:
    """Addresses as they are asked.

    Raises:
        RainConfigError: there is none, or one is none of a server.
    """
    urls = []
    for url in given if isinstance(given, Sequence) and not isinstance(given, str) else [given]:
        try:
            urls.append(base_url(url))
        except (ValueError, TypeError, AttributeError, httpx.InvalidURL):
            shown = re.sub(r"^.*@", "'", repr(url), flags=re.DOTALL)  # without user and password
            raise RainConfigError(
                f"base_url: the address of a server, like 'http://localhost:8000', is allowed, given {shown}."
            ) from None
    if not urls:
        raise RainConfigError(f"base_url: at least one address is allowed, given {given!r}.")
    return urls


def named(url: str) -> str:
    """A URL as errors name it: without user and password."""
    return str(httpx.URL(url).copy_with(username=None, password=None, query=None))


def base_url(url: str) -> str:
    """The root of a server, as users give it with or without `/v1`.

    Raises:
        ValueError: it is no HTTP address.
    """
    parsed = httpx.URL(url.strip())
    if parsed.scheme not in ("http", "https") or not parsed.host or not 0 <= (parsed.port or 0) <= MAX_PORT:
        raise ValueError(url)
    return str(parsed).rstrip("/").removesuffix("/v1")


def as_replicas(urls: Sequence[str], *, headers: Sequence[Mapping[str, str]] = ({},)) -> list[Replica]:
    """A replica for each of `urls` and each of `headers`; user and password of a URL become a header of its own."""
    return [Replica(*_without_password(url, each)) for url in urls for each in headers]


def _without_password(url: str, headers: Mapping[str, str]) -> tuple[str, Mapping[str, str]]:
    """A URL that may be logged, as httpx does; what is taken from it is sent all the same."""
    parsed = httpx.URL(url)
    if not parsed.userinfo:
        return url, headers
    credentials = base64.b64encode(f"{parsed.username}:{parsed.password}".encode()).decode()
    bare = str(parsed.copy_with(username=None, password=None))
    return bare.rstrip("/"), {**headers, "Authorization": f"Basic {credentials}"}
