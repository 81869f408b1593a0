/**
 * The rules of pacing, as checks that take the law as an argument: they run over `src/pacing`, and over copies with a
 * planted fault. A check fails by an assertion.
 */
import { assert } from "@effect/vitest"
import type * as Limits from "floodgate/Limits"
import * as Amounts from "../../src/domain/amounts.ts"
import * as Rules from "../../src/domain/rules.ts"
import type * as Pacer from "../../src/pacing/pacer.ts"
import * as Ledger from "./ledger.ts"
import { play, type Play, readings, type TheLaw, whole } from "./play.ts"
import { mulberry } from "./random.ts"

/** 10,000 tokens a second: ten calls of mean size. */
const limits = { tokens: { perSecond: 10_000, burst: 10_000 } }
const weather = { rate: 10, burst: 10_000 }
const tokens = 1_000

export const poolOf = (law: TheLaw, of: Limits.Limits = limits, now = 0): Pacer.Pacer =>
  law.make(Rules.resolve(of), Rules.shares(of), now)

/** A call that goes as soon as it may. Returns its admission, which says when. */
export const send = (law: TheLaw, pool: Pacer.Pacer, now: number, size = tokens): Pacer.Admission => {
  let at = now
  for (let looks = 0; ; looks++) {
    const blocked = law.decide(pool, whole(size), at)
    if (blocked === undefined) return law.take(pool, whole(size), at)
    assert.isBelow(looks, 20, `it is blocked for ${blocked.millis} ms again and again`)
    at += Math.ceil(blocked.millis)
  }
}

export const answer = (law: TheLaw, pool: Pacer.Pacer, admission: Pacer.Admission, now: number): void => {
  law.accept(pool, admission)
  law.settle(pool, admission, admission.charge, now)
}

export const reject = (
  law: TheLaw,
  pool: Pacer.Pacer,
  admission: Pacer.Admission,
  now: number,
  says: Partial<Parameters<typeof Pacer.reject>[2]> = {}
): Pacer.Verdict =>
  law.reject(
    pool,
    admission,
    { reason: "rateLimit", retryAfter: undefined, readings: undefined, used: Amounts.nothing, ...says },
    now
  )

export const fail = (
  law: TheLaw,
  pool: Pacer.Pacer,
  admission: Pacer.Admission,
  now: number,
  retryAfter?: number
): Pacer.Verdict => law.overload(pool, admission, { retryAfter, used: Amounts.nothing }, now)

/** Milliseconds until a call is admitted. */
export const wait = (law: TheLaw, pool: Pacer.Pacer, now: number, size = tokens): number =>
  law.decide(pool, whole(size), now)?.millis ?? 0

/** Tokens per millisecond that are admitted in the next seconds from an empty bucket. */
export const rateOf = (law: TheLaw, pool: Pacer.Pacer, now: number, millis = 2_000): number => {
  const ahead = structuredClone(pool)
  const small = 20
  let at = send(law, ahead, now, small).at
  while (wait(law, ahead, at, small) === 0) at = send(law, ahead, at, small).at
  const from = at
  let sum = 0
  while (at < from + millis) {
    at = send(law, ahead, at, small).at
    sum += small
  }
  return sum / (at - from)
}

/** Sends calls as fast as they are admitted for some time, all of them accepted. Returns the time at the end. */
export const flow = (law: TheLaw, pool: Pacer.Pacer, from: number, millis: number, part = 1, size = tokens): number => {
  let now = from
  while (now < from + millis) {
    const admission = send(law, pool, now, size)
    now = Math.max(admission.at, now + size / (weather.rate * part))
    answer(law, pool, admission, now)
  }
  return now
}

/** Sends calls that are all rejected until the verdict is an exhaustion. Returns the time at the end. */
export const exhaust = (law: TheLaw, pool: Pacer.Pacer, from: number): number => {
  let now = from
  for (let i = 0; i < 10; i++) {
    const admission = send(law, pool, now)
    now = admission.at + 50
    if (reject(law, pool, admission, now) === "exhausted") return now
  }
  return assert.fail("ten rejections in a row are an exhaustion")
}

const seeds = [1, 2, 3]

const plays = (law: TheLaw, of: Omit<Play, "seed" | "millis" | "callers" | "limits" | "weather"> & Partial<Play>) =>
  seeds.map((seed) => ({ seed, ...play(law, { weather, limits, callers: 60, millis: 240_000, seed, ...of }) }))

const usesAtLeast = (law: TheLaw, name: string, of: Partial<Play>, used: number, rejected: number): void => {
  for (const { lost, rejected: part, seed, used: whole } of plays(law, of)) {
    assert.isAtLeast(whole, used, `${name}, seed ${seed}: used`)
    assert.isAtMost(part, rejected, `${name}, seed ${seed}: rejected`)
    assert.deepStrictEqual(lost, [], `${name}, seed ${seed}: lost`)
  }
}

export type Rule = (law: TheLaw) => void

/** The rules of admission, from meters to what nothing is known about. */
export const rules = {
  "meter: charges all dimensions at once, or none": (law) => {
    const pool = poolOf(law, { requests: { perSecond: 1, burst: 3 }, tokens: { perSecond: 1_000, burst: 10_000 } })
    for (let i = 0; i < 3; i++) assert.strictEqual(send(law, pool, 0, 100).at, 0)
    const blocked = law.decide(pool, whole(100), 0)
    assert.deepStrictEqual([blocked?.by, Math.ceil(blocked?.millis ?? 0)], ["requests", 1_000])
    // The call that waits for requests has taken no tokens.
    assert.strictEqual(wait(law, pool, 1_000, 9_700 + 300), 0)
    law.take(pool, whole(10_000), 1_000)
    assert.deepStrictEqual(law.decide(pool, whole(100), 2_000)?.by, undefined)
    assert.deepStrictEqual(law.decide(pool, whole(5_000), 2_000)?.by, "tokens")
  },

  "meter: admits a call to the millisecond, however often it is asked": (law) => {
    for (let seed = 1; seed <= 20; seed++) {
      const random = mulberry(seed)
      const pool = poolOf(law)
      let now = exhaust(law, pool, flow(law, pool, 0, 10_000))
      for (let call = 0; call < 10; call++) {
        const size = Math.ceil(4_000 * random())
        const from = now
        const millis = Math.ceil(wait(law, pool, now, size))
        while (now < from + millis - 1) {
          assert.isAbove(wait(law, pool, now, size), 0, `seed ${seed}: it fits early`)
          now = Math.min(from + millis - 1, now + 1 + Math.floor(100 * random()))
        }
        now = from + millis
        assert.isUndefined(law.decide(pool, whole(size), now), `seed ${seed}: it does not fit after ${millis} ms`)
        law.take(pool, whole(size), now)
      }
    }
  },

  "verdicts: come in order, and do not wait for answers": (law) => {
    // Calls arrive at fixed times, some are rejected, and answers take 1, 20 or 60 s.
    const verdicts = [1_000, 20_000, 60_000].map((answerMillis) => {
      const random = mulberry(5)
      const pool = poolOf(law)
      const ends: Array<{ readonly at: number; readonly run: () => void }> = []
      const seen: Array<string> = []
      let free = 0
      const runUntil = (now: number) => {
        for (const end of ends.filter(({ at }) => at <= now).sort((a, b) => a.at - b.at)) end.run()
        ends.splice(0, ends.length, ...ends.filter(({ at }) => at > now))
      }
      for (let n = 0; n < 1_500; n++) {
        runUntil(Math.max(free, n * 120))
        const admission = send(law, pool, Math.max(free, n * 120))
        free = admission.at
        const isRejected = random() < 0.01 || n % 150 === 100 || n % 150 === 101
        const at = admission.at + (isRejected ? 50 : answerMillis)
        ends.push({
          at,
          run: isRejected
            ? () => seen.push(`${n} ${reject(law, pool, admission, at)}`)
            : () => answer(law, pool, admission, at)
        })
      }
      runUntil(Infinity)
      return seen.sort()
    })
    assert.isAtLeast(verdicts[0]!.filter((each) => each.includes("exhausted")).length, 3)
    assert.deepStrictEqual(verdicts[1], verdicts[0])
    assert.deepStrictEqual(verdicts[2], verdicts[0])
  },

  "verdicts: random rejections of one burst that arrive together raise no alarm": (law) => {
    const pool = poolOf(law, { tokens: { perSecond: 1_000_000, burst: 10_000_000 } })
    let now = flow(law, pool, 0, 5_000)
    const admissions = Array.from({ length: 500 }, () => send(law, pool, now))
    now += 50
    const rejected = admissions.filter((_, i) => i % 20 === 10).toReversed()
    const found = rejected.map((admission) => reject(law, pool, admission, now))
    assert.deepStrictEqual(new Set(found), new Set(["isolated"]))
  },

  "judging: a rejection is an exhaustion if its headers leave less than its charge, and only then": (law) => {
    for (const [remaining, verdict] of [
      [99, "exhausted"],
      [9_000, "isolated"]
    ] as const) {
      const pool = poolOf(law)
      const now = flow(law, pool, 0, 5_000, 1, 100)
      assert.strictEqual(
        reject(law, pool, send(law, pool, now, 100), now + 50, { readings: readings(10, remaining) }),
        verdict
      )
    }
  },

  "isolated: a lone rejection changes nothing for others": (law) => {
    // A hundred calls a second: of fewer than ten one rejection may be a false alarm, which costs a tenth for a period.
    const small = 100
    for (let seed = 1; seed <= 20; seed++) {
      const random = mulberry(seed)
      const before = poolOf(law)
      const start = flow(law, before, 0, 5_000 + 5_000 * random(), 1, small)
      const open = Array.from({ length: 50 }, () => send(law, before, start, small))
      const number = Math.floor(50 * random())
      const now = open.at(-1)!.at + 50
      const orders = [true, false].map((isRejected) => {
        const pool = structuredClone(before)
        const admission = structuredClone(open[number]!)
        if (isRejected) assert.strictEqual(reject(law, pool, admission, now), "isolated", `seed ${seed}`)
        else law.release(pool, admission, Amounts.nothing, now)
        let at = now
        return Array.from({ length: 300 }, () => (at = send(law, pool, at, small).at))
      })
      assert.deepStrictEqual(orders[0], orders[1], `seed ${seed}`)
    }
  },

  "isolated: random rejections of 0.1, 1 and 5 % cost next to nothing, however long answers take": (law) => {
    for (const random of [0.001, 0.01, 0.05]) {
      for (const answerMillis of [2_000, 20_000]) {
        const callers = answerMillis / 25
        const name = `${random}, answers after ${answerMillis} ms`
        usesAtLeast(
          law,
          name,
          { weather: { ...weather, random, answerMillis, hasHeaders: true }, callers },
          0.98,
          0.005
        )
        usesAtLeast(law, name, { weather: { ...weather, random, answerMillis }, callers }, 0.95, 0.01)
      }
    }
  },

  "exhausted: the rate becomes what was delivered between two exhaustions, at most halved at once": (law) => {
    for (const part of [0.9, 0.7, 0.5, 0.2]) {
      const pool = poolOf(law)
      const first = exhaust(law, pool, flow(law, pool, 0, 10_000))
      const last = flow(law, pool, first, 30_000, part)
      const before = rateOf(law, pool, last)
      const after = rateOf(law, pool, exhaust(law, pool, last), 200)
      const expected = Math.max(part * weather.rate, before / 2)
      // It starts a tenth below, and grows.
      assert.isAtLeast(after, 0.87 * expected, `${part} delivered`)
      assert.isAtMost(after, 1.02 * expected, `${part} delivered`)
    }
  },

  "exhausted: a false alarm costs at most a tenth, for one period": (law) => {
    const pool = poolOf(law)
    const now = exhaust(law, pool, flow(law, pool, 0, 30_000))
    assert.isAtLeast(rateOf(law, pool, now, 500), 0.9 * weather.rate - 0.05)
    assert.isAtLeast(rateOf(law, pool, flow(law, pool, now, 4_000)), 0.99 * weather.rate)
  },

  "exhausted: finds the part of a limit that others do not use": (law) => {
    for (const [share, rejected] of [
      [0.5, 0.04],
      [0.25, 0.08]
    ] as const) {
      usesAtLeast(law, `${share}`, { weather: { ...weather, share: () => share } }, 0.9, rejected)
    }
    const square = (now: number) => (now % 60_000 < 30_000 ? 1 : 0.5)
    usesAtLeast(law, "a neighbour that comes and goes", { weather: { ...weather, share: square } }, 0.88, 0.05)
  },

  "exhausted: without accepted calls in between, one call at a time probes after 1, 2, 4 and 8 s": (law) => {
    const pool = poolOf(law)
    let now = exhaust(law, pool, flow(law, pool, 0, 20_000))
    const rateBefore = 0.9 * weather.rate
    const pauses: Array<number> = []
    for (let probe = 0; probe < 6; probe++) {
      const admission = send(law, pool, now)
      if (probe > 0) pauses.push(admission.at - now)
      assert.isAbove(probe === 0 ? 1 : wait(law, pool, admission.at), 0, "one probe at a time")
      now = admission.at + 50
      // The first of them is judged by a streak, as any other.
      if (reject(law, pool, admission, now) !== "exhausted") now = exhaust(law, pool, now)
    }
    assert.isTrue(
      pauses.every((pause, i) => pause >= 0.9 * [1_000, 2_000, 4_000, 8_000, 8_000][i]! && pause <= 8_100),
      pauses.join()
    )
    // A blackout measures no share.
    const probe = send(law, pool, now)
    answer(law, pool, probe, probe.at + 500)
    assert.strictEqual(law.decide(pool, whole(1), probe.at + 600), undefined)
    assert.isAtLeast(rateOf(law, pool, probe.at + 600), 0.8 * rateBefore)
  },

  "headers: lower levels apply at once, higher ones gradually": (law) => {
    const requests = { limit: 1e6, remaining: 1e9, roundedTo: 1 }
    const waits = (remaining: number) => {
      const pool = poolOf(law, {})
      law.observe(pool, undefined, { requests, ...readings(10, 10_000) }, 0)
      // 5,000 are left by our own count.
      const admissions = Array.from({ length: 5 }, () => send(law, pool, 0))
      law.accept(pool, admissions[4]!)
      law.observe(pool, admissions[4], readings(10, remaining), 0)
      return wait(law, pool, 0, 10_000)
    }
    assert.strictEqual(Math.round(waits(0)), 1_000)
    assert.closeTo(waits(2_000), 800, 10)
    const own = waits(5_000)
    assert.closeTo(own, 500, 10)
    assert.isBelow(waits(9_000), own - 50)
    assert.isAbove(waits(9_000), own - 150)
  },

  "headers: measure the share, so that few calls are rejected": (law) => {
    for (const share of [0.75, 0.5, 0.25]) {
      const of = { weather: { ...weather, share: () => share, hasHeaders: true } }
      usesAtLeast(law, `${share}`, of, 0.97, 0.02)
    }
  },

  "headers: are ignored if they show room that does not exist": (law) => {
    // They show the whole bucket, and a third of the limit is there.
    const of = { weather: { ...weather, share: () => 0.3 }, millis: 120_000 }
    const honest = plays(law, of)
    const lying = seeds.map((seed) => {
      const stale = {
        ...law,
        observe: (pool: Pacer.Pacer, admission: Pacer.Admission | undefined, _: Pacer.Readings, now: number) =>
          law.observe(pool, admission, readings(10, 10_000), now),
        reject: (
          pool: Pacer.Pacer,
          admission: Pacer.Admission,
          says: Parameters<typeof Pacer.reject>[2],
          now: number
        ) => law.reject(pool, admission, { ...says, readings: readings(10, 10_000) }, now)
      }
      return play(stale, { limits, callers: 60, seed, ...of, weather: { ...of.weather, hasHeaders: true } })
    })
    for (const [i, { rejected, used }] of lying.entries()) {
      assert.isAtLeast(used, 0.8)
      assert.isAtMost(rejected, honest[i]!.rejected + 0.08)
    }
  },

  "window: finds an undeclared limit of calls in flight": (law) => {
    for (const { rejected, sent, seed } of plays(law, { weather: { ...weather, concurrency: 10, burst: 1e6 } })) {
      // Ten calls of 1,000 tokens and 2 s are half of the limit.
      const delivered = sent.filter(({ at, outcome }) => outcome.kind === "accepted" && at > 60_000)
      const perSecond = delivered.reduce((sum, each) => sum + each.tokens, 0) / 180
      assert.isAtLeast(perSecond, 0.7 * 5_000, `seed ${seed}`)
      assert.isAtMost(rejected, 0.04, `seed ${seed}`)
    }
  },

  "overload: a lone one delays nobody, and 5 % of random ones cost next to nothing": (law) => {
    const pool = poolOf(law)
    const now = flow(law, pool, 0, 10_000)
    assert.strictEqual(fail(law, pool, send(law, pool, now), now + 50), "isolated")
    assert.strictEqual(wait(law, pool, now + 50), 0)
    for (const broken of [0.001, 0.01, 0.05]) {
      usesAtLeast(law, `${broken}`, { weather: { ...weather, broken } }, 0.95, 0)
    }
  },

  "overload: an outage is probed after 1, 2, 3, 5, 7, 10 s, one call at a time": (law) => {
    for (const from of [0, 20_000]) {
      const pool = poolOf(law)
      let now = from === 0 ? 0 : flow(law, pool, 0, from)
      let failures = 0
      let verdict: Pacer.Verdict
      do {
        failures++
        const admission = send(law, pool, now)
        now = Math.max(now, admission.at) + 50
        verdict = fail(law, pool, admission, now)
        assert.include(["isolated", "outage"], verdict)
      } while (verdict === "isolated")
      if (from === 0) assert.isAtMost(failures, 3, "at the start, where nothing was accepted")
      else assert.isAtMost(now - from, 2_500)
      const pauses: Array<number> = []
      for (let probe = 0; probe < 6; probe++) {
        const admission = send(law, pool, now)
        pauses.push(admission.at - now)
        assert.isAbove(wait(law, pool, admission.at + 1), 0, "one probe at a time")
        now = admission.at + 50
        assert.strictEqual(fail(law, pool, admission, now), "outage")
      }
      assert.deepStrictEqual(pauses, [1_000, 2_000, 3_000, 5_000, 7_000, 10_000])
      const probe = send(law, pool, now)
      answer(law, pool, probe, probe.at + 100)
      assert.strictEqual(wait(law, pool, probe.at + 100), 0)
    }
  },

  "overload: a request that always fails stops no other call": (law) => {
    for (const { seed, sent, lost, used } of plays(law, {
      weather: { ...weather, isPoison: (id) => id % 100 === 30 }
    })) {
      assert.isAtLeast(used, 0.95, `seed ${seed}`)
      assert.isTrue(lost.every((id) => id % 100 === 30))
      assert.isTrue(sent.every(({ outcome }) => outcome.kind !== "overloaded" || outcome.isRandom))
    }
  },

  "overload: an outage uses up no attempts, and all calls go soon after it": (law) => {
    for (const [from, to] of [
      [0, 3_000],
      [0, 30_000],
      [100_000, 101_000],
      [100_000, 130_000]
    ] as const) {
      for (const { lost, seed, sent } of plays(law, { weather: { ...weather, outage: { from, to } } })) {
        const name = `an outage from ${from} to ${to}, seed ${seed}`
        assert.deepStrictEqual(lost, [], name)
        const back = sent.filter(({ at, outcome }) => at >= to && outcome.kind === "accepted").map(({ at }) => at)
        assert.isAtMost(back[0]! - to, 10_100, name)
        assert.isAtMost(back[59]! - back[0]!, 15_000, name)
      }
    }
  },

  "nothing known: calls double with each round of verdicts until rejections or headers end that": (law) => {
    const opening = (hasHeaders: boolean) =>
      play(law, { weather: { ...weather, hasHeaders }, limits: {}, callers: 60, millis: 60_000, seed: 1 })
    for (const hasHeaders of [true, false]) {
      const { lost, rejected, sent, used } = opening(hasHeaders)
      const early = sent.filter(({ at }) => at < 1_000).length
      assert.strictEqual(sent.filter(({ at }) => at === 0).length, 1, "one call alone at first")
      assert.isAtMost(early, 16)
      assert.isAtLeast(used, hasHeaders ? 0.9 : 0.85)
      assert.isAtMost(rejected, hasHeaders ? 0.02 : 0.06)
      assert.deepStrictEqual(lost, [])
    }
  },

  "ramp: growth is bounded by 40 % a minute after a ramp error": (law) => {
    const pool = poolOf(law, {})
    let now = 0
    // 100 tokens a second for two minutes.
    for (; now < 120_000; now += 1_000) answer(law, pool, send(law, pool, now, 100), now + 500)
    const admission = send(law, pool, now, 100)
    assert.strictEqual(reject(law, pool, admission, now + 50, { reason: "ramp", retryAfter: 3_000 }), "ramp")
    assert.closeTo(wait(law, pool, now + 50, 100), 3_000, 1)
    const before = 100
    for (let minute = 1; minute <= 4; minute++) {
      let sum = 0
      const end = now + 60_000
      while (now < end) {
        const next = send(law, pool, now, 100)
        now = next.at
        sum += 100
        answer(law, pool, next, now)
      }
      const perSecond = sum / 60
      assert.isAtMost(perSecond, 1.15 * before * 1.4 ** minute, `minute ${minute}`)
      assert.isAtLeast(perSecond, 0.8 * before * 1.4 ** (minute - 1), `minute ${minute}`)
    }
  },

  "cap: the part of a quota that is kept stays kept when limits change, even before any call": (law) => {
    const quota = { total: 100_000 }
    const pool = poolOf(law, { tokens: quota })
    // As for a process that cannot be reached.
    pool.caps.tokens!.level -= 60_000
    law.resize(pool, Rules.resolve({ tokens: quota, requests: { perMinute: 60 } }), {}, 1)
    assert.strictEqual(pool.caps.tokens!.level, 40_000)
    assert.strictEqual(wait(law, pool, 1, 40_000), 0)
    assert.strictEqual(wait(law, pool, 1, 50_000), Infinity)
  },

  "cap: neither headers nor an oversized call raise what the user states": (law) => {
    const stated = [{ perSecond: 1_000, burst: 2_000 }, { perMinute: 60_000 }]
    for (const [limit, bucket] of [
      [stated[0]!, { burst: 2_000, rate: 1 }],
      [stated[1]!, { burst: 3_000, rate: 0.95 }]
    ] as const) {
      const pool = poolOf(law, { tokens: limit })
      const taken: Array<Ledger.Movement> = []
      let now = 0
      for (let i = 0; i < 300; i++) {
        const size = i === 50 ? 20_000 : 400
        const admission = send(law, pool, now, size)
        now = admission.at
        taken.push({ at: now, amount: size, admittedAt: undefined })
        law.accept(pool, admission)
        law.observe(pool, admission, readings(1_000, 1_000_000), now)
        law.settle(pool, admission, admission.charge, now)
      }
      assert.isUndefined(Ledger.overBucket(taken, bucket))
    }
  }
} satisfies Record<string, Rule>

export type RuleName = keyof typeof rules
