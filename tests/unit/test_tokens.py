import numpy as np
import pytest

from knnlm.runtime.artifacts import ArtifactError, save_array, write_manifest
from knnlm.text.tokens import array_path, load_tokens, token_dtype

ARRAYS = {
    "tokens": np.array([0, 5, 6], dtype=np.uint16),
    "starts": np.array([0, 0, 3], dtype=np.int64),
    "documents": np.array([0, 3], dtype=np.int64),
    "words": np.array([0, 1, 1], dtype=np.uint8),
    "lines": np.array([0, 0, 1], dtype=np.uint8),
}


def artifact(folder, **changes):
    for name, array in (ARRAYS | changes).items():
        save_array(array_path(folder, "test", name), array)
    write_manifest(
        folder, kind="tokens", settings={}, made_from={}, contents={"vocabulary_size": 7}
    )
    return folder


def test_a_stream_is_opened_without_reading_it(tmp_path):
    stream = load_tokens(artifact(tmp_path), "test")

    assert stream.n_tokens == 3
    for name, array in ARRAYS.items():
        assert isinstance(getattr(stream, name), np.memmap)
        np.testing.assert_array_equal(getattr(stream, name), array)


@pytest.mark.parametrize(
    ("size", "expected"), [(257, np.uint16), (65_536, np.uint16), (65_537, np.uint32)]
)
def test_ids_take_two_bytes_while_they_fit_and_are_never_signed(size, expected):
    assert token_dtype(size) is expected
    assert np.iinfo(token_dtype(size)).max >= size - 1


@pytest.mark.parametrize("name", ["starts", "words", "lines", "documents"])
def test_arrays_that_do_not_fit_together_are_refused(tmp_path, name):
    artifact(tmp_path, **{name: ARRAYS[name][:-1]})

    with pytest.raises(ArtifactError, match=r"the arrays of test in .* to have 3 tokens"):
        load_tokens(tmp_path, "test")


def test_signed_tokens_are_refused(tmp_path):
    artifact(tmp_path, tokens=ARRAYS["tokens"].astype(np.int16))

    with pytest.raises(ArtifactError, match=r"test\.npy to hold uint16, got int16"):
        load_tokens(tmp_path, "test")
