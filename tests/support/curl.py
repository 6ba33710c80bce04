"""In curl's place on a machine that has none: as much of it as the documentation uses."""

from __future__ import annotations

import sys
import urllib.error
import urllib.request


def main(arguments: list[str]) -> int:
    method, url, body, headers = "", "", None, {}
    words = iter(arguments)
    for word in words:
        if word == "-X":
            method = next(words)
        elif word == "-H":
            name, _, value = next(words).partition(":")
            headers[name] = value.strip()
        elif word == "-d":
            body = next(words).encode()
        elif not word.startswith("-"):
            url = word
        elif word not in ("-s", "-sS"):
            raise SystemExit(f"curl {word} is not known here")
    request = urllib.request.Request(url, body, headers, method=method or ("POST" if body else "GET"))
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as reply:
            sys.stdout.buffer.write(reply.read())
    except urllib.error.HTTPError as error:
        sys.stdout.buffer.write(error.read())
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
