"""Where a joint attention has its text: the adapter of a family with either order of the sequence."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch

from tests.host.test_sampling import pack

GRID, TEXT, HEADS, WIDTH = (2, 3), 4, 2, 5
IMAGE = GRID[0] * GRID[1]


def sink_for(add, give_up=pytest.fail, step=0):
    """What one network call is read into; nothing may be given up, unless told otherwise."""
    return SimpleNamespace(
        armed=True, step=step, rows=TEXT, references=(), slots=(), size=GRID, add=add, give_up=give_up
    )


def reading(reader, sink):
    """An attention call of a network that `reader` reads."""
    options = {}
    reader.install(options, sink)
    return partial(
        options["transformer_options"]["optimized_attention_override"], lambda q, *rest, **named: q
    )


@pytest.mark.parametrize("text_first", [True, False])
def test_each_word_is_read_where_the_image_looks_at_it(host, text_first):
    """Planted: image token i looks at word i % 4 alone, whatever the order of the sequence."""
    joint = pack(host, "host.families.joint")
    reader = joint.JointReader(joint.JointFamily(torch.nn.Identity, text_first=text_first), GRID)
    words = torch.eye(TEXT, WIDTH) * 40
    image = torch.stack([torch.eye(TEXT, WIDTH)[i % TEXT] * 40 for i in range(IMAGE)])
    parts = [torch.zeros(TEXT, WIDTH), image], [words, torch.zeros(IMAGE, WIDTH)]
    q, k = (torch.cat(p if text_first else p[::-1]).expand(1, HEADS, -1, -1) for p in parts)
    found = []
    sink = sink_for(found.append)
    options = {"cond_or_uncond": [0]}
    reading(reader, sink)(q, k, k, HEADS, transformer_options=options, skip_reshape=True)
    (maps,) = found
    expected = torch.nn.functional.one_hot(torch.arange(IMAGE) % TEXT, TEXT).float()
    torch.testing.assert_close(maps[0].flatten(1).T, expected, rtol=0, atol=1e-4)


def test_a_prefix_that_never_sees_the_image_is_read_in_the_images_own_calls(host):
    """Qwen-Image 2.1: the text's call, with a mask, then the image's, whose keys are [text, image]. The
    text's is made in a sampling's first call only.
    """
    joint = pack(host, "host.families.joint")
    reader = joint.JointReader(joint.JointFamily(torch.nn.Identity, prefix=True), GRID)
    words = torch.eye(TEXT, WIDTH) * 40
    image = torch.stack([torch.eye(TEXT, WIDTH)[i % TEXT] * 40 for i in range(IMAGE)])
    text_q, q = (t.expand(1, HEADS, -1, -1) for t in (words, image))
    k = torch.cat([words, torch.zeros(IMAGE, WIDTH)]).expand(1, HEADS, -1, -1)
    found, refused = [], []
    sink = sink_for(found.append, give_up=refused.append)
    called = dict(transformer_options={"cond_or_uncond": [0]}, skip_reshape=True)
    causal = torch.ones(TEXT, TEXT, dtype=torch.bool).tril()
    call = reading(reader, sink)
    call(text_q, k[:, :, :TEXT], k[:, :, :TEXT], HEADS, mask=causal, **called)
    for _ in range(2):
        call(q, k, k, HEADS, **called)
    expected = torch.nn.functional.one_hot(torch.arange(IMAGE) % TEXT, TEXT).float()
    assert len(found) == 2 and not refused
    torch.testing.assert_close(found[1][0].flatten(1).T, expected, rtol=0, atol=1e-4)
    shown = torch.cat([k, k[:, :, -3:]], 2)
    call(q, shown, shown, HEADS, **called)
    assert "reference pictures" in refused[0]


def test_prompts_that_the_host_pads_before_and_parts_that_it_pads_behind(host):
    """Flux.2 dev has its short prompt at the end of more rows; Z-Image fills both parts up to multiples."""
    joint = pack(host, "host.families.joint")
    words = torch.eye(TEXT, WIDTH) * 40
    image = torch.stack([torch.eye(TEXT, WIDTH)[i % TEXT] * 40 for i in range(IMAGE)])
    family = joint.JointFamily(torch.nn.Identity)
    none = torch.zeros(3, WIDTH)
    layouts = {
        joint.JointReader(family, GRID, 1, TEXT + 3): ([none, words, image * 0], [none, words * 0, image]),
        joint.JointReader(family, GRID, 7): (
            [words, none, image * 0, none[:1]],
            [words * 0, none, image, none[:1]],
        ),
    }
    for reader, parts in layouts.items():
        k, q = (torch.cat(each).expand(1, HEADS, -1, -1) for each in parts)
        found = []
        sink = sink_for(found.append)
        called = dict(transformer_options={"cond_or_uncond": [0]}, skip_reshape=True)
        reading(reader, sink)(q, k, k, HEADS, **called)
        expected = torch.nn.functional.one_hot(torch.arange(IMAGE) % TEXT, TEXT).float()
        torch.testing.assert_close(found[0][0].flatten(1).T, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("step", [0, 1, 2, 3])
def test_of_many_blocks_at_most_ten_are_read_at_a_step_and_others_at_the_next(host, step):
    """SD3.5 large has 38 blocks: each fourth. A block's second call, the image's alone, is not counted."""
    joint = pack(host, "host.families.joint")
    reader = joint.JointReader(joint.JointFamily(torch.nn.Identity), GRID, blocks=38)
    found, read = [], []
    sink = sink_for(found.append, step=step)
    call, x = reading(reader, sink), torch.zeros(1, HEADS, TEXT + IMAGE, WIDTH)
    called = dict(transformer_options={"cond_or_uncond": [0]}, skip_reshape=True)
    for block in [*range(38), *range(38)]:
        call(x, x, x, HEADS, **called)
        call(x[:, :, :IMAGE], x[:, :, :IMAGE], x[:, :, :IMAGE], HEADS, **called)
        read += [block] * (len(found) - len(read))
    assert read == 2 * list(range(-step % 4, 38, 4))


def test_calls_of_the_negative_prompt_alone_do_not_move_the_blocks_that_are_read(host):
    """Short memory has the host ask for the prompts one by one, and a pack may run few blocks of each."""
    joint = pack(host, "host.families.joint")
    reader = joint.JointReader(joint.JointFamily(torch.nn.Identity), GRID, blocks=38)
    found = []
    sink = sink_for(found.append)
    call, x = reading(reader, sink), torch.zeros(1, HEADS, TEXT + IMAGE, WIDTH)
    for prompt in (1, 0):
        call(x, x, x, HEADS, transformer_options={"cond_or_uncond": [prompt]}, skip_reshape=True)
    assert len(found) == 1
