from ranker.report.redaction import REDACTED, redact


def test_secrets_are_replaced_wherever_they_are() -> None:
    config = {
        "name": "x",
        "api_key": "abc",
        "store": [{"AccessToken": "abc", "path": "p"}],
        "password": None,
    }
    assert redact(config) == {
        "name": "x",
        "api_key": REDACTED,
        "store": [{"AccessToken": REDACTED, "path": "p"}],
        "password": None,
    }
