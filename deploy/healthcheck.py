"""Exits with 0 if a page of this container answers 200, e.g. ``healthcheck.py 8000 /healthz``.

Nothing but the standard library, and no proxy that the environment may name: it asks its own loopback address.
"""

import http.client
import sys

TIMEOUT_S = 4.0


def main(port: str, path: str, host: str = "127.0.0.1") -> int:
    connection = http.client.HTTPConnection(host, int(port), timeout=TIMEOUT_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read(500).decode(errors="replace")
    except OSError as error:
        print(error)
        return 1
    finally:
        connection.close()
    print(answer.status, body)
    return 0 if answer.status == http.client.OK else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
