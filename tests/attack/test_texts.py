"""Policies, figures, words and masks that nobody would write: they are read, or refused with a ValueError."""

import json
import math
import zlib

import torch
from hypothesis import given
from hypothesis import strategies as some

from eta_core import masks
from eta_core.evidence.policy import judge, parse_policy, worst
from eta_core.evidence.report import report_of_json
from eta_core.methods.alignment import (
    Prompt,
    Token,
    align,
    changed_words,
    parse_factors,
    parse_phrases,
    parse_spans,
    piece_of,
)
from pilot import items
from tests.attack.mutations import mutated, words

DRAW = some.randoms(use_true_random=False)
TEXT = some.text(max_size=200) | DRAW.map(words)
POLICY = {
    "background_psnr": {"pass": {"min": 30}, "review": {"min": 25, "max": 90}},
    "pie_mse": {"pass": {"max": 1}},
}
FIGURES = {
    "pictures": [{"background_psnr": 31.0, "pie_mse": None}, {"background_psnr": "inf", "pie_mse": 0.1}],
    "mean": {},
    "not_measured": {"pie_mse": "no"},
    "settings": {"changed_above": 5.0},
}


def refused(run, *given) -> bool:
    """Whether it was refused, in words; anything but a ValueError fails the test."""
    try:
        run(*given)
    except ValueError as error:
        assert str(error) and len(str(error)) < 6000
        return True
    return False


@given(DRAW)
def test_policies_and_figures(draw):
    policy = mutated(POLICY, draw, draw.randrange(3))
    figures = mutated(FIGURES, draw, draw.randrange(3))
    texts = [json.dumps(value) for value in (policy, figures)]
    if draw.random() < 0.1:
        texts[draw.randrange(2)] = texts[0][: draw.randrange(40)]
    if not refused(parse_policy, texts[0]) and not refused(report_of_json, texts[1]):
        report, limits = report_of_json(texts[1]), parse_policy(texts[0])
        assert refused(judge, report, limits) or worst(judge(report, limits)) in ("pass", "review", "reject")
        report.to_json()


@given(TEXT, TEXT)
def test_words_and_prompts(text, other):
    refused(parse_phrases, text)
    refused(parse_factors, "words", text, 1.0)
    refused(parse_spans, "words", text)
    source, target = map(prompt, (text, other))
    aligned = align(source, target)
    assert len(aligned.shares) == target.rows
    for phrase in changed_words(target, aligned.added):
        assert target.rows_of(phrase)


def prompt(text: str) -> Prompt:
    tokens = tuple(
        Token(i + 1, zlib.crc32(word.encode()) % 1000, piece_of(word) + "</w>")
        for i, word in enumerate(text.split()[:70])
    )
    return Prompt(tokens, 77)


VALUE = some.sampled_from((0.0, 1.0)) | some.floats(0, 1)
MASK = some.lists(VALUE, min_size=9, max_size=9).map(lambda values: torch.tensor(values).view(1, 1, 3, 3))


@given(some.lists(some.tuples(MASK, some.sampled_from(list(masks.OVERLAP))), min_size=1, max_size=5))
def test_regions_share_the_picture(regions):
    total = sum(masks.resolve(regions))
    assert float(total.min()) >= 0 and float(total.max()) <= 1 + 1e-5
    covered = 1 - math.prod(1 - mask for mask, _ in regions)
    assert bool((total >= covered - 1e-5).all()), "a place that a mask covers is left to nobody"


@given(DRAW, some.sampled_from(("json", "jsonl", "csv")))
def test_lists_of_items(tmp_path_factory, draw, kind):
    row = {"picture": "a.png", "source_prompt": "a cat", "target_prompt": "a dog", "mask": [0, 5], "seed": 3}
    path = tmp_path_factory.getbasetemp() / f"items.{kind}"
    path.write_text(json.dumps(mutated([row, row], draw, 2)), encoding="utf-8", errors="replace")
    try:
        found = items.load(path)
    except items.ItemsError as error:
        assert str(error)
    else:
        assert all(item.key for item in found)
