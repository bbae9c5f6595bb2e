import re

from opus_api.wire import ids


def test_ids_have_their_prefix_and_24_letters() -> None:
    for make, prefix in ((ids.message_id, "msg_"), (ids.tool_id, "toolu_"), (ids.request_id, "req_")):
        assert re.fullmatch(prefix + "[A-Za-z0-9]{24}", make())


def test_random_text_has_its_length_uses_all_letters_and_never_repeats() -> None:
    texts = {ids.random_base62(length) for length in (1, 24, 43, 1000) for _ in range(20) if length > 1}
    assert len(texts) == 60
    assert set("".join(texts)) == set(ids.BASE62)
