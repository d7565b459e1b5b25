"""Map errors of boto3 to FetchError, and retry requests."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any, NamedTuple, TypeVar

from botocore import exceptions
from botocore.parsers import ResponseParserError
from dpp import DppError, FetchError, Settings, http
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt
from tenacity.wait import wait_random_exponential
from urllib3.exceptions import HTTPError, NameResolutionError

Response = TypeVar("Response")
_SHOWN_CODE = re.compile(r"[A-Za-z0-9._-]{1,64}")
_ANOTHER_TIME = "the server failed temporarily"
_NO_PERMISSION = "access denied; check the permissions of the credentials"
_DAMAGED = "the data was damaged during the upload"


class Meaning(NamedTuple):
    """The class and the message of an error.

    Attributes:
        error_class: The error class.
        reason: The cause, and what to do about it.
        retryable: Whether another attempt may succeed.
    """

    error_class: str
    reason: str
    retryable: bool = False


_BY_CODE = {
    "NoSuchBucket": Meaning("bucket", "there is no such bucket; check its name and endpoint_url"),
    "InvalidBucketName": Meaning("bucket", "the bucket's name is not valid on this server; check bucket or destination"),
    "PermanentRedirect": Meaning("bucket", "the bucket is in another region; set region"),
    "AuthorizationHeaderMalformed": Meaning("bucket", "the bucket is in another region; set region"),
    "ExpiredToken": Meaning("permission", "the credentials have expired; get new ones"),
    "InvalidAccessKeyId": Meaning("permission", "the server does not know the access key; check the credentials and endpoint_url"),
    "SignatureDoesNotMatch": Meaning("permission", "the secret key is wrong, or region or addressing_style is"),
    "RequestTimeTooSkewed": Meaning("permission", "the clock of this machine is wrong; correct it"),
    "InvalidObjectState": Meaning("archived", "the object is archived; restore it first"),
    "NoSuchUpload": Meaning("upload-gone", "another process aborted the upload; it may be uploading to the same key"),
    "NoSuchKey": Meaning("not-found", "there is no such object"),
    "RequestTimeout": Meaning("timeout", _ANOTHER_TIME, retryable=True),
    "SlowDown": Meaning("http-503", "the server receives too many requests", retryable=True),
    "InternalError": Meaning("http-500", _ANOTHER_TIME, retryable=True),
    "BadDigest": Meaning("checksum", _DAMAGED, retryable=True),
    "XAmzContentSHA256Mismatch": Meaning("checksum", _DAMAGED, retryable=True),
    "PreconditionFailed": Meaning("exists", "an object with this key exists already"),
    "NotImplemented": Meaning("not-offered", "the server does not support this request"),
    "ConditionalRequestConflict": Meaning("conflict", "another client wrote to the same key at the same time", retryable=True),
}
_BY_STATUS = {
    HTTPStatus.NOT_FOUND: Meaning("not-found", "there is no such object, or no such bucket"),
    HTTPStatus.UNAUTHORIZED: Meaning("permission", _NO_PERMISSION),
    HTTPStatus.FORBIDDEN: Meaning("permission", _NO_PERMISSION),
}
_WITHOUT_RESPONSE: dict[tuple[type[Exception], ...], Meaning] = {
    (exceptions.CredentialRetrievalError, exceptions.MetadataRetrievalError): Meaning(
        "credentials", "the service that provides the credentials sent no valid response", retryable=True
    ),
    (
        exceptions.NoCredentialsError,
        exceptions.PartialCredentialsError,
        exceptions.ProfileNotFound,
        exceptions.ConfigParseError,
        exceptions.NoAuthTokenError,
        exceptions.TokenRetrievalError,
        exceptions.SSOError,
    ): Meaning("credentials", "no usable credentials; set credentials_file, profile, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
    (exceptions.SSLError,): Meaning("tls", "the TLS handshake failed or the certificate is not trusted"),
    (exceptions.ConnectTimeoutError, exceptions.ReadTimeoutError): Meaning(
        "timeout", "no response from the server within connect_timeout or read_timeout", retryable=True
    ),
    (exceptions.ChecksumError, exceptions.FlexibleChecksumError): Meaning(
        "checksum", "the received data does not match the object's checksum", retryable=True
    ),
    (exceptions.ResponseStreamingError, exceptions.IncompleteReadError, HTTPError): Meaning(
        "truncated", "the connection broke before the body was complete", retryable=True
    ),
    (exceptions.HTTPClientError, exceptions.ConnectionError): Meaning("connection", "the connection was refused or broke", retryable=True),
    (ResponseParserError,): Meaning(
        "protocol", "the response is truncated or not that of an S3 server; check endpoint_url", retryable=True
    ),
}
_DNS = Meaning("dns", "the server's host name does not resolve; check endpoint_url", retryable=True)


@contextmanager
def mapped(what: str) -> Iterator[None]:
    """Map errors of boto3 in the block to FetchError.

    Args:
        what: The start of the message, such as ``cannot upload s3://bucket/key``.
    """
    try:
        yield
    except exceptions.ClientError as error:
        raise _refusal(error, what) from error
    except (exceptions.BotoCoreError, ResponseParserError, HTTPError) as error:
        cause = getattr(error, "kwargs", {}).get("error")
        # boto3 wraps errors that are raised while it reads the body to be sent
        if isinstance(cause, DppError):
            raise cause from error
        meaning = _DNS if isinstance(cause, NameResolutionError) else _without_response(error)
        raise FetchError(f"{what}: {meaning.reason}", meaning.error_class, retryable=meaning.retryable) from error
    # botocore lets these pass for invalid numbers, dates and checksums (dateutil raises RuntimeError), and for endless redirects
    except (ValueError, RuntimeError, OverflowError) as error:
        raise FetchError(f"{what}: the response of the server is invalid ({type(error).__name__})", "protocol") from error


def _refusal(error: exceptions.ClientError, what: str) -> FetchError:
    """Return the error for an error response."""
    # Only the code is shown: the message and the other fields may contain keys
    code = str(error.response.get("Error", {}).get("Code", ""))
    facts: Any = error.response.get("ResponseMetadata", {})
    status = facts.get("HTTPStatusCode", 0)
    meaning = _BY_CODE.get(code) or _BY_STATUS.get(status) or _by_number(status)
    response = f"{status} {code}" if code != str(status) and _SHOWN_CODE.fullmatch(code) else str(status)
    return FetchError(
        f"{what}: {meaning.reason} (response: {response})",
        meaning.error_class,
        retryable=meaning.retryable,
        http_status=status or None,
        retry_after=http.parse_retry_after(facts.get("HTTPHeaders", {}).get("retry-after")),
    )


def _by_number(status: int) -> Meaning:
    retryable = status in http.RETRYABLE
    return Meaning(f"http-{status}", _ANOTHER_TIME if retryable else "the server rejected the request", retryable)


def _without_response(error: Exception) -> Meaning:
    found = (meaning for kinds, meaning in _WITHOUT_RESPONSE.items() if isinstance(error, kinds))
    return next(found, Meaning("protocol", f"the request or the response is not valid for boto3 ({type(error).__name__})"))


def fact(response: Mapping[str, Any], name: str) -> Any:
    """Return a field that every response of an S3 server has.

    Raises:
        FetchError: The response does not have it.
    """
    if name not in response:
        raise FetchError(f"the response has no {name}, so it is not that of an S3 server; check endpoint_url", "protocol")
    return response[name]


def attempted(settings: Settings, what: str, ask: Callable[[], Response]) -> Response:
    """Send a request, with retries, and return the response.

    Args:
        settings: Settings with ``attempts`` and the waits between them.
        what: The start of the message, see :func:`mapped`.
        ask: Sends the request once and returns the response.

    Raises:
        FetchError: The error of the last attempt.
    """

    def attempt() -> Response:
        with mapped(what):
            return ask()

    return retrying(settings)(attempt)


def retrying(settings: Settings) -> Retrying:
    """Return an object that repeats a call while it raises a retryable FetchError, with the waits of the settings."""
    jittered = wait_random_exponential(settings.retry_wait, settings.retry_wait_max)

    def wait(state: RetryCallState) -> float:
        retry_after = getattr(state.outcome and state.outcome.exception(), "retry_after", None)
        return jittered(state) if retry_after is None else min(float(retry_after), settings.retry_after_max)

    return Retrying(
        stop=stop_after_attempt(settings.attempts),
        wait=wait,
        retry=retry_if_exception(lambda error: isinstance(error, FetchError) and error.retryable),
        reraise=True,
    )
