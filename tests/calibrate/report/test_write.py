import re
from dataclasses import replace
from datetime import datetime
from html.parser import HTMLParser

import numpy as np
import pytest

from tests.calibrate.report.world import EMPIRICAL, finished, problem
from tests.pictures import class_folders
from tinysaver_edge.bundle.manifest import DisagreementEntry
from tinysaver_edge.calibrate.calibration import Candidate
from tinysaver_edge.calibrate.chosen.choose import hardly_worth_it, with_intervals
from tinysaver_edge.calibrate.problem import Problem
from tinysaver_edge.calibrate.report import write_report
from tinysaver_edge.calibrate.report.numbers import milliseconds
from tinysaver_edge.calibrate.report.proof import USUAL_LEVEL
from tinysaver_edge.calibrate.report.tradeoff import _beside
from tinysaver_edge.calibrate.report.write import render
from tinysaver_edge.calibrate.targets import Budgets, Method, Targets
from tinysaver_edge.data.files import open_data
from tinysaver_edge.latency import LatencySamples
from tinysaver_edge.stream.drift.drift import DEFAULT_DRIFT, DriftWatch

EVIL = '<script>alert("x")</script>&amp;'
VOID = {"meta", "link", "br", "img", "wbr"}
LOADING = {"src", "href", "srcset", "action", "data", "poster", "background", "xlink:href"}


class Page(HTMLParser):
    """Reads a page, insists that every element is closed, and keeps what could load something."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.loads, self.words = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.handle_startendtag(tag, attributes)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.loads += [value for name, value in attributes if name in LOADING]
        assert not any(name.startswith("on") for name, _ in attributes)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def shown(page):
    return " ".join(" ".join(page.words).split())


@pytest.fixture(scope="module")
def with_images(tmp_path_factory):
    folder = class_folders(
        tmp_path_factory.mktemp("data"), classes=["a", "b", "c"], each=100, size=16
    )
    with open_data(folder) as data:
        yield finished(problem(300)).facts(
            data=data,
            sample_index=np.arange(300),
            label_names=[EVIL, "b", "c", "d", "e"],
            command=f"tinysaver-edge calibrate --data '{EVIL}' --max-drop 1",
            created=datetime(2026, 1, 2),
        )


def test_every_element_is_closed_and_nothing_is_loaded(with_images):
    page = Page(render(with_images))
    assert "script" not in page.tags
    assert {load.partition(",")[0] for load in page.loads} == {"data:", "data:image/jpeg;base64"}
    assert page.tags.count("img") == len(with_images.pictures) > 12


def test_the_style_loads_nothing(with_images):
    text = render(with_images)
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    assert "@import" not in style
    assert "url(" not in style
    assert set(re.findall(r"url\([^)]*\)", text)) == set(re.findall(r"url\(#[a-z-]+\)", text))
    assert "http:" not in text
    assert "https:" not in text


def test_words_of_the_user_are_words_and_no_markup(with_images):
    text = render(with_images)
    assert EVIL not in text
    assert EVIL in "".join(Page(text).words)


def test_model_names_are_escaped_in_the_charts_too():
    given = problem()
    savers = tuple(replace(one, name=f"{one.name}{EVIL}") for one in given.savers)
    facts = finished(Problem(replace(given.large, name=EVIL), savers, given.labels)).facts()
    text = render(facts)
    assert EVIL not in text
    assert "script" not in Page(text).tags


def test_clip_paths_have_names_of_their_own(with_images):
    ids = re.findall(r' id="([^"]+)"', render(with_images))
    assert len(ids) == len(set(ids)) > 0


@pytest.mark.parametrize("method", list(Method), ids=[one.value for one in Method])
def test_every_method_has_its_report(method):
    given = problem(3000)
    facts = finished(given, targets=Targets(method=method, max_drop_points=4.0)).facts()
    words = shown(Page(render(facts)))
    assert ("There is none." in words) == (facts.proof is None)
    assert (facts.proof is None) == (method is not Method.CERTIFIED)


def test_what_every_method_would_choose_stands_in_a_table():
    done = finished(problem(3000), holdout=problem(500, seed=4), methods=True)
    words = shown(Page(render(done.facts())))
    assert "What every method would choose" in words
    for row in done.result.methods:
        assert f"{row.method.value} {row.saver or 'none'}" in words
        assert row.promise in words
        if row.saver is None:
            assert row.why in words
    assert "What every method" not in shown(Page(render(finished().facts())))


@pytest.mark.parametrize("held_out", [True, False])
def test_what_the_drift_watch_is_promised_is_printed_as_a_device_tests_it(held_out):
    promised = DisagreementEntry(
        accepted=1284, disagreed=32, held_out=held_out, choices=1, confidence=0.95, upper=0.0333
    )
    made = finished()
    told = replace(made, result=replace(made.result, disagreement=promised))
    words = shown(Page(render(told.facts()))).replace("\u00a0", " ")
    assert f"Of 1,284 accepted {'hold-out' if held_out else 'calibration'} samples" in words
    assert "answered 32 otherwise (2.49 %)" in words
    assert DEFAULT_DRIFT.level == USUAL_LEVEL
    tested = DriftWatch(promised, clock=lambda: 0.0).promised
    assert f"more than {100 * tested:.2f} % is drift" in words
    assert "What the device watches" not in shown(Page(render(made.facts())))


def test_a_certificate_is_printed_with_its_counts():
    facts = finished(problem(4000), targets=Targets(max_drop_points=3.0)).facts()
    words = shown(Page(render(facts)))
    assert facts.proof.statement in words
    for sentence in facts.proof.sentences:
        assert sentence in words
    for name, value in facts.proof.counts:
        assert f"{name} {' '.join(value.split())}" in words


def test_warnings_a_better_model_and_a_bad_holdout_are_told():
    held = problem(300, seed=11)
    done = finished(holdout=held, warnings=("3 images could not be read",))
    facts = replace(done.facts(), better_alone="small alone serves better than the cascade")
    words = shown(Page(render(facts)))
    assert "3 images could not be read" in words
    assert "A single model would do. small alone serves better" in words
    above = done.result.holdout.drop_points > 1.0
    assert ("above the 1 asked for" in words) == above
    worse = replace(
        facts, result=replace(done.result, holdout=replace(done.result.holdout, drop_points=1.5))
    )
    assert "1.50 points, above the 1 asked for" in shown(Page(render(worse)))


def test_every_candidate_has_its_intervals():
    done = finished()
    words = shown(Page(render(done.facts())))
    accepting = [row for row in done.result.candidates if row.threshold is not None]
    assert len(accepting) == 2
    for row in accepting:
        for low, high in (row.cost_interval, row.drop_interval_points, row.accuracy_interval):
            assert low < high
        assert row.cost_interval[0] < row.cost_macs_ratio < row.cost_interval[1]
        assert f"({row.cost_interval[0]:.3f} to {row.cost_interval[1]:.3f})" in words
        assert f"({100 * row.accept_interval[0]:.1f} to " in words
        ends = [f"{one:+.2f}".replace("-", "−") for one in row.drop_interval_points]
        assert f"({ends[0]} to {ends[1]})" in words
    assert "95 % intervals on other samples like these" in words


def test_intervals_hold_what_other_samples_show():
    """On as many samples again as make a truth; the threshold being fixed."""
    whole = problem(20_000, seed=4)
    done = finished(whole)
    rng = np.random.default_rng(0)
    misses = np.zeros(4)
    for _ in range(30):
        part = whole.subset(rng.choice(20_000, 500, replace=False))
        here = [replace(one, evidence=np.arange(500)) for one in done.proposals]
        for one, truth in zip(here, done.choice.candidates, strict=True):
            if truth.threshold is None:
                continue
            (row,) = with_intervals(part, [one], [truth])
            told = (row.drop_interval_points, row.cost_interval, row.accept_interval)
            true = (truth.drop_points, truth.cost_macs_ratio, truth.accept_rate)
            misses[:3] += [not a <= value <= b for (a, b), value in zip(told, true, strict=True)]
            misses[3] += 1
    assert (misses[:3] <= 0.08 * misses[3]).all(), misses


def test_rows_without_a_threshold_are_left_open():
    done = finished()
    lost = Candidate(saver="crashed", kappa=0.4, why="crashed while it was measured")
    result = replace(done.result, candidates=(*done.result.candidates, lost))
    assert "crashed κ 0.400 crashed while" in shown(
        Page(render(replace(done, result=result).facts()))
    )
    # With 400 samples half a point cannot be certified for the poor one: no threshold at all.
    facts = finished(problem(4000), targets=Targets(max_drop_points=1.0)).facts()
    assert any(one.point is None for one in facts.candidates)
    Page(render(facts))


def test_many_classes_are_summed_up():
    facts = finished(problem(2000, classes=40)).facts(
        label_names=[f"kind number {number}" for number in range(40)]
    )
    text = render(facts)
    words = shown(Page(text))
    assert "Those that lose most" in words
    assert "Of 40 classes" in words
    assert words.count("kind number") == 24
    assert text.count("<svg") > render(finished().facts()).count("<svg")


def test_measured_times_have_their_own_part():
    given = problem()
    timed = replace(
        given,
        large=replace(given.large, latency=LatencySamples(np.array([2.0]))),
        savers=tuple(replace(s, latency=LatencySamples(np.array([0.25]))) for s in given.savers),
    )
    words = shown(Page(render(finished(timed).facts(machine="a bench"))))
    assert "Measured on a bench." in words
    assert "2.00 ms" in words
    assert "mean latency" in words
    assert "Latency" not in shown(Page(render(finished().facts())))


def test_energy_and_uplink_stand_beside_each_candidate_where_they_are_known():
    given = problem()
    assert "<th>energy</th>" not in render(finished(given).facts())
    energy = {"large": 90.0, "tiny": 4.0, "small": 9.0, "poor": 12.0}
    large = replace(given.large, energy_mj=energy["large"], sent_bytes=12_500.0)
    savers = [replace(one, energy_mj=energy[one.name]) for one in given.savers]
    done = finished(replace(given, large=large, savers=tuple(savers)))
    page = render(done.facts())
    Page(page)
    row = next(one for one in done.result.candidates if one.chosen)
    for unit, (mean, held) in (("mJ", row.energy_mj), ("kbit", row.uplink_kbit)):
        assert f'{mean:.3g}&nbsp;{unit} <span class="soft spread">({held:.3g})</span>' in page
    assert row.uplink_kbit[0] == pytest.approx(100 * (1 - row.accept_rate))


def test_only_a_budget_and_nothing_accepted_are_drawn_as_well():
    budget = replace(EMPIRICAL, max_drop_points=None, budgets=Budgets(escalation_rate=0.5))
    Page(render(finished(targets=budget).facts()))
    given = problem()
    poor = replace(given, savers=given.savers[-1:])
    nothing = finished(poor, targets=replace(EMPIRICAL, max_drop_points=0.0)).facts()
    assert "Every frame goes to large" in shown(Page(render(nothing)))


def test_written_whole_and_small(with_images, tmp_path):
    path = tmp_path / "new" / "report.html"
    write_report(with_images, path)
    assert path.read_text(encoding="utf-8") == render(with_images)
    assert path.stat().st_size < 1_500_000
    assert list(path.parent.iterdir()) == [path]


def test_words_are_explained_where_they_first_stand(with_images):
    """And once more at the end, unfolded: a printed page opens nothing."""
    text = render(with_images)
    words = shown(Page(text))
    body = words[words.index("What it does") : words.index("Accuracy against cost")]
    margin = "its margin, the probability of its likeliest class minus that of the second,"
    assert "Drop : points of accuracy that the cascade loses" in body
    assert margin in body
    assert "escalated : the large model is asked" in body
    assert "κ : the saver's MACs over the large model's" in words
    assert "details" not in Page(text).tags
    end = words[words.index("What the words mean") :]
    for word in ("accepted, escalated", "fused", "certified", "hold-out", "κ, cost", "MACs"):
        assert word in end


def test_a_gain_is_called_one():
    done = finished()
    gain = replace(done.result.calibration, drop_points=-0.2)
    words = shown(
        Page(render(replace(done, result=replace(done.result, calibration=gain)).facts()))
    )
    assert "gains 0.20" in words
    assert "0.20 points of accuracy were gained" in words
    assert "\u22120.20" not in words


def test_one_score_of_all_is_said_once_and_several_in_a_column():
    facts = finished().facts()
    assert "Every saver's score is margin." in shown(Page(render(facts)))
    first, *others = facts.candidates
    other = replace(first, row=replace(first.row, score="entropy", fusion="linear"))
    words = shown(Page(render(replace(facts, candidates=(other, *others)))))
    assert "Every saver's score" not in words
    assert "entropy, fused by linear" in words


def timed(given):
    """The same models with times and memory."""
    each = {"tiny": 1.0, "small": 4.0, "poor": 9.0, "large": 60.0}

    def with_times(one):
        return replace(one, latency=LatencySamples.published(each[one.name]), memory_mb=10.0)

    return replace(
        given,
        large=with_times(given.large),
        savers=tuple(with_times(one) for one in given.savers),
    )


def test_where_the_frames_of_three_stages_end():
    made = finished(timed(problem(3000, classes=30)), targets=Targets(max_drop_points=3))
    facts = made.facts()
    flow, policy = facts.flow, made.result.policy
    assert [one.model for one in flow.stages] == [stage.model for stage in policy.stages]
    assert len(flow.stages) == 3
    assert [one.settled for one in flow.stages] == list(made.result.calibration.settled)
    reached = [one.reached for one in flow.stages]
    assert reached == pytest.approx(
        [1, 1 - flow.stages[0].settled, flow.stages[2].settled], abs=1e-12
    )
    assert sum(one.cost for one in flow.stages) == pytest.approx(
        made.result.calibration.cost_macs_ratio
    )
    takes = {"tiny": 1.0, "small": 4.0, "poor": 9.0, "large": 60.0}
    assert [one.mean_ms for one in flow.stages] == pytest.approx(
        [takes[one.model] for one in flow.stages]
    )
    second = flow.stages[1]
    trip_ms = second.mean_ms / (second.settled / second.reached)
    assert f"only where a trip takes less than {milliseconds(trip_ms)}" in flow.place
    assert "only large may run on another host" in flow.place
    two = min(
        row.cost_macs_ratio
        for row in made.result.candidates
        if row.feasible and "→" not in row.saver
    )
    assert f"→ large, cost {two:.3f}: the longer cascade saves" in flow.beside
    assert "for 10 MB more memory (30 in all)" in flow.beside
    page = render(facts)
    Page(page)
    shares = [f"{100 * one.settled:.1f} of 100 end here" for one in flow.stages]
    assert all(page.count(share) >= 2 for share in shares)  # one chart each for wide and narrow


def test_two_stages_have_no_flow():
    assert finished(problem(600)).facts().flow is None


def test_a_longer_cascade_that_saves_little_says_what_does_without_it():
    given = problem(3000)
    dear = replace(given.savers[1], macs=0.9 * given.large.macs)
    made = finished(
        replace(given, savers=(given.savers[0], dear)), targets=Targets(max_drop_points=3)
    )
    longer = next(row for row in made.choice.candidates if "→" in row.saver)
    best = next(row for row in made.choice.candidates if "→" not in row.saver and row.feasible)
    rows = [
        replace(longer, chosen=True, cost_macs_ratio=0.99 * best.cost_macs_ratio),
        *(replace(r, chosen=False) for r in made.choice.candidates if r is not longer),
    ]
    order = [next(one for one in made.proposals if one.name == row.saver) for row in rows]
    chosen = replace(made.choice, proposal=order[0], candidates=tuple(rows))
    said = _beside(order, chosen)
    assert "saves 1.0 % of that. For so little --max-stages 2 does" in said.replace("\xa0", " ")
    assert "saves 1.0 % beside" in hardly_worth_it(chosen)[0]
    rows[0] = replace(rows[0], cost_macs_ratio=1.1 * best.cost_macs_ratio)  # the most accurate
    chosen = replace(chosen, candidates=tuple(rows))
    assert hardly_worth_it(chosen) == []
    assert "saves no MACs beside them" in (said := _beside(order, chosen))
    assert "--max-stages" not in said
