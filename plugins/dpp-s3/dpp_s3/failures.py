"""What boto3 raises, in dpp's words, and trying again where that may help."""

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

Answer = TypeVar("Answer")
_SHOWN_CODE = re.compile(r"[A-Za-z0-9._-]{1,64}")
_ANOTHER_TIME = "the server could not do it this time"


class Meaning(NamedTuple):
    """What a failure comes to.

    Attributes:
        error_class: Its class.
        reason: What happened and what to do.
        retryable: Whether another attempt may succeed.
    """

    error_class: str
    reason: str
    retryable: bool = False


_BY_CODE = {
    "NoSuchBucket": Meaning("bucket", "there is no such bucket; check its name and endpoint_url"),
    "InvalidBucketName": Meaning("bucket", "the server takes this for no name of a bucket"),
    "PermanentRedirect": Meaning("bucket", "the bucket is in another region; set region"),
    "AuthorizationHeaderMalformed": Meaning("bucket", "the bucket is in another region; set region"),
    "ExpiredToken": Meaning("permission", "the credentials have expired; get new ones"),
    "InvalidAccessKeyId": Meaning("permission", "the server does not know the access key; check the credentials and endpoint_url"),
    "SignatureDoesNotMatch": Meaning("permission", "the secret key is wrong, or the region or the addressing_style is"),
    "RequestTimeTooSkewed": Meaning("permission", "this machine's clock is wrong; set it"),
    "InvalidObjectState": Meaning("archived", "the object is in an archive; restore it first"),
    "NoSuchUpload": Meaning("upload-gone", "somebody else aborted the upload, and seems to upload to the same key"),
    "NoSuchKey": Meaning("not-found", "there is no such object"),
    "RequestTimeout": Meaning("timeout", _ANOTHER_TIME, retryable=True),
    "SlowDown": Meaning("http-503", "the server asks to slow down", retryable=True),
    "InternalError": Meaning("http-500", _ANOTHER_TIME, retryable=True),
    "BadDigest": Meaning("checksum", "what arrived is not what was sent", retryable=True),
    "XAmzContentSHA256Mismatch": Meaning("checksum", "what arrived is not what was sent", retryable=True),
    "PreconditionFailed": Meaning("exists", "there is an object with this key already"),
    "NotImplemented": Meaning("not-offered", "the server does not offer this"),
    "ConditionalRequestConflict": Meaning("conflict", "somebody else wrote to the same key at the same time", retryable=True),
}
_BY_STATUS = {
    HTTPStatus.NOT_FOUND: Meaning("not-found", "there is no such object, or no such bucket"),
    HTTPStatus.UNAUTHORIZED: Meaning("permission", "the credentials do not allow it"),
    HTTPStatus.FORBIDDEN: Meaning("permission", "the credentials do not allow it"),
}
_WITHOUT_ANSWER: dict[tuple[type[Exception], ...], Meaning] = {
    (exceptions.CredentialRetrievalError, exceptions.MetadataRetrievalError): Meaning(
        "credentials", "whoever gives out the credentials did not answer as expected", retryable=True
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
    (exceptions.SSLError,): Meaning("tls", "the TLS certificate or handshake was refused"),
    (exceptions.ConnectTimeoutError, exceptions.ReadTimeoutError): Meaning("timeout", "the server did not answer in time", retryable=True),
    (exceptions.ChecksumError, exceptions.FlexibleChecksumError): Meaning(
        "checksum", "what came is not what the server says it stored", retryable=True
    ),
    (exceptions.ResponseStreamingError, exceptions.IncompleteReadError, HTTPError): Meaning(
        "truncated", "the connection broke before the body was complete", retryable=True
    ),
    (exceptions.HTTPClientError, exceptions.ConnectionError): Meaning("connection", "the connection was refused, or broke", retryable=True),
    (ResponseParserError,): Meaning(
        "protocol", "the answer was cut short, or is not that of an S3 server; check endpoint_url", retryable=True
    ),
}
_DNS = Meaning("dns", "the server's name does not resolve; check endpoint_url", retryable=True)


@contextmanager
def mapped(what: str) -> Iterator[None]:
    """Turn what boto3 raises into a FetchError.

    Args:
        what: What failed then, for the message.
    """
    try:
        yield
    except exceptions.ClientError as error:
        raise _refusal(error, what) from error
    except (exceptions.BotoCoreError, ResponseParserError, HTTPError) as error:
        cause = getattr(error, "kwargs", {}).get("error")
        if isinstance(cause, DppError):  # raised while boto3 read the body to be sent
            raise cause from error
        meaning = _DNS if isinstance(cause, NameResolutionError) else _without_answer(error)
        raise FetchError(f"{what}: {meaning.reason}", meaning.error_class, retryable=meaning.retryable) from error


def _refusal(error: exceptions.ClientError, what: str) -> FetchError:
    """Return what an error answer means; of the server's own words only the code is shown, as the rest may hold keys."""
    code = str(error.response.get("Error", {}).get("Code", ""))
    facts: Any = error.response.get("ResponseMetadata", {})
    status = facts.get("HTTPStatusCode", 0)
    meaning = _BY_CODE.get(code) or _BY_STATUS.get(status) or _by_number(status)
    answer = f"{status} {code}" if code != str(status) and _SHOWN_CODE.fullmatch(code) else str(status)
    return FetchError(
        f"{what}: {meaning.reason} (the server answered {answer})",
        meaning.error_class,
        retryable=meaning.retryable,
        http_status=status or None,
        retry_after=http.parse_retry_after(facts.get("HTTPHeaders", {}).get("retry-after")),
    )


def _by_number(status: int) -> Meaning:
    retryable = status in http.RETRYABLE
    return Meaning(f"http-{status}", _ANOTHER_TIME if retryable else "the server refused it", retryable)


def _without_answer(error: Exception) -> Meaning:
    found = (meaning for kinds, meaning in _WITHOUT_ANSWER.items() if isinstance(error, kinds))
    return next(found, Meaning("protocol", f"the request or the answer makes no sense to boto3 ({type(error).__name__})"))


def fact(answer: Mapping[str, Any], name: str) -> Any:
    """Return what every S3 server's answer has.

    Raises:
        FetchError: This one's has not.
    """
    if name not in answer:
        raise FetchError(f"the answer has no {name}, so it is not that of an S3 server; check endpoint_url", "protocol")
    return answer[name]


def attempted(settings: Settings, what: str, ask: Callable[[], Answer]) -> Answer:
    """Ask until there is an answer or it cannot get better.

    Args:
        settings: For ``attempts`` and the waits between them.
        what: What failed then, for the message.
        ask: Sends a request.

    Raises:
        FetchError: The last attempt's failure.
    """

    def attempt() -> Answer:
        with mapped(what):
            return ask()

    return retrying(settings)(attempt)


def retrying(settings: Settings) -> Retrying:
    """Return what calls a function again while it raises a retryable FetchError, with waits as dpp makes them."""
    jittered = wait_random_exponential(settings.retry_wait, settings.retry_wait_max)

    def wait(state: RetryCallState) -> float:
        asked = getattr(state.outcome and state.outcome.exception(), "retry_after", None)
        return jittered(state) if asked is None else min(float(asked), settings.retry_after_max)

    return Retrying(
        stop=stop_after_attempt(settings.attempts),
        wait=wait,
        retry=retry_if_exception(lambda error: isinstance(error, FetchError) and error.retryable),
        reraise=True,
    )
