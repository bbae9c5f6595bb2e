"""WHAT ACCOUNTS SPEAK. Pure: a Call becomes an HttpRequest, a body becomes events. One file and one line a provider."""

from collections.abc import Mapping

from opus_api.upstreams import amazonq, anthropic, morph, openai_compatible, practice
from opus_api.upstreams.base import Upstream

UPSTREAMS: Mapping[str, Upstream] = {
    upstream.name: upstream
    for upstream in (
        anthropic.UPSTREAM,
        amazonq.UPSTREAM,
        openai_compatible.UPSTREAM,
        morph.UPSTREAM,
        practice.UPSTREAM,
    )
}
# Providers that a person adds accounts of.
ACCOUNT_PROVIDERS = tuple(name for name in UPSTREAMS if name != practice.UPSTREAM.name)
