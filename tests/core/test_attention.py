"""Borrowed attention against a softmax written out here."""

import pytest
import torch
import torch.nn.functional as F

from eta_core.methods import attention
from eta_core.methods.attention import (
    change_of,
    log_sum,
    mean_to_text,
    mixture,
    outside_and_inside,
    probabilities,
    split_heads,
    transfer,
)

HEADS = 2


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def attend(q, k, v):
    """torch's own attention on heads laid side by side."""
    q, k, v = (t.view(*t.shape[:2], HEADS, -1).transpose(1, 2) for t in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2)


def steered_by(source, target, *control):
    """The target's maps under the source's control."""
    return target + transfer(source, target, *mixture(*control))


@pytest.fixture
def qkv():
    return random(3, 10, 8), random(3, 6, 8, seed=1), random(3, 6, 8, seed=2)


@pytest.fixture
def maps():
    """Maps of a source prompt of 5 rows and of a target prompt of 6: [B, heads, Q, rows]."""
    return random(3, HEADS, 10, 5, seed=3).softmax(-1), random(3, HEADS, 10, 6, seed=4).softmax(-1)


def test_the_maps_are_those_of_torchs_attention(qkv):
    q, k, v = qkv
    maps = probabilities(q, k, HEADS)
    torch.testing.assert_close(maps.sum(-1), torch.ones(3, HEADS, 10))
    answer = (maps @ split_heads(v, HEADS)).transpose(1, 2).flatten(-2)
    torch.testing.assert_close(answer, attend(q, k, v), rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [4.0, 100.0])  # of the second, products of 8 values exceed fp16
def test_maps_of_half_precision_are_full_ones_but_for_their_rounding(qkv, size):
    q, k = (size * t.half() for t in qkv[:2])
    found, exact = probabilities(q, k, HEADS), probabilities(q.float(), k.float(), HEADS)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, exact, rtol=0, atol=0.02)


def test_without_weight_the_target_keeps_its_maps_bit_for_bit(maps):
    source, target = maps
    assert torch.equal(
        steered_by(source, target, torch.rand(5, 6), torch.zeros(6), torch.full((6,), 3.0)), target
    )


def test_with_full_weight_equal_prompts_take_the_sources_maps(maps):
    source, other = maps[0], maps[0].flip(0)
    steered = steered_by(source, other, torch.eye(5), torch.ones(5), torch.ones(5))
    torch.testing.assert_close(steered, source, rtol=0, atol=1e-6)


def test_a_new_token_keeps_its_own_map_and_the_others_take_their_partners(maps):
    source, target = maps
    shares = torch.zeros(5, 6)
    shares[0, 0] = shares[3, 1] = 1.0  # column 2 is new
    shares[4, 3] = shares[4, 4] = 0.5
    shares[1, 5] = shares[2, 5] = 1.0
    steered = steered_by(source, target, shares, torch.ones(6), torch.ones(6))
    s, t = source.unbind(-1), target.unbind(-1)
    expected = torch.stack([s[0], s[3], t[2], s[4] / 2, s[4] / 2, s[1] + s[2]], -1)
    torch.testing.assert_close(steered, expected)


def test_the_scale_multiplies_each_tokens_map_where_it_is_steered(maps):
    source, _ = maps
    scale, weight = torch.tensor([1.0, 2.0, 0.0, 3.0, 3.0]), torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0])
    steered = steered_by(source, source, torch.eye(5), weight, scale)
    torch.testing.assert_close(steered, source * torch.tensor([1.0, 2.0, 0.0, 3.0, 1.0]))


def test_half_the_weight_is_halfway(maps):
    source, other = maps[0], maps[0].flip(0)
    steered = steered_by(source, other, torch.eye(5), torch.full((5,), 0.5), torch.ones(5))
    torch.testing.assert_close(steered, (source + other) / 2)


def test_changed_maps_change_the_answer_as_attention_with_them_would(qkv):
    q, k, v = qkv
    own, other = probabilities(q, k, HEADS), probabilities(q.flip(1), k, HEADS)
    answer = attend(q, k, v) + change_of(other - own, split_heads(v, HEADS))
    torch.testing.assert_close(answer, attend(q.flip(1), k, v), rtol=0, atol=1e-5)


def test_what_others_added_to_the_answer_stays(qkv):
    q, k, v = qkv
    own, other, added = (
        probabilities(q, k, HEADS),
        probabilities(q.flip(1), k, HEADS),
        random(3, 10, 8, seed=9),
    )
    answer = attend(q, k, v) + added + change_of(other - own, split_heads(v, HEADS))
    torch.testing.assert_close(answer, attend(q.flip(1), k, v) + added, rtol=0, atol=1e-5)


@pytest.mark.parametrize("keys", [torch.ones(3, 6), torch.zeros(3, 6)])
def test_with_all_keys_on_one_side_it_is_plain_attention(qkv, keys):
    queries = torch.rand(3, 10, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        outside_and_inside(attend, *qkv, keys, queries), attend(*qkv), rtol=0, atol=1e-6
    )


def test_queries_see_only_the_keys_of_their_side(qkv):
    q, k, v = qkv
    keys = torch.tensor(
        [[1.0, 1, 0, 0, 0, 1], [0, 0, 0, 0, 0, 1], [1, 1, 1, 1, 1, 1]]
    )  # each picture has its own
    queries = torch.zeros(3, 10)
    queries[:, :4] = 1.0
    answer = outside_and_inside(attend, q, k, v, keys, queries)
    for i, inside in enumerate(keys.bool()):
        outside = ~inside if i < 2 else inside
        for rows, seen in ((slice(0, 4), inside), (slice(4, 10), outside)):
            expected = attend(q[i : i + 1, rows], k[i : i + 1, seen], v[i : i + 1, seen])
            torch.testing.assert_close(answer[i : i + 1, rows], expected, rtol=0, atol=1e-6)


def test_a_query_on_the_border_sees_a_bit_of_both_sides(qkv):
    keys = torch.tensor([[1.0, 1, 0, 0, 0, 1]]).expand(3, -1)
    inside, outside, border = (
        outside_and_inside(attend, *qkv, keys, torch.full((3, 10), w)) for w in (1.0, 0.0, 0.25)
    )
    torch.testing.assert_close(border, 0.25 * inside + 0.75 * outside, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype, bound", [(torch.float32, 1e-6), (torch.bfloat16, 0.02)], ids=str)
@pytest.mark.parametrize("groups", [4, 2])
def test_the_words_columns_are_those_of_the_whole_softmax(dtype, bound, groups):
    generator = torch.Generator().manual_seed(0)
    q = 2 * torch.randn(2, 4, 9, 16, generator=generator)
    k = torch.randn(2, groups, 14, 16, generator=generator)
    q, k = q.to(dtype), k.to(dtype)
    repeated = k.repeat_interleave(4 // groups, 1).double()
    whole = (q.double() @ repeated.transpose(-1, -2) / 4).softmax(-1).mean(1)[..., 3:8].float()
    torch.testing.assert_close(mean_to_text(q, k, slice(3, 8)), whole, rtol=0, atol=bound)


def test_the_sum_is_the_same_without_a_fused_kernel(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randn(1, 2, n, 16, generator=generator) for n in (5, 7))
    fused = log_sum(q, k)
    monkeypatch.setattr(attention, "_fused", lambda q: None)
    torch.testing.assert_close(log_sum(q, k), fused)
