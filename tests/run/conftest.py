"""What two runs are compared by."""

import json

import pytest


@pytest.fixture
def numbers():
    """What result.json and metrics.jsonl of a run say, times left out; repeated events once."""

    def read(folder):
        times = ("seconds", "cpu_seconds", "train_seconds")

        def timeless(value):
            if isinstance(value, dict):
                return {k: timeless(v) for k, v in value.items() if k not in times}
            return [timeless(v) for v in value] if isinstance(value, list) else value

        result = timeless(json.loads((folder / "result.json").read_text()))
        events = {}
        for line in (folder / "metrics.jsonl").read_text().splitlines():
            event = timeless(json.loads(line))
            key = event["model"], event["event"], event["step"]
            assert events.setdefault(key, event) == event
        return result, events

    return read
