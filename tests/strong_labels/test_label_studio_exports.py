"""Label Studio's exports: tasks with annotations, JSON-MIN, predictions, uploaded names."""

from __future__ import annotations

import json

import pytest

from ossicle.datasets.strong import read_events, read_label_file, write_events
from ossicle.errors import DataError
from ossicle.events import event_table


def region(start, end, *labels, **more):
    value = {"start": start, "end": end, "channel": 0, "labels": list(labels)}
    tags = {"id": "x", "from_name": "label", "to_name": "audio", "type": "labels"}
    return {**tags, "value": value, "original_length": 30.0, **more}


def read(tmp_path, value, **options):
    path = tmp_path / "export.json"
    path.write_text(json.dumps(value), encoding="utf-8")
    return read_label_file(path, **options)


def rows(found):
    return found.events()[["file", "onset", "offset", "label"]].values.tolist()


def test_regions_of_several_labels_and_tasks_without_any(tmp_path):
    tasks = [
        {
            "id": 3,
            "file_upload": "8d3f2a1b-my_song.wav",
            "data": {"audio": "/data/upload/1/8d3f2a1b-my%20song.wav"},
            "annotations": [
                {
                    "id": 1,
                    "result": [
                        region(0.5, 1.25, "dog", "bark: loud"),
                        {"type": "choices", "value": {"choices": ["noisy"], "start": 0, "end": 9}},
                        {"type": "textarea", "value": {"start": 0.5, "end": 1.25, "text": ["w"]}},
                    ],
                }
            ],
        },
        {"id": 4, "data": {"audio": "b.wav"}, "annotations": [{"result": []}]},
        {"id": 5, "data": {"audio": "c.wav"}, "annotations": []},
        {"id": 6, "data": {"audio": "d.wav"}, "annotations": [{"was_cancelled": True}]},
    ]
    found = read(tmp_path, tasks)
    assert rows(found) == [
        ["my song.wav", 0.5, 1.25, "bark: loud"],
        ["my song.wav", 0.5, 1.25, "dog"],
    ]
    assert found.files() == ["my song.wav", "b.wav"]
    assert "2 tasks without an annotation left out" in found.notes[0]


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("/data/upload/12/0a1b2c3d-s%C3%B3ng.wav", "sóng.wav"),
        ("http://localhost:8080/data/upload/12/0a1b2c3d-a.wav", "a.wav"),
        ("/data/local-files/?d=birds%2Fmonday/a%20b.wav", "birds/monday/a b.wav"),
        ("birds/100%.wav", "birds/100%.wav"),
        ("/home/data/upload/a.wav", "/home/data/upload/a.wav"),
        ("https://example.org/a.wav?x=1", "https://example.org/a.wav?x=1"),
        ("http://[x/a.wav", "http://[x/a.wav"),
    ],
)
def test_names_before_they_were_uploaded(tmp_path, address, name):
    for key in ("audio", "url"):
        task = {"data": {"note": "hello", key: address}, "annotations": [{"result": []}]}
        if key == "url" and not address.endswith(".wav"):
            continue
        assert read(tmp_path, [task]).files() == [name]


def test_of_several_annotations_ground_truth_counts_then_the_newest(tmp_path):
    def task(*annotations):
        return [{"id": 1, "data": {"audio": "a.wav"}, "annotations": list(annotations)}]

    old = {"updated_at": "2024-01-01T00:00:00Z", "result": [region(0, 1, "old")]}
    new = {"updated_at": "2024-05-01T00:00:00Z", "result": [region(0, 1, "new")]}
    truth = {**old, "ground_truth": True, "result": [region(0, 1, "truth")]}
    found = read(tmp_path, task(new, old))
    assert rows(found) == [["a.wav", 0.0, 1.0, "new"]]
    assert "1 tasks have several annotations; one each" in found.notes[0]
    assert rows(read(tmp_path, task(old, truth, new)))[0][3] == "truth"
    undated = [{"result": [region(0, 1, name)]} for name in ("first", "last")]
    assert rows(read(tmp_path, task(*undated)))[0][3] == "last"
    both = read(tmp_path, task(new, old), annotations="all")
    assert [row[3] for row in rows(both)] == ["new", "old"]


def test_predictions_count_where_nobody_annotated(tmp_path):
    guess = {"result": [region(0, 1, "dog", score=0.75)]}
    task = {"id": 1, "data": {"audio": "a.wav"}, "predictions": [guess]}
    found = read(tmp_path, [task])
    assert found.events()["score"].tolist() == [0.75]
    assert "its predictions are taken" in found.notes[0]
    told = read(tmp_path, [{**task, "annotations": [{"result": [region(2, 3, "cat")]}]}])
    assert rows(told) == [["a.wav", 2.0, 3.0, "cat"]]
    with pytest.raises(DataError, match="no task has an annotation"):
        read(tmp_path, [{**task, "predictions": []}])


def test_json_min(tmp_path):
    heard = [{"start": 0.5, "end": 1, "channel": 0, "labels": ["dog", "cat"]}]
    tasks = [
        {"audio": "/data/upload/1/8d3f2a1b-a.wav", "id": 1, "label": heard, "annotator": 1},
        {"audio": "b.wav", "id": 2, "annotator": 1},
        {"audio": "c.wav", "id": 3, "sounds": heard, "updated_at": "2024-02-01"},
        {"audio": "c.wav", "id": 3, "updated_at": "2024-01-01"},
    ]
    found = read(tmp_path, tasks)
    assert rows(found) == [
        [name, 0.5, 1.0, label] for name in ("a.wav", "c.wav") for label in ("cat", "dog")
    ]
    assert found.files() == ["a.wav", "b.wav", "c.wav"]


def test_what_is_written_is_what_label_studio_imports(tmp_path):
    events = [
        {"file": "a b.wav", "onset": 0.1, "offset": 0.3, "label": "dog"},
        {"file": "a b.wav", "onset": 1 / 3, "offset": 2, "label": "é"},
    ]
    path = tmp_path / "x.json"
    write_events(event_table(events), path, files=["a b.wav", "silent.wav"])
    tasks = json.loads(path.read_text(encoding="utf-8"))
    assert [task["data"]["audio"] for task in tasks] == ["a b.wav", "silent.wav"]
    first = tasks[0]["annotations"][0]["result"][0]
    assert first["type"] == "labels"
    assert (first["from_name"], first["to_name"]) == ("label", "audio")
    assert first["value"] == {"start": 0.1, "end": 0.3, "channel": 0, "labels": ["dog"]}
    assert tasks[1]["annotations"] == [{"result": []}]
    assert read_label_file(path).files() == ["a b.wav", "silent.wav"]
    write_events(event_table([{**events[0], "score": 0.5}]), path)
    (task,) = json.loads(path.read_text(encoding="utf-8"))
    assert "annotations" not in task
    assert task["predictions"][0]["result"][0]["score"] == 0.5
    assert read_events(path)["score"].tolist() == [0.5]


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ([{"data": {}, "annotations": [{"result": []}]}], "names no audio"),
        (
            [{"id": 7, "data": {"audio": "a"}, "annotations": [{"result": [region("x", 1, "d")]}]}],
            "task 7: a region's start is 'x'",
        ),
        (
            [{"id": 7, "data": {"audio": "a"}, "annotations": [{"result": [region(0, 1)]}]}],
            "task 7: the event has no label",
        ),
        (
            [{"data": {"audio": "a"}, "annotations": [{"result": [region(10**400, 1, "d")]}]}],
            "not a number of seconds",
        ),
        ("dog", "not a list of Label Studio tasks"),
    ],
)
def test_what_is_missing_is_named(tmp_path, value, told):
    with pytest.raises(DataError, match=told):
        read(tmp_path, value)
