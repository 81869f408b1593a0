import { assert, describe, it } from "@effect/vitest"
import { conversations } from "../../../test/support/conversations.ts"
import { showing } from "../src/inferred.ts"

/** The first prompt of each protocol, and a later one. */
const [first, later] = [2, 6].map((length) =>
  conversations(length).map(({ body }) => body as Record<string, unknown>)
) as unknown as readonly [ReadonlyArray<Record<string, unknown>>, ReadonlyArray<Record<string, unknown>>]

/** Without what the model has said. */
const fresh = (body: Record<string, unknown>): object => {
  const said = { role: "user", content: "Review it", parts: [{ text: "Review it" }] }
  const list = ["messages", "input", "contents"].find((name) => name in body)!
  return { ...body, [list]: [said] }
}

describe("showing", () => {
  it("is the first turn of a conversation with tools, in the body of every protocol", () => {
    for (const body of first) assert.strictEqual(showing({ agent: undefined, body: fresh(body) }), 1)
    const converse = { messages: [{ role: "user" }], toolConfig: { tools: [{ toolSpec: {} }] } }
    assert.strictEqual(showing({ agent: undefined, body: converse }), 1)
  })

  it("is none where the model has answered before: the history goes on, whether it is known or was rewritten", () => {
    for (const body of later) assert.strictEqual(showing({ agent: undefined, body }), undefined)
  })

  it("is the second turn without tools, so that titles and single questions are none", () => {
    for (const body of later) assert.strictEqual(showing({ agent: undefined, body: { ...body, tools: [] } }), 2)
    for (const body of first) {
      assert.strictEqual(showing({ agent: undefined, body: { ...fresh(body), tools: undefined } }), undefined)
    }
  })

  it("is none of a named agent, and of a body that cannot be read", () => {
    assert.strictEqual(showing({ agent: "a7", body: fresh(first[0]!) }), undefined)
    for (const body of [
      undefined,
      null,
      "text",
      7,
      [],
      {},
      { messages: null, tools: "all" },
      { messages: [null, 1] }
    ]) {
      assert.strictEqual(showing({ agent: undefined, body }), undefined)
    }
  })
})
