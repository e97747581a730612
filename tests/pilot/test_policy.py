"""Policy files: what is refused, what names a version, and what they decide."""

import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from eta_core.evidence.policy import POLICIES
from pilot import cli, journal, policy, trust
from pilot.policy import PolicyError, load
from pilot.review.desk import Desk
from pilot.review.store import Person, ReviewError, Store

from . import reviewed

FREE = {"limits": "free"}
SHA = "a" * 64


def written(folder, rules):
    path = folder / "mine.json"
    path.write_text(json.dumps(rules))
    return str(path)


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ({}, "limits nothing"),
        ({"eyes": 1}, "limits is missing"),
        (FREE | {"eye": 1}, "eye is no key of a policy: the keys are limits, eyes"),
        ({"limits": "strict"}, 'limits is "strict": no limits have this name'),
        ({"limits": 3}, "limits is 3"),
        ({"limits": {"nosuch": {"pass": {"min": 1}}}}, "nosuch, which is no metric"),
        ({"limits": {}}, "limits nothing"),
        (FREE | {"eyes": 3}, "eyes is 3"),
        (FREE | {"eyes": True}, "eyes is true"),
        (FREE | {"share": 101}, "share is 101"),
        (FREE | {"share": "5"}, 'share is "5"'),
        (FREE | {"reasons": []}, r"reasons is \[\]"),
        (FREE | {"reasons": ["dull"]}, 'reasons.0 is "dull"'),
        (FREE | {"reasons": ["brand", "brand"]}, "twice"),
        (FREE | {"marks": "exif"}, 'marks is "exif"'),
        (FREE | {"rights": 1}, "rights is 1"),
        (FREE | {"alarm": {"last": 3, "failures": 3}}, "never more"),
        (FREE | {"alarm": {"last": 0, "failures": 0}}, "alarm.last is 0"),
        (FREE | {"alarm": {"last": 3}}, "alarm.failures is missing"),
        (FREE | {"alarm": {"last": 3, "failures": 1, "counts": ["pass"]}}, 'alarm.counts.0 is "pass"'),
        (FREE | {"trust": {"items": 0}}, "trust.items is 0"),
        (FREE | {"models": [{"name": "a", "sha256": "b"}]}, 'models.0.sha256 is "b"'),
        (FREE | {"models": {"a": SHA}}, "models is "),
    ],
)
def test_a_wrong_key_is_named_with_its_value_and_rule(tmp_path, rules, said):
    with pytest.raises(PolicyError, match=f"mine.json: .*{said}"):
        load(written(tmp_path, rules))


def test_a_name_that_is_no_policy_is_refused():
    with pytest.raises(PolicyError, match="neither catalogue-strict.*nor a file"):
        load("nosuch")


@pytest.mark.parametrize("name", policy.TEMPLATES)
def test_a_template_has_eta_verdicts_limits_and_a_copy_its_version(tmp_path, name):
    assert load(name).limits == POLICIES[name]
    assert cli.main(["policy", "copy", name, str(tmp_path / "mine.json")]) == 0
    copied = load(str(tmp_path / "mine.json"))
    assert copied.version == load(name).version and copied.limits == POLICIES[name]
    assert copied.rules.models == []
    assert cli.main(["policy", "copy", name, str(tmp_path / "mine.json")]) == 1


def test_a_version_is_the_rules_not_their_layout_or_models(tmp_path):
    one = load(written(tmp_path, FREE | {"eyes": 1, "share": 5}))
    same = load(written(tmp_path, {"share": 5.0, "limits": "free", "models": [{"name": "m", "sha256": SHA}]}))
    assert one.version == same.version
    for key, value in {"eyes": 2, "share": 6, "marks": "c2pa", "rights": True, "limits": "social"}.items():
        assert load(written(tmp_path, FREE | {key: value})).version != one.version


def test_a_file_of_limits_alone_still_works(tmp_path):
    found = load(written(tmp_path, {"changed_area": {"pass": {"min": 1}}}))
    assert list(found.limits) == ["changed_area"] and found.rules.alarm is None and found.rules.models is None


def test_show_says_every_rule(tmp_path, capsys):
    rules = FREE | {"eyes": 2, "alarm": {"last": 9, "failures": 2}, "marks": "c2pa", "models": []}
    assert cli.main(["policy", "show", written(tmp_path, rules)]) == 0
    said = capsys.readouterr().out
    assert "two people see" in said and "more than 2 of the last 9" in said and "C2PA" in said
    assert "models that passed: none" in said and load(str(tmp_path / "mine.json")).version in said


def with_rules(folder, rules, verdicts=reviewed.VERDICTS):
    found = load(written(folder, rules))
    out = reviewed.make_run(folder / "run", verdicts)
    run = journal.load(out)
    assert run
    run["settings"] = {"workflow": "w.json", "policy": found.name, "policy_version": found.version}
    run |= {"rules": found.told, "models": {"m": {"sha256": SHA}}, "tasks": len(verdicts)}
    journal.save(out, run)
    return out


def test_the_review_takes_eyes_share_and_reasons_from_the_policy(tmp_path):
    out = with_rules(tmp_path, FREE | {"eyes": 2, "share": 100, "reasons": ["brand"]})
    desk = Desk(out, Store(out))
    assert (desk.eyes, desk.share) == (2, 100) and len(desk.items()) == 5
    one = desk.items()[0]
    with pytest.raises(ReviewError, match="a reason of brand"):
        desk.vote(Person("Anna", "reviewer"), one.key, one.binding, "reject", "rights")
    desk.vote(Person("Anna", "reviewer"), one.key, one.binding, "reject", "brand")
    assert Desk(out, Store(out), share=0).share == 0


def test_a_decision_is_void_under_another_version(tmp_path):
    out = with_rules(tmp_path, FREE)
    desk, store = Desk(out, Store(out)), Store(out)
    one = desk.items()[0]
    desk.vote(Person("Anna", "reviewer"), one.key, one.binding, "approve")
    run = journal.load(out)
    assert run
    run["settings"]["policy_version"] = SHA
    journal.save(out, run)
    desk.sync()
    assert store.votes() == []


def test_marks_that_nobody_can_write_refuse_the_export(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("ETA_C2PA_CERTIFICATE", raising=False)
    out = with_rules(tmp_path, FREE | {"marks": "c2pa"})
    desk = Desk(out, Store(out))
    one = desk.items()[0]
    desk.vote(Person("Anna", "reviewer"), one.key, one.binding, "approve")
    assert cli.main(["export", str(out), "--out", str(tmp_path / "given")]) == 1
    assert "wants signed pictures" in capsys.readouterr().err and not (tmp_path / "given").exists()


@pytest.mark.parametrize(
    ("verdicts", "change", "said"),
    [
        (["pass"] * 3, {"trust": {"items": 4, "passed": 50}}, "at least 4"),
        (["pass", "reject", "review"], {"trust": {"items": 1, "passed": 50}}, "passed 33 % of 3"),
        (["pass"] * 3, {"tasks": 4}, "3 of 4 results"),
        (["pass"] * 3, {"version": SHA}, "was judged by version aaaa"),
        (["pass"] * 3, {"models": {"m": {}}}, "no sha256 of m"),
        (["pass"] * 3, {"alarm": True}, "had an alarm"),
    ],
)
def test_weights_are_not_trusted_for_a_run_that_does_not_meet_the_policy(tmp_path, verdicts, change, said):
    rules = FREE | {"models": [], "trust": change.get("trust", {"items": 1, "passed": 50})}
    out = with_rules(tmp_path, rules, verdicts)
    run = journal.load(out)
    assert run
    run |= {name: change[name] for name in ("tasks", "models") if name in change}
    run["settings"]["policy_version"] = change.get("version", run["settings"]["policy_version"])
    journal.save(out, run)
    if change.get("alarm"):
        ring = {"id": "a" * 32, "time": "", "failed": 1, "of": 1, "limit": 0, "counts": [], "items": []}
        (out / "alarm.json").write_text(json.dumps({"rings": [ring]}))
    before = (tmp_path / "mine.json").read_bytes()
    with pytest.raises(PolicyError, match=said):
        trust.add(str(tmp_path / "mine.json"), out, "Olga")
    assert (tmp_path / "mine.json").read_bytes() == before


def test_trust_keeps_the_rules_and_adds_a_hash_once(tmp_path):
    out = with_rules(tmp_path, FREE | {"models": [], "trust": {"items": 1, "passed": 50}}, ["pass"])
    mine = str(tmp_path / "mine.json")
    version = load(mine).version
    assert "m, sha256 aaaa" in trust.add(mine, out, "Olga")
    assert "already" in trust.add(mine, out, "Olga")
    found = load(mine)
    assert found.version == version and found.rules.models == [policy.Weights(name="m", sha256=SHA)]
    assert trust.unlisted(found, {"other name": {"sha256": SHA}, "m": {}}) == {"m": ""}


def test_two_people_who_trust_at_once_lose_nothing(tmp_path, monkeypatch):
    rules = FREE | {"models": [], "trust": {"items": 1, "passed": 50}}
    meets = trust._meets
    monkeypatch.setattr(trust, "_meets", lambda *given: (meets(*given), time.sleep(0.2)))
    runs = []
    for name in "ab":
        (tmp_path / name).mkdir()
        runs.append(with_rules(tmp_path / name, rules, ["pass"]))
        run = journal.load(runs[-1])
        assert run
        journal.save(runs[-1], run | {"models": {name: {"sha256": name * 64}}})
    mine = written(tmp_path, rules)
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda run: trust.add(mine, run, "Olga"), runs))
    assert {one.name for one in load(mine).rules.models or []} == {"a", "b"}


def test_weights_that_once_ran_unlisted_stay_named_when_they_are_trusted(tmp_path):
    models = {"m": {"sha256": SHA}}
    none, listed = (
        load(written(tmp_path, FREE | {"models": one})) for one in ([], [{"name": "m", "sha256": SHA}])
    )
    first = trust.check(none, models, True)
    assert first == {"list": True, "unlisted": {"m": SHA}}
    assert trust.check(listed, models, False, first) == first
    assert trust.check(listed, models, False) == {"list": True, "unlisted": {}}
