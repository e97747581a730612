"""Editing methods in every transformer family, held to the network run by hand.

By hand: the same network on the same latent, with its attention written out here. The source's queries,
keys and values are noted in a plain run of the source's prompt, and put where the method says in a plain run
of the target's. Where the tokens stand is told here too.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from devtools.studio import SOURCE, TARGET
from tests.host.test_adapters import SIZE, Studio, rows_of
from tests.host.test_sampling import pack

LONGER = "a dog that is sitting in the garden on an old bench of wood"
STEP = dict(cfg=1.0, noise_candidates=1)


@dataclass(frozen=True)
class Layout:
    """Where a network's tokens stand: [text, image, references], or the text in calls of its own.

    patch: latent pixels a side of a token. multiple: to which text and image are padded, behind. least: rows
    to which the host pads a text, before it. text: rows of calls to the text, where it has its own. shows:
    how the network is told to show reference pictures; None where it can show none behind the image.
    """

    patch: int = 2
    multiple: int = 1
    least: int = 0
    text: Callable[[int], int] | None = None
    shows: dict | None = None

    @property
    def grid(self) -> tuple[int, int]:
        return -(-SIZE[0] // self.patch), -(-SIZE[1] // self.patch)

    @property
    def image(self) -> int:
        return self.grid[0] * self.grid[1]

    def padded(self, count: int) -> int:
        return -(-count // self.multiple) * self.multiple


LAYOUTS = {
    "SD3": Layout(),
    "Flux.1": Layout(shows={}),
    "Chroma": Layout(),
    "Qwen-Image": Layout(shows={}),
    "Z-Image": Layout(multiple=32),
    "Flux.2 Klein": Layout(patch=1, shows={}),
    "Flux.2 dev": Layout(patch=1, least=512, shows={}),
    "Krea 2": Layout(shows={"reference_latents_method": "index"}),
    "Wan": Layout(text=lambda rows: rows),
    "Anima": Layout(text=lambda rows: 512),
}
DEV, KLEIN = "Flux.2 dev", "Flux.2 Klein"  # dev's own encoder is too large: Klein's, with prompts of few rows


class ByHand(Studio):
    """A family's studio, whose network can be run with its attention written out."""

    layout = Layout()
    short = False  # Flux.2 dev: prompts of few rows, whatever the encoder makes

    def prompt(self, text: str) -> list:
        encoded = super().prompt(text)
        if not self.short:
            return encoded
        rows = len(text.split()) + 6
        plain = {key: value for key, value in encoded[0][1].items() if key != "attention_mask"}
        return [[encoded[0][0][:, :rows], plain]]

    @property
    def nodes(self):
        """The pack's module with the methods."""
        return pack(self.host, "method_nodes")

    def span(self, end: float):
        return self.nodes.Span(0.0, float(end))

    @property
    def read(self) -> int:
        """How many of the two blocks are read: Flux's and Chroma's double block, both of the others."""
        return 1 if hasattr(self.model.model.diffusion_model, "single_blocks") else 2

    def rows(self, positive: list) -> int:
        cond, extra = positive[0]
        return extra["t5xxl_ids"].shape[-1] if "t5xxl_ids" in extra else cond.shape[1]

    def references(self, positive: list) -> int:
        shown = positive[0][1].get("reference_latents", [])
        return sum(
            (each.shape[-2] // self.layout.patch) * (each.shape[-1] // self.layout.patch) for each in shown
        )

    def run(self, inversion, positive: list, rule=None, gain: float = 1.0) -> Tensor:
        """A plain edit of one step, in which `rule(call)` may answer the attention calls of the blocks.

        gain: of every attention's answer.
        """
        blocks = Blocks(self, positive)
        model = self.model.clone()

        def written_out(attend, q, k, v, heads, *args, **kwargs):
            call = blocks.call(q, k, v, heads, kwargs.get("skip_reshape", False))
            answer = rule(call) if call is not None and rule is not None else None
            return gain * (attend(q, k, v, heads, *args, **kwargs) if answer is None else answer)

        model.model_options["transformer_options"]["optimized_attention_override"] = written_out
        return self.on(model).edit(inversion, positive=positive, eta=self.eta(end_eta=0.0), **STEP)

    def edited(self, inversion, positive: list, method, **inputs) -> Tensor:
        plan = pack(self.host, "types").EditPlan().with_method(method) if method is not None else None
        return self.edit(inversion, positive=positive, eta=self.eta(end_eta=0.0), edit=plan, **STEP | inputs)


@dataclass
class Call:
    """One attention call of a numbered block. q, k, v [heads, tokens, d].

    kind: "joint", "alone" (the image to itself) or "text" (the image to the text). image: the image's tokens
    among the queries. words: the prompt's rows among the keys.
    """

    block: int
    kind: str
    q: Tensor
    k: Tensor
    v: Tensor
    image: slice
    words: slice

    def probabilities(self, seen: Tensor | None = None) -> Tensor:
        scores = self.q @ self.k.transpose(-1, -2) * self.q.shape[-1] ** -0.5
        return (scores if seen is None else scores.masked_fill(~seen, -torch.inf)).softmax(-1)

    def answer(self, probabilities: Tensor) -> Tensor:
        """What the host's attention gives back, [1, tokens, heads * d]."""
        return (probabilities @ self.v).transpose(0, 1).flatten(1)[None]


class Blocks:
    """Tells which of a network call's attention calls belong to its numbered blocks."""

    def __init__(self, studio: ByHand, positive: list):
        self._layout, self._block = studio.layout, -1
        self._rows, self._shown = studio.rows(positive), studio.references(positive)

    def call(self, q: Tensor, k: Tensor, v: Tensor, heads: int, split: bool) -> Call | None:
        layout, queries, keys = self._layout, q.shape[-2 if split else 1], k.shape[-2 if split else 1]
        least = max(self._rows, layout.least)
        text, picture = layout.padded(least), layout.padded(layout.image)
        words = slice(least - self._rows, least)
        if layout.text is not None:
            kind = {(layout.image, layout.image): "alone", (layout.image, layout.text(self._rows)): "text"}
            found, first, opens = kind.get((queries, keys)), 0, "alone"
        else:
            kind = {text + picture + self._shown: "joint"}
            if self._block >= 0 and layout.multiple == 1:  # before the blocks it is what prepares the image
                kind[layout.image] = "alone"
            found, opens = kind.get(keys) if queries == keys else None, "joint"
            first = text if found == "joint" else 0
        if found is None:
            return None
        self._block += found == opens
        flat = [t[0] if split else t[0].reshape(t.shape[1], heads, -1).transpose(0, 1) for t in (q, k, v)]
        return Call(self._block, found, *flat, slice(first, first + layout.image), words)


@pytest.fixture(scope="module", params=LAYOUTS)
def family(host, request) -> ByHand:
    return studio_of(host, request.param)


def studio_of(host, name: str) -> ByHand:
    from tests.host.adapters import TWO_BLOCKS

    if (build := TWO_BLOCKS.get(KLEIN if name == DEV else name)) is None:
        pytest.skip(f"this host has no {name}")
    studio = ByHand(host, *build(host))
    studio.layout, studio.short = LAYOUTS[name], name == DEV
    return studio


@pytest.fixture(scope="module")
def inverted(family):
    return family.invert(steps=1)


@pytest.fixture(scope="module")
def noted(family, inverted) -> list[Call]:
    """The source's calls."""
    return note(family, inverted, family.prompt(SOURCE))


def note(family: ByHand, inverted, positive: list) -> list[Call]:
    calls = []
    family.run(inverted, positive, calls.append)
    return calls


def exchanged(
    noted: list[Call], taken: str, late: bool = False, share: Tensor | None = None, seen=None
) -> Callable:
    """A rule: the image's tokens among `taken` are the source's, or that share of them.

    late: in the later half of the blocks. seen(call): how the image's attention is made up, see `regional`.
    """
    source, blocks = iter(noted), 1 + max(call.block for call in noted)

    def rule(call: Call) -> Tensor | None:
        theirs = next(source)
        if call.kind == "text" or (late and 2 * (call.block + 1) <= blocks):
            return None
        new = {}
        for name in taken:
            new[name] = getattr(call, name).clone()
            wanted = getattr(theirs, name)[:, theirs.image]
            part = 1.0 if share is None or name == "q" else share[:, None]
            new[name][:, call.image] = part * wanted + (1 - part) * new[name][:, call.image]
        call = replace(call, **new)
        return call.answer(call.probabilities()) if seen is None else seen(call)

    return rule


def columns(noted: list[Call], shares: Tensor, scale: Tensor, steered: Tensor) -> Callable:
    """A rule: the words' columns are the source's by `shares` [source rows, target rows], times `scale`."""
    source = iter(noted)

    def rule(call: Call) -> Tensor | None:
        theirs = next(source)
        if call.kind == "alone":
            return None
        ours, given = call.probabilities(), theirs.probabilities()[:, theirs.image, theirs.words]
        own = ours[:, call.image, call.words]
        new = (given @ shares + own * (shares.sum(0) == 0)) * scale
        ours[:, call.image, call.words] = torch.where(steered, new, own)
        return call.answer(ours)

    return rule


def at_tokens(family: ByHand, mask: Tensor) -> Tensor:
    """A mask of the picture at the image's tokens."""
    latent = torch.nn.functional.interpolate(mask[:, None], SIZE, mode="area")
    return torch.nn.functional.interpolate(latent, family.layout.grid, mode="area").flatten()


def regional(source: Tensor, target: Tensor) -> Callable[[Call], Tensor]:
    """Each side of the image sees its own side of the source, and all that is no image."""

    def seen(call: Call) -> Tensor:
        whole, image = call.probabilities(), call.image
        sides = []
        for side in (source > 0.5, source <= 0.5):
            keys = torch.ones(call.k.shape[1], dtype=torch.bool)
            keys[image] = side
            sides.append(call.probabilities(keys)[:, image])
        whole[:, image] = sides[0] * target[:, None] + sides[1] * (1 - target[:, None])
        return call.answer(whole)

    return seen


def ways(family: ByHand, inversion, target: list, noted: list[Call]) -> Iterator[tuple]:
    """(method, rule by hand) of what is exchanged among the image's tokens."""
    nodes, span, never = family.nodes, family.span(1.0), family.span(0.0)
    masa, half = dict(steps=span, start_layer=0.0), family.half()
    other = half.transpose(1, 2).contiguous()
    flipped = torch.nn.functional.interpolate(other[:, None], half.shape[-2:])[:, 0]
    yield nodes.MasaCtrl(**masa), exchanged(noted, "kv")
    free = at_tokens(family, half)
    yield (
        nodes.MasaCtrl(**masa, free=half[:, None], mixed_in=0.3),
        exchanged(noted, "kv", share=1 - 0.7 * free),
    )
    regions = at_tokens(family, half), at_tokens(family, flipped)
    yield (
        nodes.MasaCtrl(**masa, regions=(half[:, None], flipped[:, None])),
        exchanged(noted, "kv", seen=regional(*regions)),
    )
    yield nodes.PlugAndPlay(features=span, self_attention=span), exchanged(noted, "qkv", late=True)
    yield nodes.PlugAndPlay(features=never, self_attention=span), exchanged(noted, "qk", late=True)
    self_only = words(family, inversion, target, cross=never, self_attention=span)
    yield self_only, exchanged(noted, "qk")


def words(family: ByHand, inversion, target: list, cross=None, self_attention=None, **settings):
    """Prompt-to-Prompt with random shares of every row in every other."""
    rows = [family.rows(each) for each in (inversion.positive, target)]
    generator = torch.Generator().manual_seed(3)
    shares = (
        torch.rand(*rows, generator=generator) * (torch.rand(1, rows[1], generator=generator) < 0.7) / rows[0]
    )
    given = dict(
        shares=shares,
        scale=0.5 + torch.rand(rows[1], generator=generator),
        cross=tuple(cross or family.span(i % 3 > 0) for i in range(rows[1])),
        self_attention=self_attention or family.span(0.0),
        source_prompt=inversion.trajectory.fingerprint,
        target_prompt=pack(family.host, "host").text_fingerprint(target),
    )
    return family.nodes.PromptToPrompt(**given | settings)


def by_columns(chosen, noted: list[Call]) -> Callable:
    steered = torch.tensor([span.end > 0 for span in chosen.cross])
    return columns(noted, chosen.shares, chosen.scale, steered)


def assert_as_by_hand(ours: Tensor, by_hand: Tensor, plain: Tensor) -> None:
    """Random networks hear their text little: what counts is the error beside the method's effect."""
    effect, error = ((each - by_hand).norm() for each in (plain, ours))
    assert error < 0.01 * effect


def test_what_the_image_takes_from_the_source_is_the_network_run_by_hand(family, inverted, noted):
    target = family.prompt(LONGER)
    plain = family.run(inverted, target)
    for chosen, rule in ways(family, inverted, target, noted):
        assert_as_by_hand(family.edited(inverted, target, chosen), family.run(inverted, target, rule), plain)


@pytest.mark.parametrize("text", [TARGET, LONGER])
def test_the_words_columns_are_the_network_run_by_hand(family, inverted, noted, text):
    target = family.prompt(text)
    chosen = words(family, inverted, target)
    by_hand = family.run(inverted, target, by_columns(chosen, noted))
    assert_as_by_hand(family.edited(inverted, target, chosen), by_hand, family.run(inverted, target))


def test_a_local_blend_holds_the_picture_where_neither_word_is_looked_at(family, inverted, noted):
    """Free is what stands beside the place that looks at the word the most, in either prompt."""
    target, calls, maps = family.prompt(TARGET), [], []
    plain, source = family.run(inverted, target, calls.append), family.picture()["samples"]
    for each in (noted, calls):
        looks = [
            c.probabilities()[:, c.image, c.words]
            for c in each
            if c.kind != "alone" and c.block < family.read
        ]
        maps.append(sum(look[..., 1].mean(0) for look in looks).unflatten(0, family.layout.grid))
    values = [torch.nn.functional.max_pool2d(each[None], 3, 1, 1).unique() for each in maps]
    below = max(float(each[-2] / each[-1]) for each in values)
    blend = family.nodes.LocalBlend((1,), (1,), threshold=(1 + below) / 2, start=0.0)
    free = blend.region([each[None] for each in maps], SIZE)
    chosen = words(family, inverted, target, cross=family.span(0.0), blend=blend)
    expected = torch.where(free.reshape(free.shape[:2] + (1,) * family.frames + SIZE) > 0, plain, source)
    assert 0 < float(free.mean()) < 1
    torch.testing.assert_close(family.edited(inverted, target, chosen), expected, rtol=0, atol=1e-3)


def shown(family: ByHand, text: str, size: tuple[int, int]) -> list:
    ((cond, extra),) = family.prompt(text)
    pictures = {"reference_latents": [family.picture(size=size)["samples"]]}
    return [[cond, extra | pictures | (family.layout.shows or {})]]


def test_reference_pictures_stay_the_targets_own(family):
    """The source's and the target's are of different sizes. A family that cannot tell them apart refuses."""
    source, target = shown(family, SOURCE, (4, 6)), shown(family, LONGER, (6, 6))
    inversion = family.invert(positive=source, steps=1)
    masa = family.nodes.MasaCtrl(family.span(1.0), 0.0)
    if family.layout.shows is None:
        refused = (
            f"reference pictures.*cannot tell.*in {type(family.model.model).__name__}: disconnect `edit`"
        )
        with pytest.raises(ValueError, match=refused):
            family.edited(inversion, target, masa)
        return
    noted, plain, chosen = (
        note(family, inversion, source),
        family.run(inversion, target),
        words(family, inversion, target),
    )
    for each, rule in ((masa, exchanged(noted, "kv")), (chosen, by_columns(chosen, noted))):
        assert_as_by_hand(family.edited(inversion, target, each), family.run(inversion, target, rule), plain)


def test_under_a_mask_the_image_is_exchanged_and_words_and_regions_are_left_out(host, caplog):
    """A prompt whose encoder hides some of its rows."""
    family = studio_of(host, "Qwen-Image")

    def hidden(text: str) -> list:
        ((cond, extra),) = family.prompt(text)
        mask = torch.ones(1, cond.shape[1], dtype=torch.long)
        mask[:, :2] = 0
        return [[cond, extra | {"attention_mask": mask}]]

    inversion, target = family.invert(positive=hidden(SOURCE), steps=1), hidden(LONGER)
    if torch.equal(family.run(inversion, target), family.run(inversion, family.prompt(LONGER))):
        pytest.skip("this host's Qwen-Image hides no rows")
    masa, half = dict(steps=family.span(1.0), start_layer=0.0), family.half()[:, None]
    plain, steered, regions = (
        family.edited(inversion, target, method)
        for method in (
            None,
            family.nodes.MasaCtrl(**masa),
            family.nodes.MasaCtrl(**masa, regions=(half, half)),
        )
    )
    assert "left out" in caplog.text and torch.equal(regions, steered) and not torch.equal(steered, plain)
    assert torch.equal(family.edited(inversion, target, words(family, inversion, target)), plain)


# --- what else is on the model --------------------------------------------------------------------


def test_another_packs_attention_acts_inside(family, inverted, noted):
    """SageAttention and the like answer the calls that the method has made up."""
    target, model = family.prompt(LONGER), family.model.clone()

    def halved(attend, *args, **kwargs):
        return 0.5 * attend(*args, **kwargs)

    model.model_options["transformer_options"]["optimized_attention_override"] = halved
    halves = []
    family.run(inverted, family.prompt(SOURCE), halves.append, gain=0.5)
    by_hand = family.run(inverted, target, exchanged(halves, "kv"), gain=0.5)
    masa = family.nodes.MasaCtrl(family.span(1.0), 0.0)
    plain = family.run(inverted, target, gain=0.5)
    assert_as_by_hand(family.on(model).edited(inverted, target, masa), by_hand, plain)


def test_a_block_that_another_pack_replaces_is_steered_inside(family, inverted):
    """Packs that wrap a whole block, or leave it out."""
    kinds = {"double_blocks": "double_block", "transformer_blocks": "double_block"}
    names = [kinds[name] for name, _ in family.model.model.diffusion_model.named_children() if name in kinds]
    if not names:
        pytest.skip("packs cannot replace the blocks of this family")
    model = family.model.clone()

    def dimmed(args, more):
        out = more["original_block"](args)
        return {"img": 0.7 * out["img"], "txt": out["txt"]}

    model.set_model_patch_replace(dimmed, "dit", names[0], 0)
    patched, target = family.on(model), family.prompt(LONGER)
    rule = exchanged(note(patched, inverted, family.prompt(SOURCE)), "kv")
    ours = patched.edited(inverted, target, family.nodes.MasaCtrl(family.span(1.0), 0.0))
    assert_as_by_hand(ours, patched.run(inverted, target, rule), patched.run(inverted, target))


class Shapes(TorchDispatchMode):
    """The shapes of what torch's operations give."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        answer = func(*args, **kwargs or {})
        self.found += [tuple(each.shape) for each in tree_leaves(answer) if torch.is_tensor(each)]
        return answer


def watched(family: ByHand, inverted, target: list, method) -> list[tuple[int | None, list, list]]:
    """(block or None, shapes in the attention call, shapes in the host's own) of an edit's calls."""
    model, calls = family.model.clone(), []

    def watch(executor, x, t, concat, context, control, options, **kwargs):
        steered, blocks = options["optimized_attention_override"], Blocks(family, target)

        def outermost(attend, q, k, v, heads, *args, **more):
            call = blocks.call(q, k, v, heads, more.get("skip_reshape", False))
            with Shapes() as ours:
                answer = steered(attend, q, k, v, heads, *args, **more)
            with Shapes() as hosts:
                attend(q, k, v, heads, *args, **more)
            calls.append((None if call is None else call.block, ours.found, hosts.found))
            return answer

        options = options | {"optimized_attention_override": outermost}
        return executor(x, t, concat, context, control, options, **kwargs)

    from comfy.patcher_extension import WrappersMP

    model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "test", watch)
    family.on(model).edited(inverted, target, method)
    return calls


def test_blocks_that_are_not_steered_are_left_to_the_hosts_attention(family, inverted):
    masa = family.nodes.MasaCtrl(family.span(1.0), start_layer=0.5)
    calls = watched(family, inverted, family.prompt(TARGET), masa)
    steered = {block for block, ours, hosts in calls if ours != hosts}
    assert steered == {1} and {0, 1} <= {block for block, *_ in calls}


def test_a_local_blend_without_steered_words_reads_the_first_list_of_blocks_alone(family, inverted):
    blend, target = family.nodes.LocalBlend((1,), (1,)), family.prompt(TARGET)
    only_read = words(family, inverted, target, cross=family.span(0.0), blend=blend)
    calls = watched(family, inverted, target, only_read)
    assert {block for block, ours, hosts in calls if ours != hosts} == set(range(family.read))


def test_columns_are_formed_for_few_places_at_once(family, inverted, monkeypatch):
    target, image = family.prompt(TARGET), family.layout.image
    chosen, rows = words(family, inverted, target), family.rows(target)

    def whole() -> bool:
        calls = watched(family, inverted, target, chosen)
        return any(shape[-2:] == (image, rows) for _, ours, _ in calls for shape in ours)

    at_once = family.edited(inverted, target, chosen)
    assert whole()
    monkeypatch.setattr(pack(family.host, "host.steered_transformer"), "QUERIES", 5)
    assert not whole()
    torch.testing.assert_close(family.edited(inverted, target, chosen), at_once, rtol=0, atol=1e-4)


# --- the nodes ------------------------------------------------------------------------------------


def masa_ctrl(studio, inversion, target, **changes):
    return studio.masactrl(**dict(start=0.0, start_layer=0.0) | changes)


def plug_and_play(studio, inversion, target, **changes):
    return studio.plug_and_play(**dict(feature_end=1.0, attention_end=1.0) | changes)


def prompt_to_prompt(studio, inversion, target, **changes):
    inputs = dict(cross_replace_end=1.0, self_replace_end=0.0, equalizer=1.0, local_blend=False)
    given = dict(positive=studio.prompt(target), target_prompt=target)
    return studio.prompt_to_prompt(inversion, **inputs | given | changes)


NODES = [masa_ctrl, plug_and_play, prompt_to_prompt]
NEUTRAL = [
    (masa_ctrl, dict(start=1.0)),
    (masa_ctrl, dict(start_layer=1.0)),
    (plug_and_play, dict(feature_end=0.0, attention_end=0.0)),
    (prompt_to_prompt, dict(cross_replace_end=0.0)),
]


@pytest.fixture(scope="module")
def encoded(family) -> ByHand:
    if family.short:
        pytest.skip("the encoder of this family is too large")
    return family


def test_neutral_settings_are_bit_identical_to_no_method(encoded, inverted):
    plain = encoded.edit(inverted)
    for node, settings in NEUTRAL:
        assert torch.equal(encoded.edit(inverted, edit=node(encoded, inverted, TARGET, **settings)), plain)


def test_between_equal_prompts_a_method_exchanges_what_is_equal(encoded):
    """In the first step both branches stand on the same point. Rows of another picture would differ."""
    inversion = encoded.invert(latent_image=encoded.picture(batch=2), steps=1)

    def effect(node, text: str) -> float:
        same = dict(positive=encoded.prompt(text), eta=encoded.eta(end_eta=0.0))
        plain = encoded.edit(inversion, **same)
        return float(
            (encoded.edit(inversion, edit=node(encoded, inversion, text), **same) - plain).norm()
            / plain.norm()
        )

    for node in NODES:
        assert 10 * effect(node, SOURCE) < effect(node, LONGER)


def test_the_methods_act_in_several_steps_with_and_without_an_inversion(encoded):
    inversion, latent = encoded.invert(steps=2), encoded.picture()
    for node in NODES:
        assert not torch.equal(
            encoded.edit(inversion, edit=node(encoded, inversion, TARGET)), encoded.edit(inversion)
        )
    masa = masa_ctrl(encoded, None, TARGET)
    assert not torch.equal(encoded.flow_edit(latent, edit=masa, steps=2), encoded.flow_edit(latent, steps=2))


def test_after_out_of_memory_branches_one_by_one_make_the_same_edit(encoded):
    """The call fails at its end, when everything in it was done."""
    inversion, oom = encoded.invert(steps=2), sys.modules["comfy.model_management"].OOM_EXCEPTION
    model, rows = encoded.model.clone(), []

    def ask(apply_model, args):
        answer = apply_model(args["input"], args["timestep"], **args["c"])
        rows.append(len(answer))
        if len(rows) == 1:
            raise oom("planted")
        return answer

    model.set_model_unet_function_wrapper(ask)
    blend = dict(local_blend=True, cross_replace_end=1.0)
    for edit in (
        masa_ctrl(encoded, None, TARGET),
        plug_and_play(encoded, None, TARGET),
        prompt_to_prompt(encoded, inversion, TARGET, **blend),
    ):
        rows.clear()
        found = encoded.edit(inversion, edit=edit, model=model)
        torch.testing.assert_close(found, encoded.edit(inversion, edit=edit), rtol=0, atol=2e-4)
        assert rows[1:] == [1] * 8


def test_words_keep_their_partners_in_prompts_of_other_lengths(encoded, inverted):
    """Whatever template or padding stands around them: both words stand later in the longer prompt."""
    (method,) = prompt_to_prompt(encoded, inverted, LONGER).methods
    for word in ("sitting", "bench"):
        (old,), (new,) = (rows_of(encoded, text, word) for text in (SOURCE, LONGER))
        assert method.shares[:, new].nonzero().tolist() == [[old]] and new > old
    (new,) = rows_of(encoded, LONGER, "garden")
    assert not method.shares[:, new].any()


def test_a_family_that_cannot_be_steered_is_refused_by_name(host):
    from tests.host.flow import aura

    family = ByHand(host, *aura(host))
    inversion = family.invert(steps=1)
    masa = family.nodes.MasaCtrl(family.span(1.0), 0.0)
    with pytest.raises(ValueError, match="attention of AuraFlow cannot be steered.*disconnect `edit`"):
        family.edited(inversion, family.prompt(TARGET), masa)
