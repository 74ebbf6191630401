"""Where a growing text is cut: after clauses, of lengths that grow with it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_rain.segments import Segments

SEGMENTS = Segments((10, 20), growth=0.5, marks=(".", ", "), max_length=30)


@pytest.mark.parametrize(
    ("held", "cut"),
    [
        ("One. Two.", None),  # nine characters: too few
        ("One. Two. Three", 9),  # after the last clause that ends
        ("One. Two, Three", 10),  # a mark may have several characters
        ("One and two.", None),  # that may be the end of all
        ("One and two. ", 12),
        ("x" * 30, None),
        ("x " * 20, 38),  # no clause ends: after the last space before something
        ("x" * 31, 30),
    ],
)
def test_a_segment_ends_with_its_last_clause(held: str, cut: int | None) -> None:
    assert SEGMENTS.cut(held, num_segments=0, num_before=0) == cut


def test_segments_grow_as_listed_and_with_what_came_before() -> None:
    text = "One. Two. Three. Four. Five. Six. Seven."
    lengths = [10, 20, 20, 30]  # half of 60 is more than 20

    def first_cut(num_segments: int, num_before: int) -> int:
        cuts = (
            SEGMENTS.cut(text[:end], num_segments=num_segments, num_before=num_before) for end in range(len(text) + 1)
        )
        return next(end for end, cut in enumerate(cuts) if cut is not None)

    cases = [(0, 0), (1, 10), (5, 40), (5, 60)]
    assert [first_cut(*case) for case in cases] == [length + 1 for length in lengths]


def test_without_a_longest_segment_a_text_without_marks_is_not_cut() -> None:
    assert Segments((4,), 0.0, (".",)).cut("x " * 1000, num_segments=0, num_before=0) is None


@given(st.text(alphabet="ab. ,", max_size=3000), st.sampled_from([0.25, 0.5, 1.0]), st.integers(1, 7))
def test_judging_the_text_up_to_each_cut_takes_time_in_proportion_to_it(text: str, growth: float, width: int) -> None:
    segments = Segments((8, 16), growth, (".", ","), 32)
    held, num_before = "", 0
    judged: list[int] = []
    for start in range(0, len(text), width):
        held += text[start : start + width]
        while (cut := segments.cut(held, num_segments=len(judged), num_before=num_before)) is not None:
            assert 0 < cut < len(held)
            num_before += cut
            held = held[cut:]
            judged.append(num_before)
    # Of two segments together the length is at least the share `growth` of all before, so of every second one the
    # lengths up to there are a geometric series.
    assert sum(judged) <= 2 * (1 + 1 / growth) * (len(text) + 32)
