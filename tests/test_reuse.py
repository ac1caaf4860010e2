"""The gate: thumbnails, what it repeats, and what it forgets."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinysaver_edge.errors import InputError
from tinysaver_edge.outputs import Outputs
from tinysaver_edge.reuse import (
    STEPS,
    Gate,
    ReuseRegion,
    ReuseRule,
    Thumbnailer,
    difference,
    total_variation,
)


def grey(level: float) -> np.ndarray:
    return np.full((16, 16), round(level * STEPS), np.int32)


def answer(*probabilities: float) -> Outputs:
    return Outputs.from_probabilities([probabilities])


class TestThumbnail:
    @pytest.mark.parametrize(
        "shape", [(1080, 1920, 3), (360, 640, 3), (17, 250, 3), (5, 3, 3), (1, 1, 3), (48, 48)]
    )
    def test_of_one_colour_is_that_colour(self, shape: tuple[int, ...]) -> None:
        made = Thumbnailer()(np.full(shape, 77, np.uint8))
        assert (made == 77 * STEPS).all()

    def test_weighs_green_twice(self) -> None:
        frame = np.zeros((64, 64, 3), np.uint8)
        frame[:] = (40, 80, 120)
        assert (Thumbnailer()(frame) == 80 * STEPS).all()
        frame[:] = (40, 0, 0)
        assert (Thumbnailer()(frame) == 10 * STEPS).all()

    @pytest.mark.parametrize(
        "shape", [(1080, 1920, 3), (720, 1280, 3), (360, 640, 3), (241, 333, 3)]
    )
    def test_is_near_the_area_average(self, shape: tuple[int, int, int]) -> None:
        cv2 = pytest.importorskip("cv2")
        rows, columns = np.mgrid[: shape[0], : shape[1]]
        smooth = 128 + 60 * np.sin(rows / shape[0] * 5) + 60 * np.cos(columns / shape[1] * 7)
        frame = np.repeat(smooth.astype(np.uint8)[:, :, None], 3, axis=2)
        wanted = cv2.resize(
            frame[:, :, 1].astype(np.float32), (16, 16), interpolation=cv2.INTER_AREA
        )
        assert np.abs(Thumbnailer()(frame) / STEPS - wanted).max() < 10

    def test_looks_at_its_region_alone(self) -> None:
        frame = np.zeros((200, 400, 3), np.uint8)
        frame[100:, 200:] = 50
        assert (Thumbnailer(ReuseRegion(0.5, 0.5, 0.5, 0.5))(frame) == 50 * STEPS).all()
        assert (Thumbnailer(ReuseRegion(0, 0, 0.5, 0.5))(frame) == 0).all()

    def test_follows_a_change_of_size(self) -> None:
        make = Thumbnailer()
        assert (make(np.full((90, 160, 3), 9, np.uint8)) == 9 * STEPS).all()
        assert (make(np.full((33, 60, 3), 200, np.uint8)) == 200 * STEPS).all()

    @pytest.mark.parametrize(
        "frame", [np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)]
    )
    def test_refuses_what_is_no_frame(self, frame: np.ndarray) -> None:
        with pytest.raises(InputError):
            Thumbnailer()(frame)


class TestRule:
    @pytest.mark.parametrize(
        "wrong",
        [
            {"still": -1}, {"still": math.nan}, {"still": 256}, {"same": 1.5}, {"same": -0.1},
            {"epoch_s": 0}, {"epoch_s": math.inf}, {"max_age_s": 0}, {"max_age_s": math.nan},
        ],
        ids=str,
    )  # fmt: skip
    def test_refuses_figures_out_of_range(self, wrong: dict[str, float]) -> None:
        with pytest.raises(InputError):
            ReuseRule(**{"still": 1.0, "same": 0.1, **wrong})

    @pytest.mark.parametrize(
        "sides", [(0, 0, 0, 1), (0.6, 0, 0.5, 1), (-0.1, 0, 0.5, 1), (0, 0, math.nan, 1)]
    )
    def test_refuses_a_region_outside(self, sides: tuple[float, float, float, float]) -> None:
        with pytest.raises(InputError):
            ReuseRegion(*sides)

    @pytest.mark.parametrize(
        ("text", "rule"),
        [
            ("still=2,same=0.1", ReuseRule(2, 0.1)),
            (" still = 2 ", ReuseRule(2, 0)),
            ("same=0.2,max_age_s=3,epoch_s=60", ReuseRule(0, 0.2, max_age_s=3, epoch_s=60)),
            ("still=1,region=0:0.5:1:0.5", ReuseRule(1, 0, region=ReuseRegion(0, 0.5, 1, 0.5))),
        ],
    )
    def test_is_read_from_a_command_line_and_written_as_there(
        self, text: str, rule: ReuseRule
    ) -> None:
        assert ReuseRule.parse(text) == rule
        assert ReuseRule.parse(str(rule)) == rule

    @pytest.mark.parametrize(
        "text",
        ["", "2", "still", "still=x", "still=2,still=3", "stil=2", "still=2,region=1:2", "still=-1",
         "same=nan", "still=2,region=0:0:0:0", "still=2;same=1", "region=a:b:c:d"],
    )  # fmt: skip
    def test_refuses_what_it_cannot_read(self, text: str) -> None:
        with pytest.raises(InputError):
            ReuseRule.parse(text)


class TestDistances:
    def test_of_thumbnails_is_in_grey_levels(self) -> None:
        assert difference(grey(10), grey(12.5)) == 2.5

    def test_of_answers_is_the_mass_that_moves(self) -> None:
        assert total_variation(answer(0.7, 0.2, 0.1), answer(0.5, 0.4, 0.1)) == pytest.approx(0.2)

    def test_of_the_best_classes_counts_the_rest_as_one(self) -> None:
        one = Outputs.from_topk([[0, 1]], [[0.6, 0.3]])
        other = Outputs.from_topk([[0, 2]], [[0.6, 0.2]])
        assert total_variation(one, other) == pytest.approx((0.3 + 0.2 + 0.1) / 2)
        assert total_variation(one, one) == 0


class TestGate:
    def rule(self, **more: float) -> ReuseRule:
        return ReuseRule(**{"still": 2.0, "same": 0.1, **more})

    def test_repeats_while_still(self) -> None:
        gate: Gate[str] = Gate(self.rule())
        assert gate.look("a", grey(10), 0.0).repeats is None
        assert gate.look("b", grey(11.9), 0.1).repeats == "a"
        assert gate.look("c", grey(12), 0.2).repeats is None  # not below the limit
        assert gate.look("d", grey(13), 0.3).repeats == "c"

    def test_a_slow_fade_is_held_against_the_last_decided_frame(self) -> None:
        gate: Gate[int] = Gate(self.rule(epoch_s=1e6))
        asked = [n for n in range(100) if gate.look(n, grey(10 + n * 0.1), n / 25).repeats is None]
        assert asked == list(range(0, 100, 20))

    def test_zero_repeats_nothing(self) -> None:
        gate: Gate[int] = Gate(ReuseRule(still=0, same=0))
        for n in range(3):
            look = gate.look(n, grey(10), n / 25)
            assert look.repeats is None
            assert gate.keeps(look, answer(0.5, 0.5)) is None

    def test_keeps_what_an_escalation_found(self) -> None:
        gate: Gate[str] = Gate(self.rule())
        assert gate.keeps(gate.look("a", grey(0), 0), answer(0.5, 0.5)) is None
        assert gate.keeps(gate.look("b", grey(50), 1), answer(0.55, 0.45)) == "a"
        assert gate.keeps(gate.look("c", grey(100), 2), answer(0.59, 0.41)) == "a"  # not drifting
        assert gate.keeps(gate.look("d", grey(150), 3), answer(0.65, 0.35)) is None
        assert gate.keeps(gate.look("e", grey(200), 4), answer(0.5, 0.5)) is None

    @pytest.mark.parametrize("limit", ["epoch_s", "max_age_s"])
    def test_forgets_at_the_start_of_each_stretch(self, limit: str) -> None:
        gate: Gate[int] = Gate(self.rule(**{"epoch_s": 100.0, limit: 2.0}))
        asked = [n for n in range(50) if gate.look(n, grey(10), 7.3 + n / 10).repeats is None]
        assert asked == [0, 20, 40]
        gate.forget()
        kept = [gate.keeps(gate.look(n, grey(n), 7.3 + n / 10), answer(1, 0)) for n in range(25)]
        assert kept == [None, *[0] * 19, None, *[20] * 4]

    def test_forgets_when_it_is_told_to(self) -> None:
        gate: Gate[int] = Gate(self.rule())
        gate.keeps(gate.look(0, grey(10), 5.0), answer(0.5, 0.5))
        gate.forget()
        look = gate.look(1, grey(10), 5.1)
        assert look.repeats is None
        assert gate.keeps(look, answer(0.5, 0.5)) is None

    @pytest.mark.parametrize("then_s", [4.0, 5.0, math.nan, -math.inf])
    def test_forgets_when_time_does_not_go_on(self, then_s: float) -> None:
        gate: Gate[int] = Gate(self.rule())
        gate.look(0, grey(10), 5.0)
        assert gate.look(1, grey(10), then_s).repeats is None

    def test_drops_an_answer_that_never_came(self) -> None:
        gate: Gate[str] = Gate(self.rule())
        gate.keeps(gate.look("a", grey(10), 0), answer(0.5, 0.5))
        gate.drop("a")
        look = gate.look("b", grey(10), 0.1)
        assert look.repeats is None
        assert gate.keeps(look, answer(0.5, 0.5)) is None

    @given(
        st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=60),
        st.floats(0.5, 20), st.floats(0, 1e6), st.sampled_from([0.5, 1.0, 3.0]),
    )  # fmt: skip
    def test_decides_the_same_whatever_its_times_begin_with(
        self, frames: list[tuple[int, int]], still: float, start_s: float, epoch_s: float
    ) -> None:
        def play(begin_s: float) -> list[tuple[int | None, int | None]]:
            gate: Gate[int] = Gate(ReuseRule(still, 0.2, epoch_s=epoch_s))
            told = []
            for n, (level, mass) in enumerate(frames):
                look = gate.look(n, grey(level), begin_s + n / 25)
                saver = answer(mass / 40, 1 - mass / 40)
                kept = gate.keeps(look, saver) if look.repeats is None else None
                told.append((look.repeats, kept))
            return told

        assert play(0.0) == play(start_s)

    @given(
        st.lists(
            st.tuples(st.integers(0, 20), st.floats(1e-6, 3), st.booleans()),
            min_size=1,
            max_size=80,
        ),
        st.sampled_from([0.7, 2.5, None]),
    )
    def test_never_repeats_what_is_older_than_allowed(
        self, frames: list[tuple[int, float, bool]], max_age_s: float | None
    ) -> None:
        rule = ReuseRule(5.0, 0.5, epoch_s=4.0, max_age_s=max_age_s)
        gate: Gate[int] = Gate(rule)
        now_s, taken_s, origin = 0.0, {}, {}
        for n, (level, pause_s, unsure) in enumerate(frames):
            now_s += pause_s
            taken_s[n] = now_s
            look = gate.look(n, grey(level), now_s)
            from_ = look.repeats
            if from_ is None and unsure:
                from_ = gate.keeps(look, answer(0.5 + level / 80, 0.5 - level / 80))
            origin[n] = n if from_ is None else origin[from_]
            assert now_s - taken_s[origin[n]] < rule.age_s + 1e-6
