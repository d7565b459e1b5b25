"""Limit the responses that botocore reads into memory: all except the data of objects."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

from botocore.exceptions import ConnectionClosedError, ReadTimeoutError
from dpp import FetchError
from urllib3 import exceptions

# A page of a listing has 1,000 keys of at most 1,024 bytes each, three times as many if they are percent-encoded
LARGEST_RESPONSE = 32 * 1024 * 1024


class BoundedSession:
    """botocore's HTTP session, with a limit for responses other than objects.

    Args:
        session: The session.
    """

    def __init__(self, session: Any) -> None:
        self._session = session

    def send(self, request: Any) -> Any:
        """Send a request, and return the response."""
        # botocore's session would read the response before it could be limited, unless it is to be a stream
        is_object, request.stream_output = request.stream_output, True
        response = self._session.send(request)
        request.stream_output = is_object
        # Only used for what is read at once, also for an error in place of an object
        response.raw.stream = functools.partial(_bounded, response.raw.stream)
        if not is_object:
            _read(response, request)
        return response

    def close(self) -> None:
        """Close the connections."""
        self._session.close()


def _bounded(stream: Callable[..., Iterator[bytes]], *arguments: Any, **options: Any) -> Iterator[bytes]:
    size = 0
    for block in stream(*arguments, **options):
        size += len(block)
        if size > LARGEST_RESPONSE:
            raise FetchError(f"the server sent a response of more than {LARGEST_RESPONSE} bytes; check endpoint_url", "protocol")
        yield block


def _read(response: Any, request: Any) -> None:
    """Read a response into memory; errors are mapped as in botocore's own session."""
    try:
        response.content  # noqa: B018 - a property that reads and keeps it
    except exceptions.ReadTimeoutError as error:
        raise ReadTimeoutError(endpoint_url=request.url, error=error) from error
    except exceptions.ProtocolError as error:
        raise ConnectionClosedError(error=error, request=request, endpoint_url=request.url) from error
