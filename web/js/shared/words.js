// @ts-check
/** What the pack's widgets say, in the page's language. */
import { app } from "../../../../scripts/app.js";

/** @type {Record<string, Record<string, (...values: (string | number)[]) => string>>} */
const WORDS = {
    en: {
        curve: () => "eta over time: points can be dragged, double click adds one, Delete removes one",
        noise: () => "noise (t = 1)",
        image: () => "image (t = 0)",
        steps: (acting, all, most) => `${acting} of ${all} steps, at most η ${most}`,
        chip: () => "click: add or take away; with Shift: lengthen the last phrase",
        firstRun: () => "run once: the attention of these words then appears here",
        newWords: () => "run again: one of these words has no attention yet, or no usable weight",
        noWords: () => "click a word, or type it into words",
        covers: (percent) => `the mask covers ${percent} % of the picture`,
        pack: () => "Eta Inversion",
        before: () => "before",
        after: () => "after",
        slider: () => "before and after",
        previous: () => "previous picture",
        next: () => "next picture",
        notRun: () => "run once: the pictures then appear here",
        tab_slider: () => "Before / after",
        tab_difference: () => "Difference",
        tab_reconstruction: () => "Reconstruction",
        tab_eta: () => "Eta",
        linked: (fields) => `not shown: ${fields} by a link`,
        noPictures: (names, reason) => `could not copy ${names} into the input folder (${reason}): load a picture of your own`,
        unreadable: () => "the curve cannot be read: write t:eta, for example 0.6:0, 1:0.7",
    },
    ja: {
        curve: () => "時間に対する eta: 点はドラッグで動かし、ダブルクリックで追加、Delete で削除できます",
        noise: () => "ノイズ (t = 1)",
        image: () => "画像 (t = 0)",
        steps: (acting, all, most) => `${all} ステップ中 ${acting} ステップ、最大 η ${most}`,
        chip: () => "クリックで追加または削除、Shift+クリックで最後の語句に続ける",
        firstRun: () => "一度実行すると、これらの単語のアテンションがここに表示されます",
        newWords: () => "もう一度実行してください: アテンションのない単語、または使えない重みがあります",
        noWords: () => "単語をクリックするか、words に入力してください",
        covers: (percent) => `マスクは画像の ${percent} % を覆っています`,
        pack: () => "Eta Inversion",
        before: () => "編集前",
        after: () => "編集後",
        slider: () => "編集前と編集後",
        previous: () => "前の画像",
        next: () => "次の画像",
        notRun: () => "一度実行すると、画像がここに表示されます",
        tab_slider: () => "前 / 後",
        tab_difference: () => "差分",
        tab_reconstruction: () => "再構成",
        tab_eta: () => "Eta",
        linked: (fields) => `表示できません: ${fields} はリンクから入力されます`,
        noPictures: (names, reason) => `${names} を入力フォルダーにコピーできませんでした（${reason}）。ご自分の画像を読み込んでください`,
        unreadable: () => "曲線を読めません。t:eta の形で書いてください（例 0.6:0, 1:0.7）",
    },
};

/** The keys of every language. */
export const KEYS = Object.fromEntries(Object.entries(WORDS).map(([language, words]) => [language, Object.keys(words)]));

/** @param {string} key @param {...(string | number)} values */
export function say(key, ...values) {
    const language = app.extensionManager?.setting?.get("Comfy.Locale") ?? "en";
    return (WORDS[language] ?? WORDS.en)[key](...values);
}
