"""Every status says what to do."""

from jaxgmm import Status


def test_every_status_has_a_sentence_of_its_own() -> None:
    sentences = {status.sentence for status in Status}
    assert len(sentences) == len(Status)
    assert all(sentence.endswith(".") and "\n" not in sentence for sentence in sentences)


def test_codes_are_stable() -> None:
    assert [(status.name, status.value) for status in Status] == [
        ("CONVERGED", 0),
        ("MAX_ITER", 1),
        ("DEGENERATE", 2),
        ("NONFINITE", 3),
        ("TOO_FEW_SAMPLES", 4),
    ]
