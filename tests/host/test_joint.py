"""Where a joint attention has its text: the adapter of a family with either order of the sequence."""

from types import SimpleNamespace

import pytest
import torch

from tests.host.test_sampling import pack

GRID, TEXT, HEADS, WIDTH = (2, 3), 4, 2, 5
IMAGE = GRID[0] * GRID[1]


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
    sink = SimpleNamespace(
        armed=True, rows=TEXT, references=False, size=GRID, add=found.append, give_up=pytest.fail
    )
    options = {"cond_or_uncond": [0]}
    reader._read(sink, q, k, k, HEADS, transformer_options=options, skip_reshape=True)
    (maps,) = found
    expected = torch.nn.functional.one_hot(torch.arange(IMAGE) % TEXT, TEXT).float()
    torch.testing.assert_close(maps[0].flatten(1).T, expected, rtol=0, atol=1e-4)
