"""The one error tree: each class is an HTTP status, a stable code and whether trying again can help."""

from __future__ import annotations

from typing import Any, ClassVar


class ApiError(Exception):
    """Base of everything a caller may be told. ``message`` is shown to people: plain words, nothing secret.

    ``context`` joins the error JSON beside the fixed fields; ``retry_after_s`` becomes the Retry-After header;
    ``headers`` are sent with the answer.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    retryable: ClassVar[bool] = False
    default_message: ClassVar[str] = "Something went wrong on our side."

    def __init__(self, message: str = "", *, retry_after_s: float | None = None, **context: Any) -> None:
        self.message = message or self.default_message
        self.retry_after_s = retry_after_s
        self.context = context
        self.headers: dict[str, str] = {}
        super().__init__(self.message)


class InternalError(ApiError):
    """An unknown fault. The cause is in the log under the request id."""


class InvalidUrl(ApiError):
    status = 400
    code = "invalid_url"
    default_message = "This is not a YouTube video link or id."


class InvalidParameter(ApiError):
    status = 400
    code = "invalid_parameter"
    default_message = "A parameter is wrong."


class KeyMissing(ApiError):
    status = 401
    code = "key_missing"
    default_message = "Send your API key in the X-API-Key header."


class KeyInvalid(ApiError):
    status = 401
    code = "key_invalid"
    default_message = "This API key is not known."


class KeyExpired(ApiError):
    status = 401
    code = "key_expired"
    default_message = "This API key has expired."


class KeyDisabled(ApiError):
    status = 403
    code = "key_disabled"
    default_message = "This API key has been switched off."


class ScopeMissing(ApiError):
    status = 403
    code = "scope_missing"
    default_message = "This API key may not do that."


class RoleMissing(ApiError):
    status = 403
    code = "role_missing"
    default_message = "Your role in the admin may not do that."


class IpNotAllowed(ApiError):
    status = 403
    code = "ip_not_allowed"
    default_message = "This API key may not be used from your address."


class LinkInvalid(ApiError):
    status = 403
    code = "link_invalid"
    default_message = "This link is not valid. Ask the API for a new one."


class VideoTooLong(ApiError):
    status = 403
    code = "video_too_long"
    default_message = "This video is longer than this API key may ask for."


class FileTooLarge(ApiError):
    status = 403
    code = "file_too_large"
    default_message = "This file is larger than this API key may ask for."


class AgeRestricted(ApiError):
    status = 403
    code = "age_restricted"
    default_message = "YouTube shows this video to signed-in adults only."


class VideoPrivate(ApiError):
    status = 403
    code = "video_private"
    default_message = "This video is private or for members only."


class VideoUnavailable(ApiError):
    status = 404
    code = "video_unavailable"
    default_message = "This video does not exist or has been removed."


class NotFound(ApiError):
    status = 404
    code = "not_found"
    default_message = "There is nothing here."


class MethodNotAllowed(ApiError):
    status = 405
    code = "method_not_allowed"
    default_message = "This address does not answer that method."


class NotAcceptable(ApiError):
    status = 406
    code = "not_acceptable"
    default_message = "We cannot answer in the format that you accept."


class RequestTimeout(ApiError):
    status = 408
    code = "request_timeout"
    retryable = True
    default_message = "The request's body took too long to arrive."


class Conflict(ApiError):
    status = 409
    code = "conflict"
    default_message = "This clashes with something that is already there."


class LinkExpired(ApiError):
    status = 410
    code = "link_expired"
    default_message = "This link has expired. Ask the API for a new one."


class PreconditionFailed(ApiError):
    status = 412
    code = "precondition_failed"
    default_message = "The file is not the one that If-Match names."


class TooLarge(ApiError):
    status = 413
    code = "too_large"
    default_message = "That is more than we take in one request."


class UnsupportedMediaType(ApiError):
    status = 415
    code = "unsupported_media_type"
    default_message = "Send JSON or form fields."


class RangeNotSatisfiable(ApiError):
    status = 416
    code = "range_not_satisfiable"
    default_message = "The asked-for range lies outside the file."


class QualityUnavailable(ApiError):
    status = 422
    code = "quality_unavailable"
    default_message = "This video is not offered in that quality or format."


class LiveNotSupported(ApiError):
    status = 422
    code = "live_not_supported"
    default_message = "Live streams and premieres cannot be fetched. Try again when the video is finished."


class DrmProtected(ApiError):
    status = 422
    code = "drm_protected"
    default_message = "This video is copy-protected (DRM). We do not fetch it."


class RateLimited(ApiError):
    status = 429
    code = "rate_limited"
    retryable = True
    default_message = "This API key has used up its requests for the hour."
    limit_state: Any = None  # apps.keys.limits.LimitState, where a key's limit was reached


class QuotaExceeded(RateLimited):
    code = "quota_exceeded"
    default_message = "This API key has used up its quota."


class TooManyStreams(ApiError):
    status = 429
    code = "too_many_streams"
    retryable = True
    default_message = "This API key has too many streams open at once."


class GeoBlocked(ApiError):
    status = 451
    code = "geo_blocked"
    default_message = "This video is not available in the server's country."


class UpstreamError(ApiError):
    status = 502
    code = "upstream_error"
    retryable = True
    default_message = "The outside source gave an answer we cannot use. Try again later."


class BotCheck(ApiError):
    status = 502
    code = "bot_check"
    retryable = True
    default_message = "YouTube asked this server to prove that it is not a bot. Try again later."


class UpstreamUnreachable(ApiError):
    status = 503
    code = "upstream_unreachable"
    retryable = True
    default_message = "The outside source cannot be reached. Try again later."


class Overloaded(ApiError):
    status = 503
    code = "overloaded"
    retryable = True
    default_message = "The server has too much to do right now. Try again soon."


class TooManyJobs(Overloaded):
    status = 429
    code = "too_many_jobs"
    default_message = "This API key waits for as many new files as it may at once."


class NotReady(ApiError):
    status = 503
    code = "not_ready"
    retryable = True
    default_message = "The server is starting, or a part of it is down. Try again soon."


STILL_COMING_RETRY_S = 5.0
"""What a caller is told who waited for something as long as anybody may, while the work on it goes on."""


class UpstreamTimeout(ApiError):
    status = 504
    code = "upstream_timeout"
    retryable = True
    default_message = "The outside source took too long. Try again later."


def _collect(base: type[ApiError]) -> dict[str, type[ApiError]]:
    found = {base.code: base}
    for child in base.__subclasses__():
        found.update(_collect(child))
    return found


ERRORS_BY_CODE: dict[str, type[ApiError]] = _collect(ApiError)
"""Every documented code. A code stored on a job becomes its error again through this table."""


def error_from_code(code: str, message: str = "", *, retry_after_s: float | None = None) -> ApiError:
    """The error that a stored code stands for; an unknown code is an InternalError."""
    return ERRORS_BY_CODE.get(code, InternalError)(message, retry_after_s=retry_after_s)


def error_body(error: ApiError, *, request_id: str) -> dict[str, Any]:
    """The error JSON of the HTTP contract."""
    return {
        "status": False,
        "error": error.code,
        "message": error.message,
        "retryable": error.retryable,
        "request_id": request_id,
        **error.context,
    }
