"""The command line: exact JSON, one bad image among good ones, exit statuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from classification import COLORS, picture, png, ultralytics

import trtinfer
from trtinfer.cli import main


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working folder: model.onnx and a picture of each color."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.onnx").write_bytes(ultralytics())
    for color in COLORS:
        (tmp_path / f"{color}.png").write_bytes(png(picture(color)))
    return tmp_path


def run(*arguments, **options):
    """Runs the program as a user does."""
    command = [sys.executable, "-m", "trtinfer", *arguments]
    return subprocess.run(command, capture_output=True, timeout=60, **options)


def test_json_maps_names_to_pairs(folder, capsys):
    names = ["red.png", "./blue.png", str(folder / "green.png")]
    assert main(["classify", *names, "--model", "model.onnx"]) == 0
    answers = json.loads(capsys.readouterr().out)
    assert list(answers) == names
    assert answers["red.png"] == [[0.999909, "red"], [4.5e-05, "green"], [4.5e-05, "blue"]]
    assert [pairs[0][1] for pairs in answers.values()] == ["red", "blue", "green"]


def test_one_bad_image_is_named_and_the_others_come_out(folder, capsys):
    (folder / "bad.png").write_bytes(b"garbage")
    names = ["red.png", "bad.png", "absent.png", "blue.png"]
    assert main(["classify", *names, "--model", "model.onnx", "--top-k", "1"]) == 1
    said = capsys.readouterr()
    answers = json.loads(said.out)
    assert list(answers) == names
    assert "7 bytes" in answers["bad.png"]["error"]
    assert "No such file" in answers["absent.png"]["error"]
    assert [answers["red.png"][0][1], answers["blue.png"][0][1]] == ["red", "blue"]
    assert "bad.png: " in said.err
    assert "absent.png: " in said.err


def test_table_is_for_people(folder, capsys):
    (folder / "bad.png").write_bytes(b"garbage")
    names = ["red.png", "bad.png"]
    assert main(["classify", *names, "--model", "model.onnx", "--format", "table"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "red.png", "  0.9999  red", "  0.0000  green", "  0.0000  blue", "bad.png", "  (failed)",
    ]  # fmt: skip


def test_labels_and_recipe_can_be_named(folder, capsys):
    (folder / "labels.txt").write_text("rouge\nvert\nbleu\n")
    arguments = ["--model", "model.onnx", "--labels", "labels.txt", "--backend", "onnxruntime"]
    assert main(["classify", "green.png", *arguments, "--top-k", "1"]) == 0
    assert json.loads(capsys.readouterr().out) == {"green.png": [[0.999909, "vert"]]}


def test_reads_stdin(folder):
    done = run("classify", "-", "--model", "model.onnx", input=png(picture("blue")))
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout)["-"][0][1] == "blue"
    empty = run("classify", "-", "--model", "model.onnx", input=b"")
    assert empty.returncode == 1
    assert "empty" in json.loads(empty.stdout)["-"]["error"]


def test_names_that_are_no_text_are_still_json(folder):
    name = os.fsdecode(b"caf\xe9.png")
    (folder / "red.png").rename(folder / name)
    done = run("classify", name, "--model", "model.onnx")
    assert done.returncode == 0, done.stderr
    assert next(iter(json.loads(done.stdout))) == name
    table = run("classify", name, "--model", "model.onnx", "--format", "table")
    assert table.returncode == 0, table.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "absent.onnx", "--recipe", "torchvision"], "absent.onnx"),
        (["--model", "absent.onnx"], "absent.onnx"),
        (["--model", "model.onnx", "--recipe", "nonsense"], "nonsense"),
        (["--model", "model.onnx", "--labels", "absent.txt"], "absent.txt"),
        (["--model", "model.onnx", "--top-k", "0"], "top_k = 0"),
        (["--model", "model.onnx", "--device", "0,x"], "'x' is no whole number"),
        (["--model", "model.onnx", "--device", "1,1"], "device=[1, 1]"),
    ],
)
def test_what_cannot_start_says_why(folder, capsys, arguments, said):
    assert main(["classify", "red.png", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert said in captured.err
    assert "Traceback" not in captured.err


def test_many_images_go_through(folder, capsys):
    names = []
    for index in range(60):
        names.append(f"{index}.png")
        (folder / names[-1]).write_bytes(png(picture(COLORS[index % 3], height=5 + index)))
    assert main(["classify", *names, "--model", "model.onnx", "--top-k", "1"]) == 0
    answers = json.loads(capsys.readouterr().out)
    assert [answers[name][0][1] for name in names] == list(COLORS) * 20


def test_reader_that_stops_is_no_error(folder):
    command = [sys.executable, "-m", "trtinfer", "classify", "red.png", "--model", "model.onnx"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 1


def test_usage_errors_and_version(capsys):
    for arguments, status in [([], 2), (["classify"], 2), (["nonsense"], 2), (["--version"], 0)]:
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == status
    assert trtinfer.__version__ in capsys.readouterr().out


def test_info_prints_the_same_facts_both_ways(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("TRTINFER_CACHE", str(tmp_path))
    assert main(["info", "--format", "json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert main(["info"]) == 0
    table = capsys.readouterr().out
    assert facts["cache"]["path"] == str(tmp_path)
    for value in (facts["cpu"]["model"], facts["onnxruntime"]["version"], str(tmp_path)):
        assert str(value) in table
    assert f"name: {facts['auto_backend']['name']}" in table
