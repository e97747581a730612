// @ts-check

/** What the server is asked, and what it answers. */

/**
 * @typedef {{ key: string, binding: string, name: string, category: string, source_prompt: string,
 *     target_prompt: string, again: boolean, eta: number | null, pictures: Record<string, string>,
 *     earlier: { action: string, reason: string, comment: string, eta: number | null }[] }} Item
 * @typedef {{ name: string, role: string, item: Item | null, done: number, left: number, own: number,
 *     reasons: string[], paused: boolean, others?: number, seconds_left?: number, following?: Record<string, string> }} Turn
 * @typedef {"approve" | "reject" | "again"} Action
 */

/** @param {string} path @param {object} [body] */
export async function ask(path, body) {
    const options = body && {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify(body),
    };
    const answer = await fetch(path, options);
    const found = await answer.json();
    if (!answer.ok) throw Object.assign(new Error(found.error), { status: answer.status });
    return found;
}

/** The secret of the link leaves the address at once; a cookie that no script can read keeps it. */
export async function enter() {
    const token = location.hash.slice(1);
    if (token) {
        history.replaceState(null, "", location.pathname);
        await ask("/api/enter", { token });
    }
}
