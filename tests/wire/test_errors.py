import pytest

from opus_api.wire import errors

KINDS = {
    errors.InvalidRequest: (400, "invalid_request_error"),
    errors.Unauthorized: (401, "authentication_error"),
    errors.Forbidden: (403, "permission_error"),
    errors.NotFound: (404, "not_found_error"),
    errors.MethodNotAllowed: (405, "invalid_request_error"),
    errors.RequestTimeout: (408, "timeout_error"),
    errors.Conflict: (409, "conflict_error"),
    errors.TooLarge: (413, "request_too_large"),
    errors.Unprocessable: (422, "invalid_request_error"),
    errors.RateLimited: (429, "rate_limit_error"),
    errors.Unavailable: (503, "api_error"),
}


@pytest.mark.parametrize("kind, facts", KINDS.items())
def test_an_error_knows_its_status_and_type(kind: type[errors.ApiError], facts: tuple[int, str]) -> None:
    error = kind("why", {"retry-after": "1"})  # type: ignore[call-arg, arg-type]
    assert (error.status, error.type, error.message, error.headers) == (*facts, "why", {"retry-after": "1"})
