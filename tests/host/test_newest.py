"""Models that the tested hosts do not have yet, on networks of their shape: reference pictures, the cache of
a prompt, branches in one call, and what is refused. What holds for every family is in test_adapters.
"""

from contextlib import contextmanager

import pytest
import torch

from devtools.studio import SOURCE, TARGET
from tests.host.test_adapters import NEWEST, SIZE, Studio, _adapters, assert_map_of_row, rows_of
from tests.host.test_sampling import close, pack


def made(host, name: str = "Qwen-Image 2.1", **shape) -> Studio:
    return Studio(host, *_adapters()[name](host, **shape))


@pytest.fixture(scope="module")
def qwen(host) -> Studio:
    return made(host)


def shown(studio, text: str, slots=(3, 5), sizes=(SIZE, (2, 3))) -> list:
    """A prompt with two reference pictures, the first of the edited picture's size."""
    ((cond, extra),) = studio.prompt(text)
    pictures = [studio.picture(size=size)["samples"] for size in sizes]
    return [[cond, extra | {"reference_latents": pictures, "image_slots": list(slots)}]]


@pytest.mark.parametrize("name", ["Qwen-Image 2.1", "Flux.3 Klein", "FIBO 2", "Ming-Image"])
def test_the_map_of_a_word_beside_reference_pictures(host, name):
    studio = made(host, name)
    # before, right behind the first and behind both, where they stand in the text; Ming-Image has words last
    for row in (20,) if name == "Ming-Image" else (1, 3, 9):
        assert_map_of_row(studio, shown(studio, SOURCE), row)


def test_words_are_refused_beside_pictures_whose_place_is_not_known(host):
    studio = made(host, "MOSS-Image")
    inversion = studio.invert(positive=shown(studio, SOURCE), steps=1)
    with pytest.raises(
        ValueError, match="not all that the attention sees .*reference pictures.*; connect a mask"
    ):
        studio.region(inversion, "cat")


def test_a_long_prompt_of_fibo_2_becomes_more_tokens_before_the_picture(host):
    """256 tokens for up to 256 rows, 512 for 2048, evenly between, in whole steps of 64."""
    before = pack(host, "host.families.cross").FIBO_2.before
    assert [before(rows) for rows in (14, 256, 257, 704, 705, 2048, 4096)] == [
        256,
        256,
        320,
        320,
        384,
        512,
        512,
    ]


def test_pictures_without_a_place_in_the_text_stand_behind_it(qwen):
    assert_map_of_row(qwen, shown(qwen, SOURCE, slots=()), 9)


def test_a_prompt_that_was_encoded_with_a_picture_keeps_its_words(host):
    """Planted: two prompts differ in one word. The encoder takes the picture's own rows out."""
    studio = made(host)
    for text in (SOURCE, TARGET):
        tokens = studio.clip.tokenize(text, images=[torch.zeros(1, 8, 8, 3)])
        studio._prompts[text] = studio.clip.encode_from_tokens_scheduled(tokens)
    (source, extra), (target, _) = (studio.prompt(text)[0] for text in (SOURCE, TARGET))
    assert source.shape[1] > made(host).prompt(SOURCE)[0][0].shape[1] and len(extra["image_slots"]) == 1
    first = int(((source - target).norm(dim=-1)[0] > 1e-4).nonzero()[0])
    assert rows_of(studio, SOURCE, "cat") == rows_of(studio, TARGET, "dog") == [first]
    positive = [[source, extra | {"reference_latents": [studio.picture(size=(4, 4))["samples"]]}]]
    inversion = studio.invert(positive=positive)
    regions = [studio.region(inversion, word, threshold=0.0)[0] for word in ("cat", "bench")]
    assert regions[0].any() and not torch.equal(*regions)


def test_the_cache_of_a_prompt_sees_nothing_of_the_reading(host, monkeypatch):
    """The network computes its prompt in the first call of a sampling, and keeps it for the later ones."""
    studio = made(host, layers=2)
    network, positive = studio.model.model.diffusion_model, shown(studio, SOURCE)
    read = studio.invert(positive=positive).trajectory
    kept = network.dropped
    assert [filled for *_, filled in network.asked] == [False, True, True] and len(kept) == 1

    uncached = studio.model.clone()
    uncached.model_options["transformer_options"]["qwen_image21_cache"] = {"device": "off"}
    whole = studio.invert(model=uncached, positive=positive).trajectory
    assert not network.dropped and close(whole.x, read.x)
    torch.testing.assert_close(read.maps, whole.maps, rtol=0, atol=1e-5)

    monkeypatch.setattr(pack(host, "host").MapRecorder, "install", lambda self, options, rows, short: options)
    unread = studio.invert(positive=positive).trajectory
    assert unread.maps is None and torch.equal(unread.x, read.x)
    for (key, tensors), (other, others) in zip(kept.items(), network.dropped.items(), strict=True):
        assert key == other and len(tensors) == len(others) == 2
        assert all(torch.equal(*pair) for own, theirs in zip(tensors, others) for pair in zip(own, theirs))


def test_branches_share_a_call_only_where_their_prompts_have_as_many_rows(qwen, monkeypatch):
    """The network masks no text: rows that fill up the shorter prompt would be seen as words."""
    network, inversion = qwen.model.model.diffusion_model, qwen.invert()
    texts = SOURCE, TARGET, "a big red dog sitting on a bench", ""
    source, same, longer, empty = (qwen.prompt(text)[0][0].shape[1] for text in texts)
    assert source == same and len({source, longer, empty}) == 3

    def edited(positive, **inputs):
        network.asked.clear()
        found = qwen.edit(inversion, positive=positive, parity=True, **inputs)  # asks for the source, too
        return found, {(count, rows) for count, rows, _ in network.asked}

    together, calls = edited(qwen.prompt(TARGET), cfg=1.0)
    assert (2, source) in calls
    apart, calls = edited(qwen.prompt(texts[2]), cfg=3.0)
    assert calls == {(1, source), (1, longer), (1, empty)}
    _, calls = edited(shown(qwen, TARGET), cfg=1.0)
    assert calls == {(1, source)}
    monkeypatch.setattr(pack(qwen.host, "host.sampling").BranchGuider, "_can_join", lambda *names: False)
    assert close(edited(qwen.prompt(TARGET), cfg=1.0)[0], together, 1e-4)
    assert close(edited(qwen.prompt(texts[2]), cfg=3.0)[0], apart, 1e-4)


@pytest.mark.parametrize("name", NEWEST)
def test_editing_methods_are_refused_by_name(host, name):
    studio = made(host, name)
    kind = type(studio.model.model).__name__
    (edit,) = host.call("EtaMasaCtrl", start=0.0, start_layer=0.0)
    with pytest.raises(ValueError, match=f"the attention of {kind} cannot be steered"):
        studio.edit(studio.invert(steps=1), edit=edit)


def test_a_distilled_flux_3_is_refused_by_name(host):
    studio = made(host, "Flux.3 Klein")
    inversion = studio.invert(steps=1)
    studio.model.model.diffusion_model.is_distilled = True
    for run in (lambda: studio.invert(steps=1), lambda: studio.edit(inversion)):
        with pytest.raises(ValueError, match="Flux3Klein is distilled to jump.*Load the model that is not"):
            run()


def test_a_video_with_its_sound_is_refused_by_name(host, qwen):
    nested = pytest.importorskip("comfy.nested_tensor").NestedTensor
    video = nested([torch.zeros(2, 64, 3, 8, 6), torch.zeros(2, 8, 4)])
    with pytest.raises(ValueError, match="several latents at once .a video with its sound.*one picture"):
        qwen.invert(latent_image={"samples": video})


def test_maps_are_formed_outside_the_memory_that_newer_hosts_give_to_every_block(qwen, monkeypatch):
    paused, formed = [], []

    @contextmanager
    def pause():
        paused.append(True)
        yield
        paused.pop()

    monkeypatch.setattr(pack(qwen.host, "host.attention"), "outside_the_blocks_memory", pause)
    recorder = pack(qwen.host, "host").MapRecorder
    monkeypatch.setattr(recorder, "add", lambda self, *found: formed.append(len(paused)))
    qwen.invert(steps=1)
    assert formed == [1]
