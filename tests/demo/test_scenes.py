import numpy as np
import pytest

from devtools.demo import scenes
from devtools.demo.words import INDEX, LENGTH, PIECES, encode_caption


def test_a_seed_makes_the_same_scene_twice_and_another_seed_another():
    a, b, c = scenes.render(5), scenes.render(5), scenes.render(6)
    assert np.array_equal(a.image, b.image) and np.array_equal(a.mask, b.mask)
    assert not np.array_equal(a.image, c.image)


@pytest.mark.parametrize("thing", scenes.THINGS)
def test_the_mask_is_where_the_thing_is(thing):
    """Outside the mask the scene is the same scene without its thing."""
    scene, empty = (
        scenes.render(scenes.VALIDATION, thing, "wood"),
        scenes.render(scenes.VALIDATION, "", "wood"),
    )
    outside = scene.mask == 0
    assert np.array_equal(scene.image[outside], empty.image[outside])
    assert 0.05 < (scene.mask > 127).mean() < 0.6
    assert not np.array_equal(scene.image[~outside], empty.image[~outside])


def test_every_caption_is_made_of_known_words_and_fits():
    rng = np.random.default_rng(0)
    for i in range(300):
        caption = scenes.caption(scenes.render(i), rng)
        assert all(piece in INDEX for word in caption.split() for piece in PIECES.get(word, (word,))), caption
        rows, weights = encode_caption([caption])
        assert rows.shape == (1, LENGTH) and weights.exp().sum().item() == pytest.approx(77)


def test_prompts_read_as_english():
    assert scenes.prompt_of("apple", "wood") == "an apple on the wood"
    assert scenes.prompt_of("red heart", "sky") == "a red heart in the sky"
