"""Words a user types, through the host's own CLIP tokenizer."""

import pytest
import torch

from devtools.studio import SOURCE
from tests.host.test_sampling import pack

NOT_THERE = "not in the source prompt"


@pytest.fixture(scope="module")
def seen(studio):
    """The soft region of words in an inversion made under a prompt."""
    inverted = {}

    def region(words: str, prompt: str = SOURCE) -> torch.Tensor:
        if prompt not in inverted:
            inverted[prompt] = studio.invert(positive=studio.prompt(prompt), steps=2)
        return studio.region(inverted[prompt], words, threshold=0.0, source_prompt=prompt)[0]

    region.maps = lambda prompt: (region("a", prompt), inverted[prompt].trajectory.maps)[1]
    return region


def expected(maps: torch.Tensor, *occurrences: list[int]) -> torch.Tensor:
    """Each occurrence's tokens averaged, occurrences joined by maximum, drawn at the size of the picture."""
    each = torch.stack([maps[:, positions].mean(1) for positions in occurrences]).amax(0)
    return torch.nn.functional.interpolate(each[:, None], scale_factor=8, mode="bilinear")[:, 0]


@pytest.mark.parametrize(
    "prompt, words, occurrences",
    [
        (SOURCE, "cat", [[2]]),
        (SOURCE, "sitting on", [[3, 4]]),
        (SOURCE, "bench, cat", [[6], [2]]),
        (SOURCE, "CAT", [[2]]),
        ("A CAT on a Mat", "cat", [[2]]),
        ("a cat, on a mat!", "cat", [[2]]),
        ("a cat, on a mat!", "mat", [[6]]),
        ("a cat, on a mat!", "cat, mat", [[2], [6]]),
        ("a cat and a cat", "cat", [[2], [5]]),
        ("a cat and a cat", "a cat", [[1, 2], [4, 5]]),
        ("a (cat:1.3) on a mat", "cat", [[2]]),
        ("a (cat on:1.3) a mat", "cat on", [[2, 3]]),
        ("a piglet in the grass", "piglet", [[2, 3]]),
        ("a piglet in the grass", "piglet in", [[2, 3, 4]]),
        ("a piglet in the grass", "grass", [[6]]),
    ],
)
def test_words_mean_the_tokens_they_were_made_into(seen, prompt, words, occurrences):
    torch.testing.assert_close(
        seen(words, prompt), expected(seen.maps(prompt), *occurrences), atol=1e-6, rtol=0
    )


def test_a_word_beyond_the_first_75_tokens_is_found_in_the_second_chunk(studio, seen):
    prompt = "a dog " * 40 + "and a cat"
    assert studio.prompt(prompt)[0][0].shape[1] == 154
    torch.testing.assert_close(
        seen("cat", prompt), expected(seen.maps(prompt), [77 + 1 + 82 - 75]), atol=1e-6, rtol=0
    )


def test_a_piece_of_a_word_is_not_the_word(seen):
    with pytest.raises(ValueError, match=NOT_THERE):
        seen("let", "a piglet in the grass")


def test_a_weight_scales_the_region_of_its_word(seen):
    assert torch.equal(seen("cat:0.5"), seen("cat") * 0.5)
    assert torch.equal(seen("(cat:0.5)"), seen("cat:0.5"))


def test_the_strongest_weighted_word_wins_at_each_pixel(seen):
    maps = seen.maps(SOURCE)
    joined = torch.maximum(maps[:, 2] * 0.5, maps[:, 6])[:, None]
    drawn = torch.nn.functional.interpolate(joined, scale_factor=8, mode="bilinear")[:, 0]
    torch.testing.assert_close(seen("cat:0.5, bench"), drawn, atol=1e-6, rtol=0)


def test_an_unknown_word_is_answered_with_the_words_of_the_prompt(seen):
    with pytest.raises(ValueError, match=r"'dog'.*its words are: a, cat, sitting, on, bench"):
        seen("cat, dog")


# --- the source prompt, read from the graph -------------------------------------------------------


OTHER = ("CLIPTextEncode", dict(clip=["loader", 1], text="a dog in the snow"))
TEXT = ("PrimitiveString", dict(value="a cat on a mat"))


def mixed(strength: float) -> tuple:
    return "ConditioningAverage", dict(
        conditioning_to=["prompt", 0], conditioning_from=["other", 0], conditioning_to_strength=strength
    )


@pytest.fixture(scope="module")
def run(host, checkpoint):
    """Inverts an empty picture under a prompt and masks its cat; `between` replaces the prompt at
    EtaInversion.
    """

    def run(text="a cat on a mat", clip=("loader", 1), between=None, mask=None, **more):
        nodes = {
            "loader": ("CheckpointLoaderSimple", dict(ckpt_name=checkpoint)),
            "prompt": ("CLIPTextEncode", dict(clip=["loader", 1], text=text)),
            "picture": ("EmptyLatentImage", dict(width=64, height=64, batch_size=1)),
            "invert": (
                "EtaInversion",
                dict(
                    model=["loader", 0],
                    positive=["between" if between else "prompt", 0],
                    latent_image=["picture", 0],
                    steps=1,
                    cfg=1.0,
                    scheduler="ddim_uniform",
                ),
            ),
            "mask": (
                "AttentionMask",
                dict(
                    inversion=["invert", 0],
                    clip=list(clip),
                    words="cat",
                    threshold=0.2,
                    grow=0,
                    blur=0.0,
                    invert=False,
                    **mask or {},
                ),
            ),
            "preview": ("MaskPreview", dict(mask=["mask", 0])),
            **({"between": between} if between else {}),
            **more,
        }
        return host.run(
            {name: {"class_type": kind, "inputs": inputs} for name, (kind, inputs) in nodes.items()}
        )

    return run


def test_the_prompt_is_read_from_the_graph(run):
    outcome = run()
    assert outcome.success, outcome.error
    assert outcome.outputs["preview"]["images"]


def test_the_prompt_is_found_behind_other_nodes(run):
    outcome = run(
        between=("ConditioningSetTimestepRange", dict(conditioning=["prompt", 0], start=0.0, end=1.0))
    )
    assert outcome.success, outcome.error


def test_the_prompt_that_was_encoded_is_taken_of_two(run):
    outcome = run(between=mixed(1.0), other=OTHER)
    assert outcome.success, outcome.error


def test_the_text_of_another_node_is_found(run):
    outcome = run(text=["sentence", 0], sentence=TEXT)
    assert outcome.success, outcome.error


SECRET = "sk-4711"


@pytest.mark.parametrize("typed", [True, False])
def test_of_all_texts_above_it_an_inversion_gives_away_the_source_prompt_alone(host, run, caplog, typed):
    """Other nodes' texts, keys among them, reach neither the file nor the page nor the log."""
    cleaned = ("StringReplace", dict(string=f"{SECRET} a cat on a mat", find=f"{SECRET} ", replace=""))
    text = "a cat on a mat" if typed else ["cleaned", 0]
    with caplog.at_level("DEBUG", "eta-inversion"):
        outcome = run(
            between=mixed(1.0),
            text=text,
            cleaned=cleaned,
            other=("CLIPTextEncode", dict(clip=["loader", 1], text=["cleaned", 0])),
            sentence=TEXT,
            mask=dict(source_prompt=["sentence", 0]),
            save=("EtaSaveInversion", dict(inversion=["invert", 0], filename_prefix=f"secret_{typed}")),
        )
    assert outcome.success, outcome.error
    (path,) = (host.base / "output").glob(f"secret_{typed}*")
    content = path.read_bytes()
    assert SECRET.encode() not in content and SECRET not in caplog.text
    assert SECRET not in str(outcome.outputs) and "a cat on a mat" in str(outcome.outputs)


def test_a_typed_prompt_is_kept_and_no_other_text(host, run):
    outcome = run(
        text=["sentence", 0],
        sentence=TEXT,
        between=("ConditioningSetTimestepRange", dict(conditioning=["prompt", 0], start=0.0, end=1.0)),
        save=("EtaSaveInversion", dict(inversion=["invert", 0], filename_prefix="typed")),
    )
    assert outcome.success, outcome.error
    (path,) = (host.base / "output").glob("typed*")
    assert pack(host, "host.inversion_file").load(path)[0].prompts == ("a cat on a mat",)


def test_a_prompt_that_no_text_encodes_to_is_an_error_that_says_the_way_out(run):
    outcome = run(between=mixed(0.5), other=OTHER)
    assert not outcome.success
    assert (
        "was not found in the graph above EtaInversion" in outcome.error and "source_prompt" in outcome.error
    )


def test_the_text_may_be_given_to_the_mask(run):
    outcome = run(between=mixed(0.5), other=OTHER, sentence=TEXT, mask=dict(source_prompt=["sentence", 0]))
    assert outcome.success, outcome.error


def test_another_clip_than_the_prompts_is_an_error(run):
    outcome = run(
        clip=("other", 0), other=("CLIPSetLastLayer", dict(clip=["loader", 1], stop_at_clip_layer=-4))
    )
    assert "not the CLIP that encoded it" in outcome.error
