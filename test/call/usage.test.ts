import { assert, describe, it } from "@effect/vitest"
import { Conversations } from "../../src/call/conversations.ts"
import { read } from "../../src/call/reported.ts"
import * as Usage from "../../src/call/usage.ts"
import * as Accounting from "floodgate/Accounting"
import type * as Limits from "floodgate/Limits"

const rejection = (dimensions: Limits.Signal["dimensions"]): Limits.Signal => ({ dimensions })

describe("usage", () => {
  it("separates the prompt of an estimate from the output that is reserved with it", () => {
    const expected = { inputTokens: 600, cachedTokens: 100, outputTokens: 50 }
    const promptOf = (accounting: Accounting.Accounting, maxTokens: number | undefined) =>
      Usage.promptOf({
        accounting,
        estimate: accounting.estimate({ ...expected, maxTokens }),
        known: { maxTokens }
      })
    for (const accounting of [Accounting.azure, Accounting.bedrockMantle, Accounting.openai]) {
      assert.deepStrictEqual([promptOf(accounting, 4_096), promptOf(accounting, undefined)], [700, 700])
    }
    assert.strictEqual(promptOf(Accounting.anthropic, 4_096), 600)
  })

  it("finds the limit with the smallest share of what is needed left", () => {
    const hit = (signal: Limits.Signal | undefined, estimate: Limits.Estimate) => Usage.limitHit(signal, estimate)
    assert.isUndefined(hit(undefined, { tokens: 100 }))
    assert.strictEqual(hit(rejection({ tokens: { remaining: 50 } }), { tokens: 100 }), "tokens")
    assert.strictEqual(hit(rejection({ tokens: { remaining: 50 } }), { inputTokens: 30, outputTokens: 30 }), "tokens")
    assert.isUndefined(hit(rejection({ tokens: { remaining: 60 } }), { inputTokens: 30, outputTokens: 30 }))
    assert.isUndefined(hit(rejection({ tokens: { remaining: 30 } }), { inputTokens: 30 }))
    assert.strictEqual(hit(rejection({ tokens: { remaining: 29 } }), { outputTokens: 30 }), "tokens")
    // A limit that the call takes nothing from is hit only if nothing is left of it.
    assert.isUndefined(hit(rejection({ inputTokens: { remaining: 1 } }), { outputTokens: 30 }))
    assert.strictEqual(hit(rejection({ inputTokens: { remaining: 0 } }), { outputTokens: 30 }), "inputTokens")
    const both = rejection({ inputTokens: { remaining: 50 }, requests: { remaining: 0 } })
    assert.strictEqual(hit(both, { inputTokens: 100 }), "requests")
  })

  /** A call of 8,100 bytes, whose estimate is 3,000 tokens of input and 500 of output. */
  const held = (more: Partial<Usage.HeldCall> = {}, known: Partial<Usage.KnownCall> = {}): Usage.HeldCall => ({
    accounting: Accounting.anthropic,
    known: {
      model: "m",
      bytes: 8_100,
      scope: "",
      owner: undefined,
      prefix: undefined,
      verified: undefined,
      ...known
    } as never,
    estimate: { requests: 1, inputTokens: 3_000, outputTokens: 500 },
    observed: undefined,
    ...more
  })
  const usage = { inputTokens: 900, outputTokens: 40 }
  const observed = read(usage)

  it("is expected as it is estimated, the rest of the prompt from the cache", () => {
    const unreserved = { estimate: { outputTokens: 500 } }
    assert.deepStrictEqual(Usage.expected(held()), { inputTokens: 3_000, cacheReadTokens: 0, outputTokens: 500 })
    assert.deepStrictEqual(Usage.expected(held(unreserved)), {
      inputTokens: 3_000,
      cacheReadTokens: 0,
      outputTokens: 500
    })
    const prefix = { tokens: 700, bytes: 7_560 } as never
    for (const more of [{ prefix }, { prefix, inputTokens: 1_200 }]) {
      const expected = { inputTokens: 300, cacheReadTokens: "inputTokens" in more ? 900 : 600, outputTokens: 0 }
      assert.deepStrictEqual(Usage.expected(held({ estimate: { inputTokens: 300 } }, more)), expected)
    }
  })

  it("of an answer that goes on is its prompt, and at least the output that is expected", () => {
    const soFar = (accounting: Accounting.Accounting) => Usage.soFar(held({ accounting }), observed)
    assert.deepInclude(soFar(Accounting.anthropic), { inputTokens: 900, outputTokens: 500 })
    const whole = { ...Accounting.anthropic, usage: () => ({ tokens: 940, outputTokens: 40 }) }
    assert.deepStrictEqual(soFar(whole), { tokens: 940, outputTokens: 40 })
    const uncounted = { ...Accounting.anthropic, usage: () => ({ inputTokens: 900 }) }
    assert.deepStrictEqual(soFar(uncounted), { inputTokens: 900 })
  })

  it("of a failure is what its error says, as the provider counts it, or else the estimate", () => {
    const after = (usage?: Limits.Usage, more: Partial<Usage.HeldCall> = {}, pushback?: "rateLimit") =>
      Usage.afterFailure(held(more), pushback, usage)
    assert.deepStrictEqual(after(), {})
    assert.deepStrictEqual(after({ requests: 1 }), { requests: 1 })
    assert.deepStrictEqual(after({ requests: 1, tokens: 940, outputTokens: 40 }), {
      requests: 1,
      tokens: 940,
      outputTokens: 40
    })
    const double = {
      ...Accounting.anthropic,
      usage: ({ inputTokens, outputTokens }: Accounting.Actual) => ({ inputTokens, outputTokens: 2 * outputTokens })
    }
    assert.deepStrictEqual(after({ requests: 1, outputTokens: 40 }, { accounting: double }), {
      requests: 1,
      inputTokens: 3_000,
      outputTokens: 80
    })
    assert.deepInclude(after({ requests: 1 }, { observed }), { inputTokens: 900, outputTokens: 40 })
    assert.deepStrictEqual(
      after(
        { requests: 0, inputTokens: 9 },
        { accounting: { ...Accounting.anthropic, rejections: "charged" } },
        "rateLimit"
      ),
      {}
    )
  })

  it("of a failure costs what it says, or is expected, but nothing if the provider did nothing", () => {
    const billed = (usage: unknown, more: Partial<Usage.HeldCall> = {}, pushback?: "rateLimit" | "ramp" | "overload") =>
      Usage.billedAfterFailure(held(more), pushback, usage as never)
    const expected = Usage.expected(held())
    for (const none of [undefined, null, 7]) assert.deepStrictEqual(billed(none), expected)
    assert.deepInclude(billed(usage), usage)
    assert.deepInclude(billed({ inputTokens: 900 }), { inputTokens: 900, outputTokens: 500 })
    assert.deepStrictEqual(billed({ outputTokens: 40 }), { ...expected, outputTokens: 40 })
    assert.deepInclude(billed(usage, {}, "overload"), usage)
    for (const pushback of ["rateLimit", "ramp"] as const) assert.isUndefined(billed(usage, {}, pushback))
    assert.isUndefined(billed({ ...usage, requests: 0 }))
    assert.isUndefined(billed({ inputTokens: 0, outputTokens: 0 }))
    assert.deepInclude(billed({ inputTokens: 0, outputTokens: 0 }, { observed }, "rateLimit"), usage)
  })

  it("is looked at again only if the prefix is another one by now", () => {
    const conversations = new Conversations()
    const prefixes = {
      fingerprints: [1],
      bytes: [8_100],
      shared: 0,
      marks: [{ index: 0, life: 300_000 }],
      automatic: undefined
    }
    const { known } = held({}, { prefixes })
    const first = Usage.withPrefix(known, conversations, 0)
    assert.strictEqual(Usage.withPrefix(first, conversations, 1), first)
    conversations.began(known, read({ inputTokens: 900, outputTokens: 1 }), 1, 2)
    assert.strictEqual(Usage.withPrefix(first, conversations, 3).prefix?.tokens, 900)
  })
})
