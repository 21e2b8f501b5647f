"""Classifier: sorted answers, labels and probabilities from any model, concurrent requests."""

from __future__ import annotations

import asyncio
import itertools
import threading

import numpy as np
import pytest
from classification import COLORS, SIZE, model, picture, png, ultralytics

import trtinfer
from trtinfer import Classifier, InputError, ModelError

RECIPE = trtinfer.Recipe(resize=SIZE, crop=SIZE)


@pytest.fixture(scope="module")
def classifier():
    with Classifier(model(), COLORS, RECIPE, backend="onnxruntime") as classifier:
        yield classifier


def test_answers_are_sorted_pairs_of_probability_and_label(classifier):
    answer = classifier(picture("green"), top_k=3)
    assert [label for _, label in answer] == ["green", "red", "blue"]
    assert [type(value) for value in answer[0]] == [float, str]
    assert answer[0][0] == pytest.approx(np.exp(10) / (np.exp(10) + 2), abs=1e-6)


def test_takes_every_kind_of_image(classifier, tmp_path):
    path = tmp_path / "blue.png"
    path.write_bytes(png(picture("blue")))
    for image in (path, str(path), path.read_bytes(), picture("blue")):
        assert classifier(image, top_k=1)[0][1] == "blue"
    with path.open("rb") as file:
        assert classifier(file, top_k=1)[0][1] == "blue"


def test_top_k_is_clamped_to_the_class_count(classifier):
    for top_k, length in [(1, 1), (2, 2), (3, 3), (4, 3), (np.int64(5), 3), (10**9, 3)]:
        assert len(classifier(picture("red"), top_k)) == length


@pytest.mark.parametrize("top_k", [0, -1, 1.5, "5", None])
def test_refuses_a_top_k_that_is_no_count(classifier, top_k):
    for call in (classifier, classifier.submit):
        with pytest.raises(InputError, match="got top_k = "):
            call(picture("red"), top_k)
    with pytest.raises(InputError, match="got top_k = "):
        asyncio.run(classifier.aclassify(picture("red"), top_k))


def test_ties_keep_the_order_of_classes():
    weights = np.zeros((3, 50))
    weights[0, 17:31] = 4
    with Classifier(model(weights=weights), recipe=RECIPE, backend="onnxruntime") as classifier:
        labels = [label for _, label in classifier(picture("red"), top_k=20)]
    expected = [*range(17, 31), *range(6)]
    assert labels == [f"class {index}" for index in expected]


@pytest.mark.parametrize("gain", [10, 0.1, -3])
def test_logits_become_probabilities(gain):
    weights = np.eye(3) * gain
    with (
        Classifier(model(softmax=False, weights=weights), COLORS, RECIPE) as logits,
        Classifier(model(softmax=True, weights=weights), COLORS, RECIPE) as probabilities,
    ):
        assert (logits.softmax, probabilities.softmax) == (True, False)
        for color in COLORS:
            expected = probabilities(picture(color))
            answer = logits(picture(color))
            assert [p for p, _ in answer] == pytest.approx([p for p, _ in expected], abs=1e-6)
            assert [n for _, n in answer] == [n for _, n in expected]


def test_log_probabilities_become_probabilities():
    with Classifier(model(op="LogSoftmax"), COLORS, RECIPE) as classifier:
        assert sum(p for p, _ in classifier(picture("red"))) == pytest.approx(1)


def test_scores_that_look_like_probabilities_once_are_still_logits():
    """Two classes whose logits for this one image are in 0..1 and add up to 1."""
    weights = [[0.3, 0.7], [1.0, 2.0], [0.1, 0.2]]
    with Classifier(model(softmax=False, weights=weights), ["a", "b"], RECIPE) as classifier:
        assert classifier(picture("red"))[0][0] == pytest.approx(1 / (1 + np.exp(-0.4)), abs=1e-6)


def test_softmax_can_be_chosen():
    weights = np.eye(3)  # as of a model with a sigmoid for each class
    with Classifier(model(softmax=False, weights=weights), COLORS, RECIPE, softmax=False) as many:
        assert many(picture("red")) == [(1.0, "red"), (0.0, "green"), (0.0, "blue")]


def test_large_logits_do_not_overflow():
    with Classifier(model(softmax=False, weights=np.eye(3) * 5000), COLORS, RECIPE) as classifier:
        assert classifier(picture("blue"), 1) == [(1.0, "blue")]


def test_nan_scores_are_an_error_and_no_answer():
    weights = np.full((3, 3), np.nan)
    with (
        Classifier(model(softmax=False, weights=weights), COLORS, RECIPE) as classifier,
        pytest.raises(trtinfer.BackendError, match="'answer' has NaN"),
    ):
        classifier(picture("red"))


def test_outputs_with_axes_of_one_are_accepted():
    with Classifier(model(trailing=(3, 1, 1)), COLORS, RECIPE) as classifier:
        assert classifier(picture("green"), 1)[0][1] == "green"


def test_models_of_ultralytics_need_no_arguments(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(ultralytics())
    for source in (path, str(path), ultralytics()):
        with Classifier(source) as classifier:
            assert classifier.labels == COLORS
            assert classifier(picture("green"), 1)[0][1] == "green"


def test_labels_given_win_over_the_models():
    with Classifier(ultralytics(), ["rouge", "vert", "bleu"]) as classifier:
        assert classifier(picture("green"), 1)[0][1] == "vert"


def test_other_models_must_be_told_their_recipe():
    with pytest.raises(ModelError, match=r"does not say how .* pass recipe=.*torchvision"):
        Classifier(model(), COLORS)


def test_refuses_labels_that_do_not_fit():
    with pytest.raises(InputError, match="got 2 labels, but the model has 3 classes"):
        Classifier(model(), ["a", "b"], RECIPE)


def test_refuses_models_that_do_not_classify():
    with pytest.raises(ModelError, match=r"'answer' has shape \(3, 2\).*no row of class scores"):
        Classifier(model(weights=np.ones((3, 6)), trailing=(3, 2), softmax=False), None, RECIPE)


def test_bad_image_fails_alone(classifier):
    for call in (classifier, lambda image: classifier.submit(image).result()):
        with pytest.raises(InputError, match="9 bytes"):
            call(b"not a png")
    assert classifier(picture("red"), 1)[0][1] == "red"


def test_futures_resolve_to_answers(classifier):
    futures = [classifier.submit(picture(color), top_k=1) for color in COLORS * 20]
    assert [future.result(10)[0][1] for future in futures] == list(COLORS * 20)


def test_asyncio_callers_get_their_own_answers(classifier):
    async def main():
        calls = [classifier.aclassify(picture(color), 1) for color in COLORS * 20]
        return await asyncio.gather(*calls)

    assert [answer[0][1] for answer in asyncio.run(main())] == list(COLORS * 20)


def test_many_images_come_back_in_order(classifier):
    answers = classifier.classify_many((picture(color) for color in COLORS * 40), top_k=2)
    assert [answer[0][1] for answer in answers] == list(COLORS * 40)
    assert {len(answer) for answer in answers} == {2}
    with pytest.raises(InputError, match="NoneType"):
        classifier.classify_many([picture("red"), None])


def test_stream_goes_on_after_a_bad_image_and_reads_only_ahead(classifier):
    taken = []

    def endless():
        for count in itertools.count():
            taken.append(count)
            yield b"bad" if count % 3 == 1 else picture("red")

    before = threading.active_count()
    answers = list(itertools.islice(classifier.stream(endless(), 1), 9))
    assert [isinstance(answer, InputError) for answer in answers] == [False, True, False] * 3
    assert len(taken) <= 9 + 33
    assert threading.active_count() <= before + 33


def test_stream_waits_where_the_session_is_full():
    image_bytes = 100 * 100 * 3
    options = {"capacity": 2, "max_batch_size": 2, "arena_bytes": 20 * image_bytes}
    with Classifier(ultralytics(), **options) as classifier:
        answers = classifier.classify_many([picture("blue", 100, 100)] * 100, top_k=1)
        assert [answer[0][1] for answer in answers] == ["blue"] * 100


def test_stream_left_early_stops_its_threads(classifier):
    before = threading.active_count()
    for answer in classifier.stream(itertools.repeat(picture("red")), 1):
        assert answer[0][1] == "red"
        break
    assert threading.active_count() <= before


def test_request_options_are_passed_on(classifier):
    with pytest.raises(trtinfer.DeadlineExceededError):
        classifier(picture("red"), timeout=-1.0)
    with pytest.raises(trtinfer.DeadlineExceededError):
        classifier.submit(picture("red"), timeout=-1.0).result(10)
    assert classifier(picture("red"), 1, timeout=10.0, priority=1)[0][1] == "red"


def test_closed_classifier_says_so():
    classifier = Classifier(model(), COLORS, RECIPE)
    classifier.close()
    with pytest.raises(trtinfer.ClosedError):
        classifier(picture("red"))


def test_threads_share_one_classifier(classifier):
    wrong = []

    def work(color):
        for _ in range(30):
            if classifier(picture(color), 1)[0][1] != color:
                wrong.append(color)

    threads = [threading.Thread(target=work, args=(color,)) for color in COLORS * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
