/** The memory of prefixes on its own: its bounds, and what it makes of counts that cannot be. */
import { assert, describe, it } from "@effect/vitest"
import type { Prefixes } from "floodgate/protocol"
import { Conversations } from "../../src/call/conversations.ts"

/** A conversation of its own, with so many parts of 400 bytes, of which the last is marked. */
const prefixesOf = (conversation: number, parts: number): Prefixes => {
  const fingerprints = Array.from({ length: parts }, (_, index) => conversation * 1_000 + index)
  return {
    fingerprints,
    bytes: fingerprints.map((_, index) => 400 * (index + 1)),
    shared: 0,
    marks: [{ index: parts - 1, life: 300_000 }],
    automatic: undefined
  }
}

const lookup = (conversation: number, parts: number, scope = "a") => ({
  scope,
  prefixes: prefixesOf(conversation, parts)
})

const written = (tokens: number) => ({ inputTokens: 0, cacheCreationTokens: tokens, outputTokens: 5 })

const tokensOf = (memory: Conversations, conversation: number, parts: number, scope?: string): number =>
  memory.again(undefined, lookup(conversation, parts, scope), 1)!.tokens

describe("the memory of prefixes", () => {
  it("forgets the conversations that were not continued for the longest time", () => {
    const memory = new Conversations()
    // Each has 20 of 50,000 prefixes.
    for (let n = 0; n < 2_500; n++) memory.began(lookup(n, 20), written(2_000), 0, 1)
    assert.strictEqual(tokensOf(memory, 0, 21), 2_000)
    memory.began(lookup(0, 21), written(2_100), 0, 1)
    memory.began(lookup(2_500, 20), written(2_000), 0, 1)
    assert.strictEqual(tokensOf(memory, 0, 22), 2_100)
    assert.strictEqual(tokensOf(memory, 1, 21), 0)
    assert.strictEqual(tokensOf(memory, 3, 21), 2_000)
    assert.strictEqual(tokensOf(memory, 2_500, 21), 2_000)
  })

  it("forgets nothing of one conversation that grows for ever, and is bounded", () => {
    const memory = new Conversations()
    for (let parts = 1; parts <= 250; parts++) {
      memory.began(lookup(1, parts), written(100 * parts), parts, parts + 0.5)
      assert.strictEqual(tokensOf(memory, 1, parts), 100 * parts)
    }
    const { conversations, scopes, size } = memory as unknown as {
      readonly conversations: ReadonlySet<unknown>
      readonly scopes: ReadonlyMap<string, ReadonlyMap<number, unknown>>
      readonly size: number
    }
    assert.strictEqual(conversations.size, 1)
    assert.isAtMost(size, 34)
    assert.strictEqual(scopes.get("a")!.size, size)
  })

  it("keeps what branches share until none of them is remembered", () => {
    const memory = new Conversations()
    const shared = prefixesOf(0, 10)
    const branch = (n: number) => {
      const own = prefixesOf(n, 10)
      return {
        scope: "a",
        prefixes: {
          ...own,
          fingerprints: [...shared.fingerprints, ...own.fingerprints],
          bytes: own.fingerprints.concat(own.fingerprints).map((_, index) => 400 * (index + 1)),
          marks: [{ index: 19, life: 300_000 }]
        }
      }
    }
    memory.began({ scope: "a", prefixes: shared }, written(1_000), 0, 1)
    for (let n = 1; n <= 2_499; n++) memory.began(branch(n), written(2_000), 0, 1)
    for (let n = 3_000; n < 5_000; n++) memory.began(lookup(n, 20), written(2_000), 0, 1)
    assert.strictEqual(tokensOf(memory, 0, 10), 1_000)
    for (let n = 5_000; n < 8_000; n++) memory.began(lookup(n, 20), written(2_000), 0, 1)
    assert.strictEqual(tokensOf(memory, 0, 10), 0)
    const { scopes, size } = memory as unknown as { scopes: Map<string, Map<number, unknown>>; size: number }
    assert.isAtMost(size, 50_000)
    assert.isAtMost(scopes.get("a")!.size, 50_000)
  })

  it("knows nothing of other scopes, and drops a scope with its last conversation", () => {
    const memory = new Conversations()
    memory.began(lookup(1, 20, "first"), written(2_000), 0, 1)
    assert.strictEqual(tokensOf(memory, 1, 20, "second"), 0)
    for (let n = 0; n < 2_500; n++) memory.began(lookup(n, 20, "second"), written(2_000), 0, 1)
    assert.deepStrictEqual([...(memory as unknown as { scopes: Map<string, unknown> }).scopes.keys()], ["second"])
  })

  it("ignores counts that no provider can mean", () => {
    const memory = new Conversations()
    for (const tokens of [NaN, -1, 0, Infinity, 1e15]) {
      assert.isUndefined(memory.began(lookup(1, 3), { inputTokens: tokens, outputTokens: 5 }, 0, 1))
    }
    assert.isDefined(memory.began(lookup(1, 3), { inputTokens: 10, cacheReadTokens: 10, outputTokens: 5 }, 0, 1))
    // Fewer tokens than before for a longer prompt.
    memory.began(lookup(1, 4), { inputTokens: 1, cacheReadTokens: 2, outputTokens: 5 }, 0, 1)
    const found = memory.again(undefined, lookup(1, 5), 1)!
    assert.isTrue(found.tokens > 0 && found.cachedTokens <= found.tokens, JSON.stringify(found))
  })

  it("remembers nothing of a stored conversation whose answer was counted in no numbers", () => {
    const memory = new Conversations()
    const continued = { scope: "a", continues: "answer" }
    for (const outputTokens of [NaN, -1_000_000, Infinity, 1e13]) {
      memory.remember("a", "answer", { inputTokens: 500, outputTokens }, 1)
      assert.isUndefined(memory.again(undefined, continued, 2))
    }
    memory.remember("a", "answer", { inputTokens: 500, outputTokens: 10 }, 1)
    assert.strictEqual(memory.again(undefined, continued, 2)!.tokens, 510)
  })

  it("takes a prefix for just used if the clock was set back since", () => {
    const memory = new Conversations()
    memory.began(lookup(1, 3), written(2_000), 100_000, 100_001)
    const { cachedTokens, unusedFor } = memory.again(undefined, lookup(1, 4), 90_000)!
    assert.deepStrictEqual([cachedTokens, unusedFor], [2_000, 0])
  })

  it("is asked by each scope for what another request has counted exactly", () => {
    const memory = new Conversations()
    const long = {
      ...prefixesOf(1, 10),
      shared: 2,
      marks: [
        { index: 1, life: 300_000 },
        { index: 9, life: 300_000 }
      ]
    }
    memory.began({ scope: "a", prefixes: long }, written(1_000), 0, 1)
    const own = prefixesOf(2, 8)
    const sibling = {
      scope: "a",
      prefixes: { ...long, fingerprints: [...long.fingerprints.slice(0, 2), ...own.fingerprints] }
    }
    // By the share of the bytes it has 200.
    assert.strictEqual(memory.again(undefined, sibling, 2)!.tokens, 200)
    memory.began(sibling, { inputTokens: 0, cacheCreationTokens: 750, cacheReadTokens: 250, outputTokens: 5 }, 3, 4)
    const third = {
      scope: "a",
      prefixes: { ...long, fingerprints: [...long.fingerprints.slice(0, 2), 7, 8, 9, 10, 11, 12, 13, 14] }
    }
    assert.strictEqual(memory.again(undefined, third, 5)!.tokens, 250)
  })
})
