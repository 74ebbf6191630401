"""Where a text that arrives piece by piece is cut, to be judged up to there."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Segments:
    """How long the segments of a growing text are, in characters.

    Attributes:
        lengths: how much is held at least before it is cut, the first time, the second time, and so on; the last
            repeats.
        growth: the share of what was cut off before that is held at least; with any share above 0, judging the whole
            text up to each cut takes time in proportion to the text.
        marks: what a clause ends with, none empty.
        max_length: how much is held at most for want of a mark; None for no limit.
    """

    lengths: tuple[int, ...]
    growth: float
    marks: tuple[str, ...]
    max_length: int | None = None

    def cut(self, held: str, *, num_segments: int, num_before: int) -> int | None:
        """The length of the segment at the beginning of a text, something of which is left; None to wait for more.

        It ends with its last clause; after its last space, where no clause ends; and anywhere, where there is none.

        Args:
            held: the text.
            num_segments: how many segments came before.
            num_before: how long they were together.
        """
        length = max(self.lengths[min(num_segments, len(self.lengths) - 1)], int(self.growth * num_before))
        if len(held) <= length:
            return None
        end = max(self._after(mark, held) for mark in self.marks)
        if end > 0:
            return end
        if self.max_length is None or len(held) <= max(length, self.max_length):
            return None
        spaces = (index for index in range(len(held) - 1, 0, -1) if held[index - 1].isspace())
        return next(spaces, len(held) - 1)

    @staticmethod
    def _after(mark: str, held: str) -> int:
        start = held.rfind(mark, 0, len(held) - 1)
        return start + len(mark) if start >= 0 else 0
