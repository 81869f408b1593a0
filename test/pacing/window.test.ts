/** The in-flight window: learning a limit of calls in flight that the provider does not name. */
import { assert, describe, it } from "@effect/vitest"
import type * as Limits from "floodgate/Limits"
import * as Window from "../../src/pacing/window.ts"
import * as Rules from "../../src/domain/rules.ts"
import * as Pacer from "../../src/pacing/pacer.ts"
import { whole } from "../support/play.ts"
import { mulberry } from "../support/random.ts"
import { answer, exhaust, fail, poolOf, reject, send } from "../support/rules.ts"

interface Provider {
  /** The calls in flight that the provider allows, at a time in seconds. */
  readonly limit: (seconds: number) => number
  /** The fraction that it rejects at random. */
  readonly random?: number
  /** The number of callers. */
  readonly demand: number
}

/** The events of a window, applied to one object. */
const on = {
  sent: (window: Window.Window, inFlight: number): void => void Object.assign(window, Window.sent(window, inFlight)),
  accepted: (window: Window.Window, inFlight: number): void =>
    void Object.assign(window, Window.accepted(window, inFlight, 0)),
  rejected: (...[window, ...event]: Parameters<typeof Window.rejected>): void =>
    void Object.assign(window, Window.rejected(window, ...event)),
  grow: (...[window, ...event]: Parameters<typeof Window.grow>): number =>
    Window.growsAt(Object.assign(window, Window.grow(window, ...event)))
}

const rejectMillis = 50

/**
 * Calls that take a second each, against a provider that rejects within 50 ms. Returns for each second the mean number in
 * flight, and the part of all calls that was rejected.
 */
const play = ({ demand, limit, random: part = 0 }: Provider, seconds: number, seed = 1) => {
  const random = mulberry(seed)
  const window = Window.make()
  interface Call {
    readonly inFlight: number
    readonly crowded: number
    readonly isRejected: boolean
    readonly endsAt: number
  }
  const open = new Set<Call>()
  const used: Array<number> = []
  let sent = 0
  let rejected = 0
  let atProvider = 0
  const step = 10
  for (let now = 0; now < seconds * 1_000; now += step) {
    for (const call of open) {
      if (call.endsAt > now) continue
      open.delete(call)
      if (call.isRejected) {
        on.rejected(window, call, { random: part, score: 5, pending: 1 })
      } else {
        atProvider--
        on.accepted(window, call.inFlight)
      }
    }
    const mayGo = () => {
      if (open.size < window.size) return true
      on.grow(window, now, 2 * rejectMillis)
      return open.size < window.size
    }
    while (open.size < demand && mayGo()) {
      sent++
      const isRejected = atProvider >= limit(now / 1_000) || random() < part
      if (isRejected) rejected++
      else atProvider++
      const millis = isRejected ? rejectMillis : 500 + 1_000 * random()
      on.sent(window, open.size + 1)
      open.add({ inFlight: open.size + 1, crowded: window.crowded, isRejected, endsAt: now + millis })
      // A caller pauses for a moment after a rejection, and before its next call.
      if (random() < 0.5) break
    }
    const second = Math.floor(now / 1_000)
    used[second] = (used[second] ?? 0) + (atProvider * step) / 1_000
  }
  return { used, rejected: rejected / sent, window }
}

const mean = (values: ReadonlyArray<number>): number => values.reduce((a, b) => a + b, 0) / values.length

describe("window", () => {
  it("finds an undeclared limit of calls in flight, uses it, and seldom exceeds it", () => {
    for (const limit of [4, 10, 30]) {
      const { rejected, used } = play({ limit: () => limit, demand: 60 }, 300)
      assert.isAtLeast(mean(used.slice(60)), 0.85 * limit, `${limit} in flight`)
      assert.isAtMost(rejected, 0.08, `${limit} in flight`)
    }
  })

  it("is open until several calls in a row are rejected that find as many in flight as ever", () => {
    const window = Window.make()
    assert.strictEqual(window.size, Infinity)
    for (let i = 0; i < 100; i++) {
      on.sent(window, 20)
      on.accepted(window, 20)
    }
    on.sent(window, 20)
    on.rejected(window, { inFlight: 20, crowded: window.crowded }, { random: 0.001, score: 5, pending: 1 })
    assert.strictEqual(window.size, Infinity)
  })

  it("ignores rejections of calls with few others in flight", () => {
    const window = Window.make()
    for (let i = 0; i < 200; i++) {
      on.sent(window, 20)
      on.accepted(window, 20)
    }
    for (let i = 0; i < 50; i++) {
      on.sent(window, 5)
      on.rejected(window, { inFlight: 5, crowded: window.crowded }, { random: 0.001, score: 5, pending: 1 })
    }
    assert.strictEqual(window.size, Infinity)
  })

  it("loses little of the calls in flight to random rejections of 1 and 5 %", { tags: "full" }, () => {
    for (const random of [0.01, 0.05]) {
      for (let seed = 1; seed <= 5; seed++) {
        const { used } = play({ limit: () => Infinity, random, demand: 40 }, 300, seed)
        assert.isAtLeast(mean(used.slice(10)), 0.8 * 40, `${random}, seed ${seed}`)
      }
    }
  })

  it("grows back when the limit is raised, and when it is gone", () => {
    const raised = play({ limit: (seconds) => (seconds < 120 ? 10 : 40), demand: 60 }, 600)
    assert.isAtMost(mean(raised.used.slice(60, 120)), 10)
    assert.isAtLeast(mean(raised.used.slice(300)), 0.85 * 40)
    const gone = play({ limit: (seconds) => (seconds < 120 ? 10 : Infinity), demand: 150 }, 600)
    assert.isAtLeast(mean(gone.used.slice(500)), 0.9 * 150)
  })

  it("shrinks to a limit that was lowered", () => {
    const { used } = play({ limit: (seconds) => (seconds < 120 ? 40 : 10), demand: 60 }, 400)
    assert.isAtLeast(mean(used.slice(60, 120)), 0.85 * 40)
    assert.isAtMost(mean(used.slice(200)), 10)
    assert.isAtLeast(mean(used.slice(200)), 8)
  })

  it("never allows fewer than two in flight, because that looks the same as a bucket", () => {
    const { window } = play({ limit: () => 1, demand: 10 }, 60)
    assert.isTrue(window.size === Infinity || window.size >= 2)
  })

  describe("explains rejections", () => {
    /** A window that accepted up to `high`, and then rejected calls, one after the other, that found so many. */
    const after = (high: number, ...found: ReadonlyArray<number>): Window.Window => {
      let window = Window.accepted(Window.make(), high, 0)
      for (const [i, others] of found.entries()) {
        const call = { at: 100 * i, number: i + 1, inFlight: others + 1, refused: i }
        window = Window.noted(window, call, i, 100 * i + 50)
      }
      return window
    }

    it("that found as many in flight as were ever accepted, or up to the slack fewer, and at least two", () => {
      for (const [high, found, slack, expected] of [
        [10, 10, 0, true],
        [10, 9, 0, false],
        [10, 9, 1, true],
        [10, 8, 1, false],
        [0, 2, 0, true],
        [0, 1, 0, false]
      ] as const) {
        const window = after(high, found, found, found)
        assert.strictEqual(Window.explains(window, { slack }), expected, `${found} of ${high}, less ${slack}`)
      }
    })

    it("after three of them in a row that found the same number, or as many as are asked for", () => {
      assert.isFalse(Window.explains(after(5, 5, 5)))
      assert.isTrue(Window.explains(after(5, 5, 5), { times: 2 }))
      assert.isTrue(Window.explains(after(5, 5, 5, 5)))
      assert.isFalse(Window.explains(after(5, 5, 5, 6)))
      assert.isFalse(Window.explains(after(5, 5, 6, 6)))
      assert.isTrue(Window.explains(after(5, 5, 6, 6, 6)))
    })

    it("never while it is refuted, until a call is accepted that was sent later", () => {
      const refuted = { ...after(5, 5, 5, 5), refutedAt: 1_000 }
      for (const inFlight of [undefined, 5]) {
        const explains = (sentAt: number): boolean => Window.explains(Window.accepted(refuted, inFlight, sentAt))
        assert.deepStrictEqual([999, 1_000, 1_001].map(explains), [false, false, true])
      }
    })

    it("densely if nearly all calls since the first were rejected, by the odds against random rejections", () => {
      const window = after(5, 5, 5, 5, 5)
      /** The odds that `accepted` calls between those four leave, if a part of all calls is rejected at random. */
      const isDense = (accepted: number, random: number, score: number): boolean =>
        Window.isDense({ ...window, burst: { ...window.burst!, first: 1 } }, 4 + accepted, random, score)
      for (const [accepted, random] of [
        [0, 0.02],
        [0, 0.2],
        [3, 0.02],
        [3, 0.2]
      ] as const) {
        const odds = 4 * Math.log(0.5 / random) - accepted * Math.log((1 - random) / 0.5)
        assert.isTrue(isDense(accepted, random, odds - 1e-6), `${accepted} accepted, ${random}`)
        assert.isFalse(isDense(accepted, random, odds + 1e-6), `${accepted} accepted, ${random}`)
      }
      const most = 4 * Math.log(0.5 / 0.02)
      assert.isFalse(isDense(0, 0, most + 1e-6), "of random rejections at least 2 % are assumed")
      assert.isFalse(isDense(-2, 0.02, most + 1e-6), "calls that were sent later accept nothing")
      assert.isTrue(isDense(-2, 0.02, most - 1e-6))
      assert.isFalse(Window.isDense(Window.make(), 10, 0.02, 0), "nothing was rejected")
    })
  })

  describe("that was claimed", () => {
    const burst = (found: number): Window.Burst => ({ knownAt: 0, refused: 0, times: 3, first: 7, found })

    it("holds as many calls as the last rejections found, at least two, and grows after the time of a verdict", () => {
      for (const [found, size] of [
        [5, 5],
        [1, 2]
      ] as const) {
        const window = Window.claim({ ...Window.make(), burst: burst(found) }, 1_000, 100)
        assert.deepStrictEqual([window.size, Window.growsAt(window)], [size, 1_100])
      }
    })

    it("is refuted by a call that was sent after a rejected one and found more than half as many again, and two, in flight", () => {
      const call = { at: 0, number: 8, inFlight: 19, refused: 0 }
      const claimed = { ...Window.make(), burst: burst(10), claimed: 10, size: 10 }
      assert.isTrue(Window.refutes(claimed, call, 0))
      assert.isFalse(Window.refutes(claimed, { ...call, inFlight: 18 }, 0), "too few in flight")
      assert.isFalse(Window.refutes(claimed, call, 1), "one of those had been refused")
      assert.isFalse(Window.refutes(claimed, { ...call, number: 6 }, 0), "sent before")
      assert.isFalse(Window.refutes({ ...claimed, size: 11 }, call, 0), "it has grown")
      assert.isFalse(Window.refutes({ ...claimed, burst: undefined }, call, 0), "nothing was rejected")
    })

    it("is attempted to exceed by calls beyond its size before, until their verdicts are known", () => {
      const growing = { ...Window.make(), size: 12, sure: 10, dueAt: 1_000 }
      assert.isTrue(Window.isAttempt(growing, 11, 999))
      assert.isFalse(Window.isAttempt(growing, 10, 999))
      assert.isFalse(Window.isAttempt(growing, 11, 1_000))
      assert.isTrue(Window.isAttempt({ ...growing, dueAt: undefined }, 11, 1_000))
      assert.isFalse(Window.isAttempt({ ...growing, sure: undefined }, 11, 999))
    })

    it("grows at the time at which it says that it will", () => {
      const window = { ...Window.make(), size: 10, need: 10, retryAt: 1_000 }
      const at = Window.growsAt(window)
      assert.deepStrictEqual([Window.grow(window, at - 1, 100).size, Window.grow(window, at, 100).size], [10, 11])
    })

    it("is refuted once clearly more calls in flight were accepted, by more than two and an eighth", () => {
      /** When it was refuted, if it grows at 1 s because so many were accepted. */
      const refutedAt = (claimed: number, size: number, before?: number): number | undefined =>
        Window.grow({ ...Window.make(), claimed, size, retryAt: 1_000, refutedAt: before }, 1_000, 100).refutedAt
      assert.deepStrictEqual([refutedAt(10, 12), refutedAt(10, 13)], [undefined, 1_000])
      assert.deepStrictEqual([refutedAt(40, 45), refutedAt(40, 46)], [undefined, 1_000])
      assert.deepStrictEqual([refutedAt(10, 12, 500), refutedAt(10, 13, 500)], [500, 500], "it stays refuted")
    })

    it("can be held at the size that is known to be accepted", () => {
      for (const sure of [undefined, 10]) {
        const held = Window.held({ ...Window.make(), size: 12, sure, full: 100, retryAt: 1_000, dueAt: 1_000 })
        assert.deepStrictEqual([held.size, Window.growsAt(held)], [sure ?? 12, Infinity])
      }
    })

    it("shrinks after fewer rejections of calls that find it full than of calls that nearly fill it", () => {
      const rejections = (inFlight: number): number => {
        let window: Window.Window = { ...Window.make(), high: 20, size: 20 }
        let count = 0
        for (; window.size === 20; count++) {
          window = Window.sent(window, inFlight)
          window = Window.rejected(
            window,
            { inFlight, crowded: window.crowded },
            { random: 0.02, score: 5, pending: 1 }
          )
        }
        return count
      }
      assert.isBelow(rejections(20), rejections(19))
    })

    /** The window, the calls and the time that it needs to grow again, after an attempt was rejected at 1 s. */
    const attempted = (window: Partial<Window.Window>) => {
      const growing = { ...Window.make(), size: 11, sure: 10, need: 10, pause: 100, ...window }
      const { need, pause, retryAt, size, sure } = Window.attempted(growing, 1_000, 100)
      return { need, pause, wait: retryAt! - 1_000, size, sure }
    }

    it("is as large as before after a failed attempt, and needs twice the calls or four times the pause for the next", () => {
      for (const found of [undefined, burst(10), burst(3)]) {
        const next = { size: 10, sure: undefined, need: 20, pause: 400, wait: 400 }
        assert.deepStrictEqual(attempted({ burst: found }), next)
        assert.deepStrictEqual(attempted({ burst: found, need: 0 }), next)
      }
      const longest = { size: 10, sure: undefined, need: 80, pause: 600_000, wait: 600_000 }
      assert.deepStrictEqual(attempted({ need: 80, pause: 200_000 }), longest)
    })

    it("keeps what an attempt of several calls found accepted, and tries the next one soon", () => {
      const several = { size: 14, burst: burst(12), need: 40, pause: 10_000, missed: 1 }
      assert.deepStrictEqual(attempted(several), { size: 12, sure: undefined, need: 10, pause: 100, wait: 100 })
    })

    it("waits for the verdicts of an attempt again after any rejection meanwhile", () => {
      const rates = { random: 0.02, score: 5, pending: 1 }
      const growing = { ...Window.make(), high: 10, size: 12, sure: 10, dueAt: 1_000 }
      const few = { inFlight: 3, crowded: 0 }
      assert.strictEqual(Window.growsAt(Window.rejected(growing, few, rates)), Infinity)
      const full = { ...growing, sure: undefined, need: 1, full: 5 }
      assert.strictEqual(
        Window.growsAt(Window.rejected(full, few, rates)),
        1_000,
        "without one, few in flight say nothing"
      )
    })
  })

  describe("that was found", () => {
    const rates = { random: 0.001, score: 5, pending: 1 }
    const rejectedAt = (window: Window.Window, inFlight: number): void => {
      on.sent(window, inFlight)
      on.rejected(window, { inFlight, crowded: window.crowded }, rates)
    }
    const acceptedAt = (window: Window.Window, inFlight: number, count: number): void => {
      for (let i = 0; i < count; i++) {
        on.sent(window, inFlight)
        on.accepted(window, inFlight)
      }
    }
    /** Calls that find it full and are not rejected. */
    const fill = (window: Window.Window, count: number): void => acceptedAt(window, window.size, count)
    /** A window of 19. */
    const found = (): Window.Window => {
      const window = Window.make()
      acceptedAt(window, 20, 100)
      for (let i = 0; i < 20 && window.size === Infinity; i++) rejectedAt(window, 20)
      assert.strictEqual(window.size, 19)
      // The last rejection counts as four calls fewer.
      fill(window, 4)
      return window
    }
    const shrink = (window: Window.Window): void => {
      const { size } = window
      for (let i = 0; i < 20 && window.size === size; i++) rejectedAt(window, size)
      assert.strictEqual(window.size, size - 1)
    }
    /** The size after this many calls found it full and were accepted. */
    const after = (window: Window.Window, count: number): number => {
      fill(window, count)
      on.grow(window, 0, 0)
      return window.size
    }

    it("grows by 1, 2, 4 and so on for each ten calls that find it full, until there is no limit", () => {
      const window = found()
      assert.strictEqual(after(window, 9), 19)
      assert.strictEqual(after(window, 1), 20)
      const sizes = Array.from({ length: 8 }, () => after(window, 10))
      assert.deepStrictEqual(sizes, [22, 26, 34, 50, 82, 146, 274, Infinity])
    })

    it("grows once the verdicts on those calls are known", () => {
      const window = found()
      assert.strictEqual(on.grow(window, 1_000, 100), Infinity)
      fill(window, 10)
      assert.strictEqual(on.grow(window, 1_000, 100), 1_100)
      assert.strictEqual(on.grow(window, 1_099, 100), 1_100)
      assert.strictEqual(window.size, 19)
      assert.strictEqual(on.grow(window, 1_100, 100), Infinity)
      assert.strictEqual(window.size, 20)
      fill(window, 10)
      assert.strictEqual(on.grow(window, 2_000, 100), 2_100, "and the next time later")
    })

    it("does not grow while too few calls have found it full", () => {
      assert.strictEqual(Window.growsAt({ ...found(), dueAt: 1_000 }), Infinity)
    })

    it("counts four calls fewer for a rejection, and waits for verdicts again", () => {
      const window = found()
      fill(window, 10)
      assert.strictEqual(on.grow(window, 0, 100), 100)
      rejectedAt(window, 19)
      assert.strictEqual(on.grow(window, 100, 100), Infinity)
      assert.strictEqual(window.size, 19)
      fill(window, 3)
      assert.strictEqual(on.grow(window, 200, 100), 300)
    })

    it("is not changed by calls that do not find it full", () => {
      for (const inFlight of [10, 18]) {
        const window = found()
        acceptedAt(window, inFlight, 100)
        assert.strictEqual(after(window, 0), 19)
        fill(window, 10)
        rejectedAt(window, inFlight)
        assert.strictEqual(after(window, 0), 20)
      }
    })

    it("also shrinks after rejections of calls that nearly fill it", () => {
      const window = found()
      for (let i = 0; i < 20 && window.size === 19; i++) rejectedAt(window, 18)
      assert.strictEqual(window.size, 17)
    })

    it("needs twice as many calls after it shrank again, at most 80", () => {
      const window = found()
      const needs: Array<number> = []
      for (let i = 0; i < 5; i++) {
        const { size } = window
        let calls = 0
        while (after(window, 1) === size) calls++
        needs.push(calls + 1)
        shrink(window)
        shrink(window)
      }
      assert.deepStrictEqual(needs, [10, 40 + 4, 80 + 4, 80 + 4, 80 + 4])
    })

    it("is one less than the lowest number in flight that was rejected since the last acceptances", () => {
      const window = Window.make()
      acceptedAt(window, 20, 100)
      rejectedAt(window, 19)
      acceptedAt(window, 20, 200)
      for (let i = 0; i < 20 && window.size === Infinity; i++) rejectedAt(window, i === 0 ? 20 : 22)
      assert.strictEqual(window.size, 19)
    })

    it("is at least two, and a rejection at two in flight counts as any other", () => {
      const window = Window.make()
      acceptedAt(window, 2, 100)
      for (let i = 0; i < 20 && window.size === Infinity; i++) rejectedAt(window, 3)
      assert.strictEqual(window.size, 2)
      // While pairs of calls are accepted, the occasional rejection of a third one is random.
      const lucky = Window.make()
      for (let i = 0; i < 100; i++) {
        acceptedAt(lucky, 2, 30)
        rejectedAt(lucky, 3)
      }
      assert.strictEqual(lucky.size, Infinity)
      const pair = Window.make()
      for (let i = 0; i < 20 && pair.size === Infinity; i++) rejectedAt(pair, 2)
      assert.strictEqual(pair.size, 2)
    })

    it("grows on at once while the provider accepts more", () => {
      const window = found()
      assert.strictEqual(after(window, 10), 20)
      // Each further step waits for the verdicts on the calls of the one before.
      assert.strictEqual(on.grow(window, 100, 50), 150)
      assert.strictEqual(on.grow(window, 149, 50), 150)
      assert.strictEqual(window.size, 20)
      on.grow(window, 150, 50)
      assert.strictEqual(window.size, 22)
    })

    it("does not shrink twice for the same rejections", () => {
      const window = found()
      rejectedAt(window, 19)
      assert.strictEqual(window.size, 19)
    })
  })
})

describe("a limit of calls in flight", () => {
  it("is at least the number in flight that an accepted call found, unless calls were refused meanwhile", () => {
    for (const refused of [0, 1]) {
      const pool = poolOf(Pacer, {})
      const calls = Array.from({ length: 12 }, () => Pacer.take(pool, whole(100), 0))
      for (const call of calls.slice(0, refused)) Pacer.release(pool, call, {}, 10)
      Pacer.accept(pool, calls.at(-1)!)
      assert.strictEqual(pool.window.high, refused === 0 ? 12 : 0)
    }
  })

  it("is counted without calls that are already rejected, in whatever order that becomes known", () => {
    // Regression: a limit of 10 was taken for one of 20 and more, because rejected calls counted until they were known.
    const orders = [
      [10, 11, 12, 13, 14],
      [14, 13, 12, 11, 10],
      [12, 14, 10, 13, 11]
    ]
    for (const order of orders) {
      const pool = poolOf(Pacer, {})
      const calls = Array.from({ length: 15 }, (_, i) => Pacer.take(pool, whole(100), 1_000 + i))
      for (const [i, n] of order.entries()) reject(Pacer, pool, calls[n]!, 1_200 + 10 * i)
      assert.strictEqual(pool.window.size, 10, order.join())
      assert.strictEqual(pool.inFlight, 10)
    }
  })

  describe("is tested by an attempt to grow, whose rejection", () => {
    /** A pool that found a limit of ten, perhaps beside limits that were stated then, with an attempt to grow under way. */
    const attempting = (limits?: Limits.Limits) => {
      const pool = poolOf(Pacer, {})
      const calls = Array.from({ length: 15 }, (_, i) => Pacer.take(pool, whole(100), 1_000 + i))
      for (let i = 10; i < calls.length; i++) reject(Pacer, pool, calls[i]!, 1_200 + i)
      assert.strictEqual(pool.window.size, 10)
      if (limits !== undefined) Pacer.resize(pool, Rules.resolve(limits), {}, 1_300)
      const attempt = send(Pacer, pool, 2_000, 100)
      assert.strictEqual(pool.inFlight, 11)
      return { pool, attempt, first: calls[0]! }
    }
    const stated = { tokens: { perSecond: 10_000, burst: 10_000 } }

    it("never counts against its call, also beside a known bucket", () => {
      // Regression: beside a known limit, an attempt used up one of its call's five attempts, and calls were lost.
      for (const limits of [undefined, stated]) {
        const { attempt, first, pool } = attempting(limits)
        assert.strictEqual(reject(Pacer, pool, attempt, attempt.at + 50), "exhausted")
        assert.strictEqual(pool.window.size, 10)
        answer(Pacer, pool, first, attempt.at + 60)
        assert.isBelow(send(Pacer, pool, attempt.at + 70, 100).at, attempt.at + 200, "and nobody else waits")
      }
    })

    it("is evidence of an empty bucket only where one is as likely, or where the limit was refuted", () => {
      for (const [limits, refutedAt, isEvidence] of [
        [undefined, undefined, false],
        [stated, undefined, true],
        [undefined, 0, true]
      ] as const) {
        const { attempt, pool } = attempting(limits)
        // One of two attempts, so that the other one must confirm it.
        pool.window = { ...pool.window, size: 12, refutedAt }
        reject(Pacer, pool, attempt, attempt.at + 50)
        assert.strictEqual(pool.bucketTest.score > 0, isEvidence)
      }
    })

    it("explains rejections of calls that were sent before it was known, unless a bucket may be empty", () => {
      for (const [limits, expected] of [
        [undefined, "exhausted"],
        [stated, "isolated"]
      ] as const) {
        const { attempt, first, pool } = attempting(limits)
        pool.random = 0.05
        answer(Pacer, pool, first, attempt.at + 10)
        const other = Pacer.take(pool, whole(100), attempt.at + 20)
        reject(Pacer, pool, attempt, attempt.at + 50)
        answer(Pacer, pool, send(Pacer, pool, attempt.at + 55, 100), attempt.at + 60)
        assert.strictEqual(reject(Pacer, pool, other, attempt.at + 70), expected)
      }
    })
  })

  it("is given up when a call that was sent later is accepted with half as many again in flight", () => {
    // Regression: of calls that go together, some are rejected at random, and these are known before any acceptance. Then the
    // window followed the first of them, and took minutes to grow back.
    const pool = poolOf(Pacer, { requests: { perMinute: 120_000, burst: 20_000 } })
    const calls = Array.from({ length: 2_000 }, () => Pacer.take(pool, whole(100), 1_000))
    const random = mulberry(8)
    const rejected = calls.filter(() => random() < 0.05)
    for (const [i, each] of rejected.toSorted(() => random() - 0.5).entries()) reject(Pacer, pool, each, 1_100 + i)
    const { size } = pool.window
    assert.isBelow(size, 200)
    // A server with that many slots accepts these, too.
    for (const each of calls.slice(0, size)) if (!rejected.includes(each)) answer(Pacer, pool, each, 2_000)
    assert.isBelow(pool.window.size, 200)
    answer(
      Pacer,
      pool,
      calls.findLast((each) => !rejected.includes(each))!,
      2_010
    )
    assert.strictEqual(pool.window.size, Infinity)
  })

  it("is not claimed from random rejections at different numbers in flight", () => {
    const pool = poolOf(Pacer, {})
    const open: Array<Pacer.Admission> = []
    for (let i = 0; i < 60; i++) {
      const admission = Pacer.take(pool, whole(100), i * 1_000)
      if (i % 20 === 10) reject(Pacer, pool, admission, i * 1_000 + 100)
      else open.push(admission)
    }
    assert.strictEqual(pool.window.size, Infinity)
  })

  describe("that a server shows by failing calls", () => {
    /** Fails calls, which were sent and are numbered from 0, 10 ms after each other. */
    const failAll = (
      pool: Pacer.Pacer,
      calls: ReadonlyArray<Pacer.Admission>,
      numbers: ReadonlyArray<number>,
      at = 1_200
    ) => numbers.map((n, i) => fail(Pacer, pool, calls[n]!, at + 10 * i))
    const sent = (pool: Pacer.Pacer, count: number) =>
      Array.from({ length: count }, (_, i) => Pacer.take(pool, whole(100), 1_000 + i))

    it("is found from the first failures, and is not taken for an outage", () => {
      const pool = poolOf(Pacer, {})
      const verdicts = failAll(pool, sent(pool, 15), [10, 11, 12, 13, 14])
      assert.strictEqual(pool.window.size, 10)
      assert.notInclude(verdicts, "outage")
      assert.strictEqual(pool.gate.until, -Infinity)
    })

    it("is tested by an attempt to grow, and a failed attempt costs nothing else", () => {
      const pool = poolOf(Pacer, {})
      const calls = sent(pool, 15)
      failAll(pool, calls, [10, 11, 12, 13, 14])
      // The first attempt comes after the time of a verdict.
      const attempt = send(Pacer, pool, 2_000)
      assert.strictEqual(fail(Pacer, pool, attempt, attempt.at + 50), "exhausted")
      assert.strictEqual(pool.window.size, 10)
      assert.strictEqual(Pacer.decide(pool, whole(100), attempt.at + 60)?.by, "concurrency")
      answer(Pacer, pool, calls[0]!, attempt.at + 70)
      assert.isBelow(send(Pacer, pool, attempt.at + 80).at, attempt.at + 500)
    })

    it("is attempted again only after four times the pause", () => {
      const pool = poolOf(Pacer, {})
      failAll(pool, sent(pool, 15), [10, 11, 12, 13, 14])
      const { pause } = pool.window
      const attempt = send(Pacer, pool, 2_000)
      fail(Pacer, pool, attempt, attempt.at + 50)
      assert.strictEqual(Pacer.decide(pool, whole(100), attempt.at + 50)?.millis, 4 * pause!)
    })

    it("is attempted later if the server takes longer to refuse calls", () => {
      const pauses = [200, 1_000].map((after) => {
        const pool = poolOf(Pacer, {})
        failAll(pool, sent(pool, 15), [10, 11], 1_010 + after)
        assert.strictEqual(pool.window.size, 10)
        return pool.window.pause!
      })
      assert.isAbove(pauses[1]!, pauses[0]! + 100)
    })

    it("explains failures of calls that were sent up to the time when it was found", () => {
      const pool = poolOf(Pacer, {})
      const calls = sent(pool, 15)
      fail(Pacer, pool, calls[10]!, 1_200)
      const [same, later] = [Pacer.take(pool, whole(100), 1_210), Pacer.take(pool, whole(100), 1_211)]
      fail(Pacer, pool, calls[11]!, 1_210)
      assert.strictEqual(pool.window.size, 10)
      assert.strictEqual(fail(Pacer, pool, same, 1_260), "exhausted")
      assert.strictEqual(fail(Pacer, pool, later, 1_261), "isolated")
    })

    it("is not assumed to explain the failure of a call that was sent before an exhaustion", () => {
      const pool = poolOf(Pacer)
      const call = send(Pacer, pool, 0)
      exhaust(Pacer, pool, 1)
      assert.strictEqual(fail(Pacer, pool, call, 900), "isolated")
    })

    it("is less likely than an outage if other limits are known and calls also fail at random", () => {
      const pool = poolOf(Pacer, { tokens: { perSecond: 10_000, burst: 10_000 } })
      pool.randomOverload = 0.05
      assert.include(failAll(pool, sent(pool, 15), [10, 11, 12, 13, 14]), "outage")
      assert.strictEqual(pool.window.size, Infinity)
    })

    it("is not suspected if some calls fail while many are in flight, but is if they are rejected", () => {
      for (const [end, isFound] of [
        [fail, false],
        [reject, true]
      ] as const) {
        const pool = poolOf(Pacer, { tokens: { perSecond: 10_000, burst: 100_000 } })
        for (let round = 1; round <= 20; round++) {
          const now = 1_000 * round
          const calls = Array.from({ length: 20 }, (_, i) => Pacer.take(pool, whole(10), now + i))
          const [failed] = calls.splice(19 - (round % 2), 1)
          end(Pacer, pool, failed!, now + 100)
          for (const call of calls) answer(Pacer, pool, call, now + 200)
        }
        assert.strictEqual(pool.window.size < Infinity, isFound, end.name)
      }
    })

    it("is not assumed if fewer calls were in flight than before, because then it is an outage", () => {
      const pool = poolOf(Pacer, {})
      const before = sent(pool, 12)
      for (const call of before) answer(Pacer, pool, call, 2_000)
      const calls = Array.from({ length: 12 }, (_, i) => Pacer.take(pool, whole(100), 3_000 + i))
      assert.include(failAll(pool, calls, [0, 1, 2, 3], 3_200), "outage")
      assert.strictEqual(pool.window.size, Infinity)
    })

    it("is not assumed if calls fail at random while more and more are in flight", () => {
      const pool = poolOf(Pacer, {})
      const random = mulberry(3)
      const calls = sent(pool, 400)
      failAll(
        pool,
        calls,
        [...calls.keys()].filter(() => random() < 0.05),
        1_600
      )
      assert.strictEqual(pool.window.size, Infinity)
    })

    it("is found from calls that fail within two seconds, to the millisecond", () => {
      for (const [after, size] of [
        [2_000, 10],
        [2_001, Infinity]
      ] as const) {
        const pool = poolOf(Pacer, {})
        const calls = Array.from({ length: 15 }, () => Pacer.take(pool, whole(100), 1_000))
        for (const call of calls.slice(10)) fail(Pacer, pool, call, 1_000 + after)
        assert.strictEqual(pool.window.size, size)
      }
    })

    it("leaves no evidence of an outage, so the next failure below the limit counts as the first", () => {
      const pool = poolOf(Pacer, {})
      const calls = sent(pool, 15)
      failAll(pool, calls, [10, 11, 12, 13, 14])
      for (const call of calls.slice(0, 10)) Pacer.release(pool, call, {}, 1_300)
      assert.strictEqual(fail(Pacer, pool, send(Pacer, pool, 1_400), 1_450), "isolated")
      assert.strictEqual(pool.window.size, 10)
    })

    it("is not assumed if calls fail late, because a full server refuses calls at once", () => {
      const pool = poolOf(Pacer, {})
      failAll(pool, sent(pool, 15), [10, 11, 12, 13, 14], 31_000)
      assert.strictEqual(pool.window.size, Infinity)
    })
  })
})
