/** The memory of prefixes on its own: its bounds, and what it makes of counts that cannot be. */
import { assert, describe, it } from "@effect/vitest"
import { sized } from "../support/size.ts"
import { Conversations } from "../../src/call/conversations.ts"
import { read } from "../../src/call/reported.ts"
import { LearnedLifetime } from "../../src/call/lifetimes.ts"
import { FairShares, type SharedThing } from "../../src/call/fairShares.ts"
import type { Description } from "floodgate/protocol"

type Prefixes = NonNullable<Description["prefixes"]>

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
  owner: scope,
  prefixes: prefixesOf(conversation, parts)
})

/** What it keeps. */
const insideOf = (memory: Conversations) => {
  const { scopes, shares } = memory as unknown as {
    readonly scopes: ReadonlyMap<string, ReadonlyMap<number, unknown>>
    readonly shares: {
      readonly size: number
      readonly places: ReadonlyMap<unknown, unknown>
      readonly owners: ReadonlyMap<string, { readonly size: number }>
      readonly classes: ReadonlyArray<ReadonlySet<unknown>>
    }
  }
  return { scopes, ...shares }
}

const written = (tokens: number) => read({ inputTokens: 0, cacheCreationTokens: tokens, outputTokens: 5 })

const minute = 60_000

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
    const { places, scopes, size } = insideOf(memory)
    assert.strictEqual(places.size, 1)
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
        owner: "a",
        prefixes: {
          ...own,
          fingerprints: [...shared.fingerprints, ...own.fingerprints],
          bytes: own.fingerprints.concat(own.fingerprints).map((_, index) => 400 * (index + 1)),
          marks: [{ index: 19, life: 300_000 }]
        }
      }
    }
    memory.began({ scope: "a", owner: "a", prefixes: shared }, written(1_000), 0, 1)
    for (let n = 1; n <= 2_499; n++) memory.began(branch(n), written(2_000), 0, 1)
    for (let n = 3_000; n < 5_000; n++) memory.began(lookup(n, 20), written(2_000), 0, 1)
    assert.strictEqual(tokensOf(memory, 0, 10), 1_000)
    for (let n = 5_000; n < 8_000; n++) memory.began(lookup(n, 20), written(2_000), 0, 1)
    assert.strictEqual(tokensOf(memory, 0, 10), 0)
    const { scopes, size } = insideOf(memory)
    assert.isAtMost(size, 50_000)
    assert.isAtMost(scopes.get("a")!.size, 50_000)
  })

  it("knows nothing of other scopes, and drops a scope with its last conversation", () => {
    const memory = new Conversations()
    const of = (scope: string, n: number) => ({ ...lookup(n, 20, scope), owner: "one" })
    memory.began(of("first", 1), written(2_000), 0, 1)
    assert.strictEqual(tokensOf(memory, 1, 20, "second"), 0)
    for (let n = 0; n < 2_500; n++) memory.began(of("second", n), written(2_000), 0, 1)
    assert.deepStrictEqual([...insideOf(memory).scopes.keys()], ["second"])
  })

  it("keeps the conversation of a caller while another one sends ever new prompts", () => {
    const memory = new Conversations()
    memory.began(lookup(1, 20, "honest"), written(2_000), 0, 1)
    const sent = sized(20_000, 100_000)
    for (let n = 0; n < sent; n++) memory.began(lookup(n, 3, "hostile"), written(300), n, n + 1)
    const found = memory.again(undefined, lookup(1, 21, "honest"), 100_000)!
    assert.deepStrictEqual([found.tokens, found.cachedTokens], [2_000, 2_000])
    const { owners, size } = insideOf(memory)
    assert.isAtMost(size, 50_000)
    assert.strictEqual(owners.get("honest")!.size, 20)
    // The hostile one keeps what is left, and its last prompts are there.
    assert.strictEqual(tokensOf(memory, sent - 1, 4, "hostile"), 300)
  })

  it("gives callers who fill it about equal shares, however often each calls", () => {
    const memory = new Conversations()
    for (let n = 0; n < 4_000; n++) {
      memory.began(lookup(n, 30, "often"), written(1_000), n, n + 1)
      if (n % 3 === 0) memory.began(lookup(n, 30, "seldom"), written(1_000), n, n + 1)
      if (n % 400 === 0) memory.began(lookup(n, 30, "rarely"), written(1_000), n, n + 1)
    }
    const { owners } = insideOf(memory)
    const [often, seldom, rarely] = ["often", "seldom", "rarely"].map((name) => owners.get(name)!.size)
    assert.strictEqual(rarely, 300)
    assert.isTrue(often! > 16_000 && seldom! > 16_000, `${often}, ${seldom}`)
  })

  it("gives the room of callers who have gone to those who call", () => {
    const memory = new Conversations()
    for (let n = 0; n < 400; n++) memory.began(lookup(1, 100, `gone ${n}`), written(1_000), n, n + 1)
    const later = 3_600_000 + 1_000
    for (let n = 0; n < 2_500; n++) memory.began(lookup(n, 20, "busy"), written(2_000), later, later + 1)
    const { classes, owners, places, scopes, size } = insideOf(memory)
    assert.deepStrictEqual([...owners.keys()], ["busy"])
    assert.deepStrictEqual([size, places.size, scopes.size], [50_000, 2_500, 1])
    assert.strictEqual(
      classes.reduce((sum, { size }) => sum + size, 0),
      1
    )
  })

  it("holds a conversation of each of more callers than fit, the last ones", () => {
    const memory = new Conversations()
    for (let n = 0; n < 5_000; n++) memory.began(lookup(1, 20, `${n}`), written(2_000), n, n + 1)
    const { owners, size } = insideOf(memory)
    assert.deepStrictEqual([owners.size, size], [2_500, 50_000])
    assert.strictEqual(tokensOf(memory, 1, 21, "4999"), 2_000)
    assert.strictEqual(tokensOf(memory, 1, 21, "0"), 0)
  })

  it("counts stored conversations as two prefixes each, in the share of their caller", () => {
    const memory = new Conversations()
    const answer = read({ inputTokens: 500, outputTokens: 10 })
    const tokens = (scope: string, id: string) => memory.again(undefined, { scope, continues: id }, 2)?.tokens
    memory.remember({ scope: "honest", owner: "honest" }, "mine", answer, 1)
    // One whose id stays the same as it grows is one conversation.
    for (let n = 0; n < 100; n++) memory.remember({ scope: "honest", owner: "honest" }, "same", answer, 1)
    for (let n = 0; n < 30_000; n++) memory.remember({ scope: "hostile", owner: "hostile" }, `${n}`, answer, 1)
    assert.deepStrictEqual([tokens("honest", "mine"), tokens("honest", "same")], [510, 510])
    const { places, size } = insideOf(memory)
    assert.deepStrictEqual([size, places.size], [50_000, 25_000])
    assert.isUndefined(tokens("hostile", "5000"))
    assert.strictEqual(tokens("hostile", "5003"), 510)
  })

  it("ignores counts that no provider can mean", () => {
    const memory = new Conversations()
    for (const tokens of [NaN, -1, 0, Infinity, 1e15]) {
      assert.isUndefined(memory.began(lookup(1, 3), read({ inputTokens: tokens, outputTokens: 5 }), 0, 1))
    }
    assert.isDefined(memory.began(lookup(1, 3), read({ inputTokens: 10, cacheReadTokens: 10, outputTokens: 5 }), 0, 1))
    // Fewer tokens than before for a longer prompt.
    memory.began(lookup(1, 4), read({ inputTokens: 1, cacheReadTokens: 2, outputTokens: 5 }), 0, 1)
    const found = memory.again(undefined, lookup(1, 5), 1)!
    assert.isTrue(found.tokens > 0 && found.cachedTokens <= found.tokens, JSON.stringify(found))
  })

  it("remembers nothing of a stored conversation whose answer was counted in no numbers", () => {
    const memory = new Conversations()
    const continued = { scope: "a", continues: "answer" }
    for (const outputTokens of [NaN, -1_000_000, Infinity, 1e13]) {
      memory.remember(continued, "answer", read({ inputTokens: 500, outputTokens }), 1)
      assert.isUndefined(memory.again(undefined, continued, 2))
    }
    memory.remember(continued, "answer", read({ inputTokens: 500, outputTokens: 10 }), 1)
    assert.strictEqual(memory.again(undefined, continued, 2)!.tokens, 510)
  })

  it("takes a prefix for just used if the clock was set back since", () => {
    const memory = new Conversations()
    memory.began(lookup(1, 3), written(2_000), 100_000, 100_001)
    const { cachedTokens, unusedFor } = memory.again(undefined, lookup(1, 4), 90_000)!
    assert.deepStrictEqual([cachedTokens, unusedFor], [2_000, 0])
  })

  it("keeps a prefix as long as its provider states, where that caches without being asked", () => {
    const memory = new Conversations()
    const day = 1_440 * minute
    const of = (parts: number) => ({ scope: "a", prefixes: { ...prefixesOf(1, parts), marks: [], automatic: day } })
    memory.began(of(10), read({ inputTokens: 2_000, outputTokens: 5 }), 0, 1)
    const cachedAt = (now: number) => memory.again(undefined, of(11), now)!.cachedTokens
    assert.deepStrictEqual([cachedAt(day), cachedAt(day + 1)], [2_000, 0])
  })

  it("expects of the cache what a request asks for: all up to its last mark", () => {
    const memory = new Conversations()
    const marked = (parts: number, ...marks: ReadonlyArray<number>) => ({
      scope: "a",
      prefixes: { ...prefixesOf(1, parts), marks: marks.map((index) => ({ index, life: 5 * minute })) }
    })
    memory.began(marked(10, 1, 9), written(1_000), 0, 1)
    const cached = (...marks: ReadonlyArray<number>) => memory.again(undefined, marked(11, ...marks), 2)!.cachedTokens
    assert.deepStrictEqual(
      [cached(10), cached(9), cached(8), cached(1), cached(0), cached()],
      [1_000, 1_000, 200, 200, 0, 0]
    )
  })

  it("counts the parts of a prompt between what is known of its beginning and all of it", () => {
    const memory = new Conversations()
    memory.began(lookup(1, 10), written(1_000), 0, 1)
    // The new half has four times as many tokens.
    memory.began(lookup(1, 20), written(5_000), 2, 3)
    assert.deepStrictEqual(
      [10, 15, 20].map((parts) => tokensOf(memory, 1, parts)),
      [1_000, 3_000, 5_000]
    )
  })

  it("does not take a prefix for evicted that was written after a call that did not read it was sent", () => {
    for (const [sentAt, cachedTokens] of [
      [5, 1_000],
      [15, 0]
    ] as const) {
      const memory = new Conversations()
      memory.began(lookup(1, 10), written(1_000), 0, 10)
      const own = prefixesOf(2, 10)
      const { prefixes } = lookup(1, 20)
      const branch = {
        scope: "a",
        prefixes: { ...prefixes, fingerprints: [...prefixes.fingerprints.slice(0, 10), ...own.fingerprints] }
      }
      memory.began(branch, written(2_000), sentAt, 20)
      assert.strictEqual(memory.again(undefined, lookup(1, 11), 21)!.cachedTokens, cachedTokens)
    }
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
    memory.began(
      sibling,
      read({ inputTokens: 0, cacheCreationTokens: 750, cacheReadTokens: 250, outputTokens: 5 }),
      3,
      4
    )
    const third = {
      scope: "a",
      prefixes: { ...long, fingerprints: [...long.fingerprints.slice(0, 2), 7, 8, 9, 10, 11, 12, 13, 14] }
    }
    assert.strictEqual(memory.again(undefined, third, 5)!.tokens, 250)
  })
})

describe("a learned lifetime", () => {
  /** That after so many prefixes of each age in minutes were read, and others not. */
  const learned = (...seen: ReadonlyArray<readonly [minutes: number, read: number, gone: number]>) => {
    const lifetime = new LearnedLifetime()
    for (const [minutes, read, gone] of seen) {
      for (let n = 0; n < read + gone; n++) {
        const isGone = Math.floor(((n + 1) * gone) / (read + gone)) > Math.floor((n * gone) / (read + gone))
        lifetime.learn(minutes * minute, !isGone)
      }
    }
    return lifetime.millis / minute
  }

  it("is five minutes until enough prefixes of another age were seen", () => {
    assert.strictEqual(learned(), 5)
    assert.strictEqual(learned([3, 0, 2]), 5)
    assert.strictEqual(learned([3, 0, 3]), 2)
    assert.strictEqual(learned([7, 2, 0]), 5)
    assert.strictEqual(learned([7, 3, 0]), 10)
    assert.strictEqual(learned([0.5, 0, 3]), 0)
  })

  it("does not depend on a few that were evicted early, nor on a few that were kept long", () => {
    assert.strictEqual(learned([1.5, 90, 10], [3, 90, 10]), 5)
    assert.strictEqual(learned([3, 90, 10], [7, 10, 90]), 5)
    assert.strictEqual(learned([1.5, 40, 0], [3, 10, 90]), 2)
  })

  it("ends at the first age at which most are gone", () => {
    assert.strictEqual(learned([25, 9, 0], [45, 0, 9]), 30)
    assert.strictEqual(learned([3, 0, 9], [25, 9, 0]), 2)
    assert.strictEqual(learned([1_000, 9, 0]), 1_440)
  })

  it("follows a provider that changes", () => {
    const lifetime = new LearnedLifetime()
    for (let n = 0; n < 100; n++) lifetime.learn(3 * minute, false)
    assert.strictEqual(lifetime.millis, 2 * minute)
    for (let n = 0; n < 10; n++) lifetime.learn(3 * minute, true)
    assert.strictEqual(lifetime.millis, 5 * minute)
  })

  it("learns nothing from an age that cannot be", () => {
    const lifetime = new LearnedLifetime()
    for (let n = 0; n < 9; n++) for (const age of [-1, NaN, Infinity, -Infinity, 1e12]) lifetime.learn(age, false)
    assert.strictEqual(lifetime.millis, 5 * minute)
  })
})

const hour = 3_600_000

/** A memory for ten things of size 1, and the owners of those that it forgot, in order. */
const memory = () => {
  const forgotten: Array<string> = []
  const shares = new FairShares<SharedThing>(10, ({ owner }) => void forgotten.push(owner))
  const add = (owner: string, count = 1, now = 0) => {
    for (let n = 0; n < count; n++) shares.keep({ owner, size: 0, usedAt: now }, 1, now)
  }
  return { add, forgotten, shares }
}

describe("a memory of several owners", () => {
  it("forgets things of who holds the most", () => {
    const { add, forgotten } = memory()
    add("a", 2)
    add("b", 8)
    add("c", 4)
    assert.deepStrictEqual(forgotten, ["b", "b", "b", "b"])
  })

  it("takes turns between owners that hold about as much", () => {
    const { add, forgotten } = memory()
    for (const owner of ["a", "b", "c"]) add(owner, 3)
    add("d", 3)
    add("e", 1)
    assert.deepStrictEqual(forgotten, ["a", "b", "c"])
  })

  it("forgets what nobody has used for an hour before that", () => {
    const { add, forgotten } = memory()
    add("a", 1)
    add("b", 9, 1)
    add("c", 1, hour - 1)
    assert.deepStrictEqual(forgotten, ["b"])
    add("c", 1, hour)
    assert.deepStrictEqual(forgotten, ["b", "a"])
  })

  it("keeps the newest thing, however large", () => {
    const { add, forgotten, shares } = memory()
    add("a", 3)
    shares.keep({ owner: "b", size: 0, usedAt: 0 }, 20, 0)
    assert.deepStrictEqual(forgotten, ["a", "a", "a"])
    assert.strictEqual(shares.size, 20)
  })
})
