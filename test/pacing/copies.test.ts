/** Copies of a pacer, on which steps and previews are played; the original does not change. */
import { assert, describe, it } from "@effect/vitest"
import { dimensionOf } from "../../src/admission/blocked.ts"
import * as Cap from "../../src/admission/cap.ts"
import * as Pacer from "../../src/pacing/pacer.ts"
import * as Memory from "../../src/pacing/memory.ts"
import * as Meter from "../../src/pacing/meter.ts"
import * as Preview from "../../src/pacing/preview.ts"
import * as Window from "../../src/pacing/window.ts"
import * as Rules from "../../src/domain/rules.ts"
import { plain, play } from "../support/events.ts"
import { call, makePort, send as sendStep } from "../support/localPort.ts"
import { readings, whole } from "../support/play.ts"
import { mulberry } from "../support/random.ts"
import { answer, exhaust, flow, poolOf, send } from "../support/rules.ts"

/** Freezes a state and everything that it refers to, so that any later write throws. */
const freeze = <A>(value: A): A => {
  if (typeof value !== "object" || value === null || Object.isFrozen(value)) return value
  Object.freeze(value)
  for (const each of Object.values(value)) freeze(each)
  return value
}

const next = (pool: Pacer.Pacer): Pacer.Pacer => Pacer.copy(freeze(pool))

/** A value of each property that no other property has. */
const marked = <A extends object>(value: A): A =>
  Object.fromEntries(Object.keys(value).map((key) => [key, `the value of ${key}`])) as A

describe("a copy", () => {
  it("has each property of its original, with its own value", () => {
    const meter = marked(Meter.make("tokens", 0))
    assert.deepStrictEqual(Meter.copy(meter), meter)
    const cap = marked(Cap.make(Rules.resolve({ tokens: { perMinute: 1 } }).tokens!, 0))
    assert.deepStrictEqual(Cap.copy(cap), cap)
    const pacer = { ...marked(poolOf(Pacer)), meters: [meter], caps: { tokens: cap } }
    assert.deepStrictEqual(Pacer.copy(pacer), pacer)
  })

  it("is as new if it is written onto a pacer of other limits", () => {
    const limits = { tokens: { perSecond: 1 }, requests: { perSecond: 1 } } as const
    for (const [one, other] of [
      [limits, { tokens: { perMinute: 9, window: "sliding" } }],
      [{}, limits],
      [limits, limits]
    ] as const) {
      const [pacer, old] = [poolOf(Pacer, one), poolOf(Pacer, other)]
      old.meters.push(Meter.make("outputTokens", 0), Meter.make("inputTokens", 0))
      flow(Pacer, pacer, 0, 5_000)
      assert.deepStrictEqual(Pacer.copy(freeze(pacer), old), pacer)
    }
  })
})

describe("a copy of a pacer", () => {
  it("decides as its original would, and no event of the copy changes the original", { tags: "full" }, () => {
    const found = new Set<number | string>()
    for (let seed = 1; seed <= 30; seed++) {
      const trace = play(seed, plain, next)
      assert.deepStrictEqual(trace, play(seed, plain), `seed ${seed}`)
      for (const each of trace) found.add(each)
    }
    for (const verdict of ["isolated", "exhausted", "ramp", "outage"]) assert.isTrue(found.has(verdict), verdict)
  })

  it("decides so, too, if it is written onto the original before", { tags: "full" }, () => {
    for (let seed = 1; seed <= 30; seed++) {
      let before: Pacer.Pacer | undefined
      const onto = (pool: Pacer.Pacer): Pacer.Pacer => {
        const copy = Pacer.copy(pool, before)
        before = pool
        return copy
      }
      assert.deepStrictEqual(play(seed, plain, onto), play(seed, plain), `seed ${seed}`)
    }
  })

  it("may take over a call from another pacer without changing its original", () => {
    const limits = { outputTokens: { perMinute: 60_000, window: "sliding" } } as const
    const pool = next(Pacer.make(Rules.resolve(limits), Rules.shares(limits), 0))
    const smaller = Pacer.copy(pool)
    const admission = Pacer.take(smaller, whole(10), 0)
    Pacer.adopt(next(pool), admission)
    assert.strictEqual(pool.inFlight, 0)
  })

  it("may resume what a closed pool left without changing its original", () => {
    const limits = { tokens: { perMinute: 60_000, window: "sliding" } } as const
    const pool = Pacer.make(Rules.resolve(limits), Rules.shares(limits), 0)
    for (let i = 0; i < 5; i++) Pacer.settle(pool, Pacer.take(pool, whole(1_000), i * 2_000), whole(500), i * 2_000)
    const rest = freeze(Memory.snapshot(freeze(pool), 10_000))
    const resumed = next(Pacer.make(Rules.resolve(limits), Rules.shares(limits), 11_000))
    Memory.resume(resumed, { ...rest, memory: { dimensions: {}, window: 7 } }, 11_000)
    assert.strictEqual(resumed.window.size, 7)
  })
})

describe("admit", () => {
  it("is decide followed by take, in any state", { tags: "full" }, () => {
    let admitted = 0
    let blocked = 0
    const compare = (pool: Pacer.Pacer): Pacer.Pacer => {
      const now = 16 + Math.max(...pool.meters.map(({ at }) => at))
      const charge = whole(640)
      const [one, other] = [Pacer.copy(pool), Pacer.copy(pool)]
      const answer = Pacer.admit(one, charge, now)
      assert.deepStrictEqual(answer, Pacer.decide(other, charge, now) ?? Pacer.take(other, charge, now))
      assert.deepStrictEqual(one, other)
      if ("at" in answer) admitted++
      else blocked++
      return pool
    }
    for (let seed = 1; seed <= 10; seed++) play(seed, plain, compare)
    assert.isAbove(Math.min(admitted, blocked), 500)
  })
})

const tokensOf = ({ meters }: Pacer.Pacer): Meter.Meter => meters.find(({ dimension }) => dimension === "tokens")!

describe("a preview", () => {
  it("does not change its pacer", () => {
    const pool = poolOf(Pacer, { tokens: { perMinute: 60_000 }, requests: { perSecond: 10 } })
    let now = flow(Pacer, pool, 0, 20_000)
    now = exhaust(Pacer, pool, now)
    const before = structuredClone(pool)
    const ahead = Preview.of(pool)
    for (let i = 0; i < 20; i++) now = send(Pacer, ahead, now).at
    assert.deepStrictEqual(pool, before)
  })

  it("goes on by the share that headers measure, and lets one grow that only rejections measure", () => {
    for (const hasHeader of [true, false]) {
      const pool = poolOf(Pacer, { tokens: { perSecond: 10_000, burst: 1e6 } })
      const meter = tokensOf(pool)
      meter.mean = 100
      Meter.restart(meter, 5, 0)
      meter.level = -1e9
      if (hasHeader) meter.header = { at: 0, remaining: 0, sum: 0 }
      const ahead = Preview.of(pool)
      Pacer.decide(ahead, whole(100), 60_000)
      assert.strictEqual(Meter.rate(tokensOf(ahead)) === 5, hasHeader)
      Pacer.decide(pool, whole(100), 60_000)
      assert.isAbove(Meter.rate(meter), 5, "headers that become old measure nothing")
    }
  })

  it("admits calls up to a concurrency, and names that as what others wait for", () => {
    const pool = poolOf(Pacer, { tokens: { perSecond: 10_000 } })
    for (let i = 0; i < 2; i++) assert.property(Preview.admit(pool, 2, whole(10), 0), "at")
    assert.deepStrictEqual(Preview.admit(pool, 2, whole(10), 0), { by: "concurrency", millis: Infinity })
    assert.strictEqual(pool.inFlight, 2)
  })

  it("waits in whole milliseconds, and never too short for its time to advance", () => {
    for (const now of [0, 1e15, 1e18]) {
      const pool = poolOf(Pacer, { tokens: { perSecond: 3_000 } }, now)
      Pacer.take(pool, whole(3_000), now)
      const blocked = Preview.admit(pool, Infinity, whole(1), now)
      assert.notProperty(blocked, "at")
      const { by, millis } = blocked as Exclude<typeof blocked, Pacer.Admission>
      assert.strictEqual(by, "tokens")
      assert.isAbove(now + millis, now)
      assert.strictEqual(millis, now === 1e18 ? now * Number.EPSILON : 1)
    }
  })

  it("names the quota that is used up, and nothing that a call waits for", () => {
    const pool = poolOf(Pacer, { tokens: { total: 100 }, requests: { perSecond: 1, burst: 1 } })
    pool.opening = undefined
    const exhaustedBy = (maxInFlight: number, tokens: number) => {
      const blocked = Preview.admit(pool, maxInFlight, whole(tokens), 0)
      return "at" in blocked ? "admitted" : Preview.exhaustedBy(blocked)
    }
    assert.strictEqual(exhaustedBy(1, 101), "tokens")
    assert.strictEqual(exhaustedBy(9, 90), "admitted")
    assert.strictEqual(exhaustedBy(9, 5), undefined, "a request refills")
    assert.strictEqual(exhaustedBy(1, 11), undefined, "a place becomes free")
    assert.strictEqual(exhaustedBy(9, 11), "tokens")
  })
})

describe("what a call waits for", () => {
  it("is a dimension, the end of another call, or the end of a pause", () => {
    const pool = poolOf(Pacer, { requests: { perSecond: 1, burst: 1 } })
    pool.opening = undefined
    Pacer.take(pool, whole(1), 0)
    assert.strictEqual(Pacer.decide(pool, whole(1), 0)?.by, "requests")
    pool.window = { ...pool.window, size: 1, need: 9 }
    assert.strictEqual(Pacer.decide(pool, whole(1), 0)?.by, "concurrency")
    pool.window = { ...pool.window, size: 2 }
    Pacer.pause(pool, "overload", 5_000)
    assert.deepStrictEqual(Pacer.decide(pool, whole(1), 0), { by: "pause", millis: 5_000 })
    assert.deepStrictEqual((["tokens", "requests", "concurrency", "pause", undefined] as const).map(dimensionOf), [
      "tokens",
      "requests",
      undefined,
      undefined,
      undefined
    ])
  })
})

const size = 1_000
const millis = 120_000

/** The calls that go in the next two minutes, each of which takes `takes`, and the most in flight. */
const playedAhead = (pool: Pacer.Pacer, now: number, takes = 0) => {
  const ahead = Preview.ofLong(pool, now)
  const ends: Array<number> = []
  let calls = 0
  let most = 0
  for (let at = now; at < now + millis;) {
    for (; (ends[0] ?? Infinity) <= at; ends.shift()) ahead.inFlight--
    const answer = Preview.admit(ahead, Infinity, whole(size), at)
    if ("at" in answer) {
      ends.push(at + takes)
      calls++
      most = Math.max(most, ahead.inFlight)
    } else at = Math.min(at + answer.millis, ends[0] ?? Infinity)
  }
  return { calls, most }
}

describe("a pool that is played ahead for minutes", () => {
  it("delivers the average of what headers measured, not what they measured last", () => {
    const pool = poolOf(Pacer, { tokens: { perSecond: 10_000, burst: 100_000 } })
    // Others take half of the refill. Each header errs, because calls do not arrive in the order in which they were sent.
    const random = mulberry(1)
    const rates: Array<number> = []
    for (let now = 0; now < 300_000; now += 1_000) {
      const admission = Pacer.take(pool, whole(5_000), now)
      Pacer.observe(pool, admission, readings(10, now === 0 ? 100_000 : 80_000 - 60_000 * random()), now)
      answer(Pacer, pool, admission, now)
      if (now >= 270_000) rates.push((playedAhead(pool, now).calls * size) / millis)
    }
    // The bucket holds 50,000 to begin with.
    for (const rate of rates) assert.closeTo(rate, 5 + 50_000 / millis, 0.9)
  })

  it("delivers no more than before, if rejections have shown how much that is", () => {
    const pool = poolOf(Pacer)
    const now = exhaust(Pacer, pool, flow(Pacer, pool, exhaust(Pacer, pool, 0), 60_000, 0.5))
    const { calls } = playedAhead(pool, now)
    assert.isAtMost((calls * size) / millis, 1.1 * 5)
    assert.isAtLeast((calls * size) / millis, 0.8 * 5)
  })

  it("keeps to a learned limit of calls in flight, which attempts to grow would refute", () => {
    const pool = poolOf(Pacer, { tokens: { perSecond: 10_000_000, burst: 10_000_000 } })
    const burst = { knownAt: 0, refused: 0, times: 3, first: 1, found: 5 }
    pool.window = Window.claim({ ...Window.make(), high: 5, burst }, 0, 100)
    assert.strictEqual(playedAhead(pool, 0, 1_000).most, 5)
    pool.window = { ...pool.window, size: 7, sure: 5 }
    assert.strictEqual(playedAhead(pool, 0, 1_000).most, 5)
  })

  /** A pool that has used its bucket up, with the given figures of its meter, played ahead for two minutes. */
  const rateAhead = (figures: Partial<Meter.Meter>, change: (pool: Pacer.Pacer) => void = () => {}): number => {
    const pool = poolOf(Pacer, { tokens: { perSecond: 10_000, burst: 10_000 } })
    Object.assign(tokensOf(pool), { mean: size, level: 0, ...figures })
    change(pool)
    return (playedAhead(pool, 0).calls * size) / millis
  }

  it("delivers the average even if the rate in use has just grown to the limit", () => {
    const header = { at: 0, remaining: 0, sum: 0 }
    assert.closeTo(rateAhead({ header, lasting: 4 }), 4, 0.1)
    assert.closeTo(rateAhead({ header, lasting: 15 }), 10, 0.1, "and no more than the limit")
    assert.closeTo(rateAhead({}), 10, 0.1, "the whole limit if no measurement contradicts it")
  })

  it("delivers a measured share without growth, even if it has grown before or headers are distrusted", () => {
    const share = { floor: 3.6, peak: 4, phase: 0, lasting: 4 }
    assert.closeTo(rateAhead(share), 4, 0.1)
    assert.closeTo(rateAhead({ ...share, phase: 2 }), 4, 0.1)
    assert.closeTo(
      rateAhead(share, (pool) => void (pool.distrustUntil = 60_000)),
      4,
      0.1
    )
  })

  it("delivers the larger of what was measured and what was sent, if there is no average yet", () => {
    const share = { floor: 3.6, peak: 4, since: -1e9, phase: 0, lasting: undefined }
    assert.closeTo(rateAhead(share), 4, 0.1)
    assert.closeTo(rateAhead({ ...share, recent: 6 * 60_000 }), 6, 0.1)
  })
})

describe("the port of a pool of one process", () => {
  it("never changes a state that somebody has read, whenever that was", () => {
    const { later, port } = makePort()
    const random = mulberry(1)
    const read: Array<readonly [state: object, was: object]> = []
    for (let i = 0; i < 50; i++) {
      if (random() < 0.3) read.push([port.state, structuredClone(port.state)])
      if (random() < 0.3) assert.strictEqual(port.current.law.sent, i, "a look changes nothing")
      later(10)
      call(port)
    }
    assert.isAbove(read.length, 10)
    for (const [state, was] of read) assert.deepStrictEqual(state, was)
  })

  it("never changes the state that it was opened with", () => {
    const began = makePort().port.state
    const was = structuredClone(began)
    const { port } = makePort(began)
    for (let i = 0; i < 3; i++) call(port)
    assert.deepStrictEqual(began, was)
  })

  it("stays as it was if a step throws, and goes on", () => {
    const { later, port } = makePort()
    for (let i = 0; i < 3; i++) call(port)
    later(10)
    const was = structuredClone(port.current)
    const careless = (): void =>
      port.transact((draft, now) => {
        sendStep(draft, now)
        throw new Error("careless")
      })
    for (let i = 0; i < 3; i++) assert.throws(careless, "careless")
    assert.deepStrictEqual(port.current, was)
    call(port)
    assert.strictEqual(port.current.law.sent, 4)
  })

  it("needs the buckets of two states and no more while nobody reads them", () => {
    const { port } = makePort()
    const buckets = new Set<unknown>()
    for (let i = 0; i < 20; i++) {
      port.transact(sendStep)
      buckets.add(port.current.law.meters[0])
    }
    assert.strictEqual(buckets.size, 2)
  })
})
