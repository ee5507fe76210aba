"""Files are written completely or not at all, whoever else writes them."""

from jaxgmm.tables import atomic


def test_two_writers_do_not_see_each_others_unfinished_file(tmp_path):
    path = tmp_path / "file"
    with atomic.written(path) as first:
        first.write(b"first")
        with atomic.written(path) as second:
            second.write(b"second, and longer")
        assert path.read_bytes() == b"second, and longer"
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]
