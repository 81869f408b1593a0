/**
 * The laws of docs/evidence.md as checks over any implementation of a budget: the library's own, and copies with a
 * planted fault. A check fails by an assertion.
 */
import { assert } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import * as TestClock from "effect/testing/TestClock"
import type * as Budget from "floodgate/Budget"
import * as Bounds from "./bounds.ts"
import * as History from "./history.ts"
import * as Ledger from "./ledger.ts"
import { reported } from "./reported.ts"
import { mulberry } from "./random.ts"
import { isFull } from "./size.ts"
import * as Traffic from "./traffic.ts"
import type { Verdict } from "./budget.ts"

/**
 * @param part the fraction of all histories that it plays
 * @param first the seed of the first of them
 */
export type Law = (make: History.Make, part?: number, first?: number) => Effect.Effect<void>

const usual = isFull ? 1 : 1 / 8

const seedsUpTo = (count: number) => Array.from({ length: count }, (_, i) => i + 1)

/** Judges a number of random histories. */
const histories =
  (count: number, options: (seed: number) => History.Options, judge: (history: History.History) => void): Law =>
  (make, part = usual, first = 1) =>
    Effect.forEach(
      seedsUpTo(Math.ceil(part * count)),
      (seed) => Effect.map(History.run(make, first - 1 + seed, options(first - 1 + seed)), judge),
      { discard: true }
    )

/** Each dimension that is limited in a history. */
const limited = ({ flows, stated }: History.History) =>
  History.dimensions.flatMap((dimension) => {
    const limit = stated[dimension]
    return limit === undefined ? [] : [{ dimension, limit, flow: flows[dimension] }]
  })

/** The movements up to an event. */
const until = ({ events }: History.History, flow: Ledger.Flow, event: number): Ledger.Flow =>
  flow.slice(0, events.filter((each) => each <= event).length)

/** At every look, the levels follow from admissions and settlements alone. */
const levelsAreThoseOfAdmissions = (history: History.History): void => {
  for (const { at, event, status } of history.looks) {
    for (const { dimension, flow, limit } of limited(history)) {
      const expected = Ledger.levelAt(until(history, flow, event), limit, at)
      const { level } = status.dimensions[dimension]!
      assert.closeTo(level, expected, 1e-6 * limit.burst, `seed ${history.seed}, ${dimension} at ${at} ms`)
    }
  }
}

const isNeverOver = (history: History.History): void => {
  for (const { dimension, flow, limit } of limited(history)) {
    const name = `seed ${history.seed}, ${dimension}`
    assert.isUndefined(Ledger.overBucket(flow, limit), name)
    if (limit.window === undefined) {
      assert.isUndefined(Ledger.overBucket(Ledger.asUsed(flow), limit), `${name}, as used`)
      continue
    }
    assert.isUndefined(Ledger.overWindow(flow, { max: limit.window, millis: 60_000 }), name)
  }
  assert.isAtMost(history.maxInFlight, history.concurrency, `seed ${history.seed}`)
}

const isEmptyInTheEnd = ({ looks, seed }: History.History): void => {
  const { inFlight, queued } = looks.at(-1)!.status
  assert.deepStrictEqual([inFlight, queued], [0, 0], `seed ${seed}`)
}

const isOdd = (seed: number): boolean => seed % 2 === 1

export const laws = {
  "law 1, never over": (make, part, first = 1) =>
    Effect.gen(function* () {
      const shape = (seed: number) => ({ weather: isOdd(seed) ? 0.6 : 0, resizes: 0.1 })
      yield* histories(100, (seed) => ({ shape: shape(seed), isGenerous: seed % 3 > 0 }), isNeverOver)(
        make,
        part,
        first
      )
      // Calls larger than the burst.
      const large: History.Options = { kinds: ["bare", "sliding"], largest: 15, shape: { arrivals: 3 } }
      yield* histories(20, (seed) => ({ ...large, isGenerous: isOdd(seed) }), isNeverOver)(make, part, first)
    }),

  "law 2, all or nothing": histories(60, (seed) => ({ isGenerous: isOdd(seed) }), levelsAreThoseOfAdmissions),

  "law 3, order": (make, part) =>
    Effect.gen(function* () {
      yield* histories(60, (seed) => ({ isGenerous: isOdd(seed) }), isInOrder)(make, part)
      yield* sharesByCost(make)
    }),

  "law 4, cancel-safe": histories(
    60,
    (seed) => ({ shape: { interrupts: 1.5, arrivals: 2 }, isGenerous: isOdd(seed) }),
    (history) => {
      levelsAreThoseOfAdmissions(history)
      isEmptyInTheEnd(history)
      for (const { admittedAt, id, wasInterrupted } of history.calls) {
        if (wasInterrupted) assert.isUndefined(admittedAt, `seed ${history.seed}, call ${id}`)
      }
    }
  ),

  "law 5, work-conserving": (make, part) =>
    Effect.gen(function* () {
      const of: History.Options = { kinds: ["bucket", "quota"], isGenerous: true, shape: { arrivals: 2 } }
      yield* histories(60, () => of, isAsSoonAsPossible)(make, part)
      yield* sleepsOncePerWait(make)
      yield* sleepsTwicePerCall(make)
    }),

  "law 6, settled once": histories(
    60,
    (seed) => ({ shape: { ends: 2, interrupts: 0 }, isGenerous: isOdd(seed) }),
    (history) => {
      levelsAreThoseOfAdmissions(history)
      isEmptyInTheEnd(history)
    }
  ),

  "law 7, typed refusal at once": histories(
    80,
    (seed) => ({
      largest: 30,
      maxQueued: [Infinity, 0, 1, 3],
      maxWait: true,
      shape: { weather: isOdd(seed) ? 0.2 : 0 }
    }),
    (history) => {
      isEmptyInTheEnd(history)
      for (const call of history.calls) isAnswered(history, call)
    }
  ),

  "law 8, logarithmic": (make) =>
    Effect.gen(function* () {
      const looks = yield* Effect.forEach([100, 2_000], (waiters) => looksPerStep(make, waiters))
      for (const [i, many] of looks[1]!.entries()) {
        assert.isAtMost(many, 2 * looks[0]![i]! + 10, `step ${i}: ${looks[0]!.join()} and ${looks[1]!.join()} looks`)
      }
    }),

  "law 9, a lone rejection costs one call": (make, part = usual) =>
    Effect.gen(function* () {
      for (const seed of seedsUpTo(Math.ceil(4 * part))) {
        const calls = part === 1 ? 1_000 : 400
        const undisturbed = yield* openLoop(make, seed, calls, undefined)
        for (const how of ["rateLimit", "overload"] as const) {
          const met = yield* openLoop(make, seed, calls, how)
          assert.strictEqual(met.verdict, "isolated", `seed ${seed}`)
          assert.deepStrictEqual(met.admitted, undisturbed.admitted, `seed ${seed}, ${how}`)
        }
      }
      // Random rejections and overloads cost next to nothing.
      for (const weather of [{ random: 0.03 }, { broken: 0.03 }]) {
        const { lost, used } = yield* Traffic.run(make, { ...steady, weather: { ...calm, ...weather } })
        assert.isAtLeast(used, 0.94)
        assert.deepStrictEqual(lost, [])
      }
    }),

  "law 10, what was delivered decides": (make, part = usual) =>
    Effect.gen(function* () {
      for (const share of part === 1 ? [0.8, 0.6, 0.4] : [0.6]) {
        const of = { ...steady, weather: { ...calm, share: () => share }, millis: 120_000 }
        const { rejected, sent, used } = yield* Traffic.run(make, of)
        assert.isAtLeast(used, 0.9, `a share of ${share}`)
        assert.isAtMost(rejected, 0.05, `a share of ${share}`)
        assert.include(
          sent.map(({ verdict }) => verdict),
          "exhausted"
        )
      }
    }),

  "law 11, verdicts, not answers": (make, part = usual) =>
    Effect.gen(function* () {
      const millis = part === 1 ? [1_000, 20_000, 50_000] : [1_000, 50_000]
      const runs = yield* Effect.forEach(millis, (answerMillis) => rejectedLoop(make, answerMillis))
      assert.isAtLeast(runs[0]!.verdicts.filter((each) => each.endsWith("exhausted")).length, 2)
      for (const run of runs) {
        assert.deepStrictEqual(run.verdicts, runs[0]!.verdicts)
        for (const [i, at] of run.admitted.entries()) assert.closeTo(at, runs[0]!.admitted[i]!, 1_000)
      }
    }),

  "law 12, weather loses no work": (make, part = usual) =>
    Effect.gen(function* () {
      for (const seed of seedsUpTo(part === 1 ? 6 : 2)) {
        const random = mulberry(seed)
        const from = isOdd(seed) ? 0 : 20_000 * random()
        const outage = { from, to: from + 1_000 + 30_000 * random() }
        const of = {
          ...steady,
          weather: { ...calm, outage },
          callers: 40,
          calls: 10,
          seed,
          millis: 300_000,
          isOneAgent: seed % 3 === 0
        }
        const { finishedAt, lost } = yield* Traffic.run(make, of)
        const name = `seed ${seed}, an outage from ${outage.from} to ${outage.to} ms`
        assert.deepStrictEqual(lost, [], name)
        assert.strictEqual(finishedAt.filter((at) => at !== undefined).length, 40, name)
        assert.isAtMost(Math.max(...finishedAt), outage.to + 20_000 + 60_000, name)
      }
      // A request that always fails costs no other call anything.
      for (const isOneAgent of part === 1 ? [true, false] : [false]) {
        const weather = { ...calm, isPoison: (id: number) => id % 100 === 30 }
        const { lost, used } = yield* Traffic.run(make, { ...steady, weather, isOneAgent })
        assert.isTrue(lost.every((id) => id % 100 === 30))
        assert.isAtLeast(used, 0.9)
      }
    }),

  "law 13, nobody harms another": (make, part = usual) =>
    Effect.forEach(
      seedsUpTo(part === 1 ? 40 : 4),
      (seed) =>
        Effect.gen(function* () {
          const of: History.Options = {
            shape: { arrivals: 2, interrupts: 0.4, weather: isOdd(seed) ? 0.4 : 0 },
            maxQueued: [Infinity, 3],
            closes: seed % 4 === 0
          }
          const calm = yield* History.run(make, seed, of)
          yield* reported((errors) =>
            Effect.map(Effect.exit(History.run(make, seed, { ...of, isCareless: true })), (exit) => {
              if (Exit.isFailure(exit)) return assert.fail(`seed ${seed}: an error reached another caller`)
              const { calls, looks, thrown } = exit.value
              assert.deepStrictEqual([calls, looks], [calm.calls, calm.looks], `seed ${seed}`)
              assert.deepStrictEqual(errors, thrown, `seed ${seed}`)
            })
          )
        }),
      { discard: true }
    ),

  "law 14, nothing in use is forgotten": (make, part = usual) =>
    Effect.gen(function* () {
      for (const seed of seedsUpTo(Math.ceil(20 * part))) yield* forgetsNothingInUse(make, seed)
      let refused = 0
      for (const seed of seedsUpTo(part === 1 ? 60 : 4)) refused += (yield* Bounds.run(make, seed, 120)).refused
      assert.isAbove(refused, 0, "nobody was refused, so that nothing was tried")
    }),

  "law 15, closed is closed": histories(
    60,
    (seed) => ({
      shape: { arrivals: 2, weather: isOdd(seed) ? 0.4 : 0 },
      isGenerous: seed % 3 > 0,
      maxWait: true,
      closes: true
    }),
    (history) => {
      const { calls, closed, seed, waitedClosed } = history
      assert.isBelow(closed, Infinity, `seed ${seed}`)
      const late = calls.filter(({ admission = -1 }) => admission > closed)
      assert.deepStrictEqual([late, waitedClosed], [[], 0], `seed ${seed}`)
      isEmptyInTheEnd(history)
    }
  ),

  "law 17, being many gives nothing": (make, part) => sharesByOwner(make, part)
} satisfies Record<string, Law>

export type LawName = keyof typeof laws

// -----------------------------------------------------------------------------
// What is kept
// -----------------------------------------------------------------------------

/** More accounts than pools come and go. Accounts with open calls, and paused ones, keep their state. */
const forgetsNothingInUse = (make: History.Make, seed: number): Effect.Effect<void> =>
  Effect.gen(function* () {
    const random = mulberry(seed)
    const below = (n: number) => Math.floor(random() * n)
    const maxPools = 6
    const quota = 1e6
    const budget = yield* make({ limits: { tokens: { total: quota } }, maxPools })
    const accounts = Array.from({ length: 24 }, (_, n) => ({
      name: `account-${n}`,
      pausedUntil: 0,
      taken: 0,
      open: [] as Array<{ readonly scope: Scope.Closeable; readonly held: Budget.Reservation; readonly amount: number }>
    }))
    for (let step = 0; step < 150; step++) {
      const now = yield* Clock.currentTimeMillis
      const busy = accounts.filter(({ open, pausedUntil }) => open.length > 0 || pausedUntil > now)
      const account = random() < 0.5 && busy.length > 0 ? busy[below(busy.length)]! : accounts[below(accounts.length)]!
      const { name, open, pausedUntil } = account
      const isOpen = open.length > 0
      const dice = random()
      if (dice < 0.5 && !isOpen && pausedUntil <= now) {
        const scope = yield* Scope.make()
        const amount = below(100)
        const reserved = Scope.provide(budget.reserve({ tokens: amount }, { account: name }), scope)
        const fiber = yield* Effect.forkChild(reserved, { startImmediately: true })
        // A store needs a moment to answer.
        yield* TestClock.adjust(1)
        const exit = yield* Fiber.await(fiber)
        if (Exit.isSuccess(exit)) {
          open.push({ scope, held: exit.value, amount })
          account.taken += amount
        } else {
          const error = Cause.findErrorOption(exit.cause)
          assert.strictEqual(error._tag === "Some" ? error.value.reason._tag : "a defect", "TooManyPools")
          assert.isAtLeast(busy.length, maxPools, `seed ${seed}, step ${step}`)
          yield* Scope.close(scope, Exit.void)
        }
      } else if (dice < 0.8 && isOpen) {
        const { amount, held, scope } = open.splice(below(open.length), 1)[0]!
        const uses = below(2 * amount)
        account.taken += uses - amount
        yield* held.settle({ tokens: uses })
        yield* Scope.close(scope, Exit.void)
      } else if (dice < 0.85 && isOpen) {
        account.pausedUntil = now + 120_000
        yield* budget.pause({ pool: name, duration: 120_000 })
      } else yield* TestClock.adjust(below(60_000))
      const at = yield* Clock.currentTimeMillis
      const { pools } = yield* budget.status
      assert.isAtMost(Object.keys(pools).length, maxPools + 1)
      for (const { name, open, pausedUntil, taken } of accounts) {
        const where = `seed ${seed}, step ${step}, ${name}`
        const pool = pools[name]
        if (open.length > 0) {
          assert.strictEqual(pool?.inFlight, open.length, where)
          assert.closeTo(pool!.dimensions.tokens!.level, quota - taken, 1e-6, where)
        }
        if (pausedUntil > at) assert.isDefined(pool?.pause, where)
      }
    }
  }).pipe(Effect.scoped, Effect.provide(TestClock.layer()))

// -----------------------------------------------------------------------------
// Order
// -----------------------------------------------------------------------------

const isInOrder = ({ calls, looks, seed }: History.History): void => {
  const admitted = calls.filter((call) => call.admission !== undefined)
  for (const one of admitted) {
    for (const other of admitted) {
      const isBefore = one.arrival < other.arrival && other.admission! < one.admission!
      const name = `seed ${seed}, calls ${one.id} and ${other.id}`
      const isSame = one.agent === other.agent && one.priority === other.priority
      if (isSame && !one.first && !other.first) assert.isFalse(isBefore, `${name}: out of turn`)
      const isOvertaken =
        one.priority > other.priority && one.arrival < other.admission! && other.admission! < one.admission!
      assert.isFalse(isOvertaken, `${name}: a lower priority went first`)
    }
  }
  // The head of the queue is admitted next, unless it leaves.
  for (const { event, status } of looks) {
    const [head] = status.waiting
    if (head === undefined) continue
    const next = admitted
      .filter(({ admission, priority }) => admission! > event && priority === head.priority)
      .sort((a, b) => a.admission! - b.admission!)[0]
    const hasLeft = calls.some(
      ({ agent, left, priority }) =>
        agent === head.agent && priority === head.priority && left !== undefined && left > event
    )
    if (next === undefined || hasLeft) continue
    assert.strictEqual(next.agent, head.agent, `seed ${seed}, after event ${event}: the head was overtaken`)
  }
}

/** Agents with calls of different sizes get equal shares by weight, to within one call. */
const sharesByCost: Law = (make) =>
  Effect.gen(function* () {
    const budget = yield* make({ limits: { tokens: { perSecond: 1_000, burst: 1_000 } } })
    const agents = [
      { agent: "small", tokens: 50, weight: 1 },
      { agent: "large", tokens: 800, weight: 1 },
      { agent: "heavy", tokens: 200, weight: 3 }
    ]
    const served = new Map(agents.map(({ agent }) => [agent, 0]))
    for (const { agent, tokens, weight } of agents) {
      const call = Effect.scoped(budget.reserve({ tokens }, { agent, weight }))
      const count = Effect.sync(() => served.set(agent, served.get(agent)! + tokens / weight))
      for (let i = 0; i < 3; i++) yield* Effect.forkChild(Effect.forever(Effect.andThen(call, count)))
    }
    yield* TestClock.adjust(isFull ? "10 minutes" : "3 minutes")
    const shares = [...served.values()]
    assert.isAtMost(Math.max(...shares) - Math.min(...shares), 2_000, JSON.stringify([...served]))
  }).pipe(Effect.orDie, Effect.scoped, Effect.provide(TestClock.layer()))

/** Callers and jobs that always have waiting calls get equal service, however many agents and jobs they have. */
const sharesByOwner: Law = (make, part = usual) =>
  Effect.gen(function* () {
    const budget = yield* make({ limits: { tokens: { perSecond: 1_000, burst: 1_000 } } })
    const served = new Map<string, number>()
    let invented = 0
    const busy = (name: string, agents: number, tokens: number, of: () => Budget.ReserveOptions) =>
      Effect.forEach(seedsUpTo(agents), (agent) => {
        const call = Effect.suspend(() => Effect.scoped(budget.reserve({ tokens }, { agent: `${agent}`, ...of() })))
        const count = Effect.sync(() => served.set(name, (served.get(name) ?? 0) + tokens))
        return Effect.forkChild(Effect.forever(Effect.andThen(call, count)))
      })
    yield* busy("many jobs", 10, 200, () => ({ caller: "many", job: `${invented++}` }))
    yield* busy("one job", 2, 400, () => ({ caller: "one", job: "only" }))
    yield* busy("fan-out", 10, 200, () => ({ job: "fan-out" }))
    yield* busy("heavy", 2, 300, () => ({ job: { name: "heavy", weight: 2 } }))
    yield* busy("no job", 2, 100, () => ({ agent: "alone" }))
    yield* TestClock.adjust(part === 1 ? "20 minutes" : "90 seconds")
    const sum = [...served.values()].reduce((sum, tokens) => sum + tokens, 0)
    const parts = { "many jobs": 1 / 3, "one job": 1 / 3, "fan-out": 1 / 12, heavy: 1 / 6, "no job": 1 / 12 }
    for (const [name, part] of Object.entries(parts)) {
      assert.closeTo(served.get(name) ?? 0, part * sum, 1_500, `${name}: ${JSON.stringify([...served])}`)
    }
  }).pipe(Effect.orDie, Effect.scoped, Effect.provide(TestClock.layer()))

// -----------------------------------------------------------------------------
// Work
// -----------------------------------------------------------------------------

/** One millisecond before a waiting call was admitted, it lacked something that it needs. */
const isAsSoonAsPossible = (history: History.History): void => {
  const { calls, events, flows, seed } = history
  for (const call of calls) {
    const { admission, admittedAt, arrivedAt, charge, id } = call
    if (admission === undefined || admittedAt! - arrivedAt < 2) continue
    // Skip calls for which something moved in the last millisecond: it may have made room.
    const index = events.indexOf(admission)
    const before = flows.requests.slice(0, index)
    if (calls.some(({ endedAt }) => endedAt === admittedAt || endedAt === admittedAt! - 1)) continue
    const isFirst = calls.every(
      ({ left, leftAt }) => left === undefined || left > admission || leftAt! < admittedAt! - 1
    )
    if (!isFirst || before.some(({ at }) => at >= admittedAt! - 1)) continue
    const lacks = limited(history).some(({ dimension, flow, limit }) => {
      const level = Ledger.levelAt(flow.slice(0, index), limit, admittedAt! - 1)
      return level < Math.min(charge[dimension], limit.burst) - 1e-9 * limit.burst
    })
    assert.isTrue(lacks, `seed ${seed}, call ${id} could have gone before ${admittedAt} ms`)
  }
}

/** A clock that counts sleeps and reads. */
const counting = Effect.map(Clock.Clock, (clock) => {
  const count = { sleeps: 0, looks: 0 }
  const counted: Clock.Clock = Object.create(clock, {
    sleep: {
      value: (duration: Parameters<Clock.Clock["sleep"]>[0]) => {
        count.sleeps++
        return clock.sleep(duration)
      }
    },
    monotonicTimeNanosUnsafe: {
      value: () => {
        count.looks++
        return clock.monotonicTimeNanosUnsafe()
      }
    }
  })
  return { count, counted }
})

/** Nothing polls: a queue sleeps once for each call that it admits, and not at all while it waits for a permit. */
const sleepsOncePerWait: Law = (make) =>
  Effect.gen(function* () {
    const { count, counted } = yield* counting
    const limits = { tokens: { perSecond: 1_000, burst: 1_000 } }
    const budget = yield* Effect.provideService(make({ limits, concurrency: 3 }), Clock.Clock, counted)
    for (let i = 0; i < 50; i++) yield* Effect.forkChild(Effect.scoped(budget.reserve({ tokens: 900 })))
    yield* TestClock.adjust("2 minutes")
    assert.isAtMost(count.sleeps, 60)
    const held = yield* Effect.replicateEffect(budget.reserve({ tokens: 1 }), 3)
    yield* Effect.forkChild(Effect.scoped(budget.reserve({ tokens: 1 })))
    yield* TestClock.adjust("1 hour")
    assert.isAtMost(count.sleeps, 60)
    for (const reservation of held) yield* reservation.refund
  }).pipe(Effect.orDie, Effect.scoped, Effect.provide(TestClock.layer()))

/** When waits become shorter and longer, timers that are no longer needed end. */
const sleepsTwicePerCall: Law = (make) =>
  Effect.gen(function* () {
    const { count, counted } = yield* counting
    const watched: History.Make = (options) => Effect.provideService(make(options), Clock.Clock, counted)
    const { sent } = yield* Traffic.run(watched, { ...steady, weather: { ...calm, share: () => 0.8 } })
    assert.isAtMost(count.sleeps, 3 * sent.length)
  }).pipe(Effect.provide(TestClock.layer()))

/** How often a budget with this many waiters reads the clock in each of several steps; it reads it once per admission. */
const looksPerStep = (make: History.Make, waiters: number) =>
  Effect.gen(function* () {
    const { count, counted } = yield* counting
    const limits = { tokens: { perSecond: 1_000, burst: 1_000 } }
    const budget = yield* Effect.provideService(make({ limits, concurrency: 50 }), Clock.Clock, counted)
    const held = yield* budget.reserve({ tokens: 1_000 })
    const fibers: Array<Fiber.Fiber<unknown, unknown>> = []
    for (let i = 0; i < waiters; i++) {
      const waiter = Effect.scoped(budget.reserve({ tokens: 1_000 }, { agent: `${i % 100}` }))
      fibers.push(yield* Effect.forkChild(waiter, { startImmediately: true }))
    }
    const steps: ReadonlyArray<Effect.Effect<unknown, unknown>> = [
      Fiber.interrupt(fibers[Math.floor(waiters / 2)]!),
      Fiber.interrupt(fibers[0]!),
      Effect.forkChild(Effect.scoped(budget.reserve({ tokens: 1 })), { startImmediately: true }),
      Effect.flip(Effect.scoped(budget.reserve({ tokens: 1 }, { maxWait: 1 }))),
      budget.observe({ dimensions: { tokens: { remaining: 10 } } }),
      budget.status,
      held.settle({ tokens: 500 }),
      TestClock.adjust(500)
    ]
    const looks: Array<number> = []
    for (const step of steps) {
      const before = count.looks
      yield* step
      yield* Effect.yieldNow
      looks.push(count.looks - before)
    }
    return looks
  }).pipe(Effect.orDie, Effect.scoped, Effect.provide(TestClock.layer()))

// -----------------------------------------------------------------------------
// Refusals
// -----------------------------------------------------------------------------

/** Each call is admitted or refused; a refusal has a true reason, and comes at once if the reason is known at once. */
const isAnswered = (history: History.History, call: History.Call): void => {
  const { admission, arrivedAt, charge, id, left, leftAt, maxWait, refusal, wasInterrupted } = call
  const name = `seed ${history.seed}, call ${id}`
  assert.isTrue(admission !== undefined || refusal !== undefined || wasInterrupted, `${name}: it waits for ever`)
  const isTooLarge = limited(history).some(({ dimension, limit }) => charge[dimension] > limit.most)
  if (isTooLarge) assert.strictEqual(refusal, "EstimateTooLarge", name)
  switch (refusal) {
    case undefined:
      break
    case "EstimateTooLarge":
      assert.isTrue(isTooLarge, name)
      assert.strictEqual(leftAt, arrivedAt, `${name}: refused late`)
      break
    case "QuotaExhausted":
      assert.isTrue(
        limited(history).some(
          ({ dimension, flow, limit }) =>
            limit.isQuota && Ledger.levelAt(until(history, flow, left!), limit, leftAt!) < charge[dimension]
        ),
        name
      )
      break
    case "QueueFull":
      assert.isBelow(history.maxQueued, Infinity, name)
      assert.strictEqual(leftAt, arrivedAt, `${name}: refused late`)
      break
    case "WaitTooLong":
      assert.isAtMost(leftAt! - arrivedAt, maxWait ?? 0, name)
      break
    default:
      assert.fail(`${name}: ${refusal}`)
  }
}

// -----------------------------------------------------------------------------
// Verdicts
// -----------------------------------------------------------------------------

/** 10,000 tokens a second: ten calls of mean size. */
const calm = { rate: 10, burst: 10_000 }
const limits = { tokens: { perSecond: 10_000, burst: 10_000 } }
const steady = { limits, callers: 60, calls: Infinity, seed: 1, millis: 60_000 }

/** Sends calls faster than the limit; one fails or is refunded. Returns when the others were admitted. */
const openLoop = (make: History.Make, seed: number, calls: number, failure: "rateLimit" | "overload" | undefined) =>
  Effect.gen(function* () {
    const random = mulberry(seed)
    const budget = yield* make({ limits })
    const number = Math.floor(calls * (0.5 + 0.2 * random()))
    const admitted: Array<number> = []
    let verdict: Verdict | undefined
    const call = Effect.fnUntraced(function* (id: number, tokens: number) {
      const reservation = yield* budget.reserve({ tokens }, { agent: `${id % 7}` })
      if (id !== number) admitted[id] = yield* Clock.currentTimeMillis
      yield* Effect.sleep(id === number ? 50 : 1_000)
      if (id !== number) return yield* reservation.settle({ tokens })
      if (failure === undefined) return yield* reservation.refund
      verdict = yield* reservation.fail({ reason: failure })
    }, Effect.scoped)
    for (let id = 0; id < calls; id++) {
      yield* Effect.forkChild(call(id, Math.ceil(50 + 100 * random())))
      yield* TestClock.adjust(Math.floor(18 * random()))
    }
    yield* TestClock.adjust("1 minute")
    return { admitted, verdict }
  }).pipe(Effect.orDie, Effect.scoped, Effect.provide(TestClock.layer()))

/** Sends calls at fixed times. The same ones are always rejected after 50 ms. */
const rejectedLoop = (make: History.Make, answerMillis: number) =>
  Effect.gen(function* () {
    const random = mulberry(4)
    const budget = yield* make({ limits })
    const admitted: Array<number> = []
    const verdicts: Array<string> = []
    const call = Effect.fnUntraced(function* (id: number, isRejected: boolean) {
      const reservation = yield* budget.reserve({ tokens: 900 })
      admitted[id] = yield* Clock.currentTimeMillis
      yield* Effect.sleep(isRejected ? 50 : answerMillis)
      if (!isRejected) return yield* reservation.settle({ tokens: 900 })
      verdicts.push(`${id} ${yield* reservation.fail({ reason: "rateLimit" })}`)
    }, Effect.scoped)
    for (let id = 0; id < 600; id++) {
      yield* Effect.forkChild(call(id, random() < 0.01 || id % 150 === 100 || id % 150 === 101))
      yield* TestClock.adjust(100)
    }
    yield* TestClock.adjust("2 minutes")
    return { admitted, verdicts }
  }).pipe(Effect.orDie, Effect.scoped, Effect.provide(TestClock.layer()))
