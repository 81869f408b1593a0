/**
 * Random histories of processes that share a ledger: the faults of `storm.ts`, with calls that pay from one or two purses in the
 * store. The judge knows the caps and what the provider bills, and nothing of the library.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Random from "effect/Random"
import type * as Governor from "floodgate/Governor"
import * as Retry from "floodgate/Retry"
import type * as Spending from "floodgate/Spending"
import { inspect } from "node:util"
import type * as VirtualTime from "../../benchmark/weather/virtualTime.ts"
import { keyOf as redisKeyOf } from "../../packages/redis/src/store.ts"
import * as LedgerText from "../../src/sharing/ledgerText.ts"
import type { LuaRedis } from "./luaRedis.ts"
import * as Storm from "./storm.ts"
import * as Tally from "./tally.ts"
import * as World from "./world.ts"

export interface Plan extends Storm.Plan {
  /** The cap in tokens, at a dollar each million; each call costs at most the largest of `sizes`. */
  readonly cap: number
  /** The cap of a second purse, for some calls. */
  readonly inner: number | undefined
  readonly per: "day" | undefined
  /** How many callers give up, and after how many milliseconds at the latest. */
  readonly givesUp: number
}

/** A call that was sent. */
interface Billed {
  readonly at: number
  readonly process: string
  /** What it costs, in tokens, and what it could have cost. */
  readonly cost: number
  readonly max: number
  isSettled: boolean
  readonly isInner: boolean
}

export interface Outcome {
  readonly plan: Plan
  readonly log: ReadonlyArray<Billed>
  /** For each call that was refused: why, and what was left according to the refusal. */
  readonly refused: ReadonlyArray<{
    readonly tag: string
    readonly left: number
    readonly asked: number
    /** Whether it waits for a few seconds only. */
    readonly gives: boolean
    readonly isInner: boolean
    readonly upper: number
  }>
  /** The most that calls which were never sent can hold: those of processes that have ended, and of callers that gave up. */
  readonly unsent: number
  readonly stuck: number
  /** The largest part that each process had, and what the ledger says at the end. */
  readonly parts: number
  readonly held: number | undefined
  readonly spent: number | undefined
}

const perToken = 1e-6
const prices = { m: { input: 1, output: 0, maxOutput: 1 } }
const once = Retry.make({ attempts: 1 })
const names = { outer: "storm", inner: "a storm within" }

/** From the beginning of simulated time to midnight by the clock of Redis. */
const untilMidnight = 86_400_000 - (1_700_000_000_000 % 86_400_000)

const scene = (plan: Plan, redis: LuaRedis, time: VirtualTime.VirtualTime, code: World.Code): Effect.Effect<Outcome> =>
  Effect.gen(function* () {
    const world = yield* World.make(redis, time, code)
    const processes: Array<World.Process> = []
    const alive = new Set<World.Process>()
    const purses = new Map<World.Process, ReadonlyArray<Spending.Purse>>()
    const work: Array<Fiber.Fiber<void>> = []
    const log: Array<Billed> = []
    const refused: Array<Outcome["refused"][number]> = []
    const parts = new Map<string, number>()
    let unsent = 0
    let waiting = 0
    /** What the waiting calls ask for. */
    let asking = 0
    const clock = yield* Clock.Clock

    /** What processes may spend alone, as they have told each other. */
    const seeParts = (): void => {
      const text = redis.send(["HGET", redisKeyOf("world", LedgerText.keyOf(names.outer)), "value"])
      if (typeof text !== "string") return
      const { members } = JSON.parse(text) as { members: Record<string, { part?: { amount: number } }> }
      for (const [id, { part }] of Object.entries(members)) {
        parts.set(id, Math.max(parts.get(id) ?? 0, (part?.amount ?? 0) / 1e3))
      }
    }

    const agent = (process: World.Process, governor: Governor.Governor["Service"], name: string) =>
      Effect.forEach(
        Array.from({ length: plan.calls }),
        () =>
          Effect.gen(function* () {
            yield* Effect.sleep(yield* Random.nextBetween(0, plan.answerMillis))
            yield* process.awake
            const max = yield* Random.nextIntBetween(...plan.sizes)
            const cost = Math.ceil(max * (yield* Random.nextBetween(0.1, 1)))
            const isInner = plan.inner !== undefined && (yield* Random.next) < 0.5
            const [outer, inner] = purses.get(process)!
            const gives = (yield* Random.next) < plan.givesUp
            const millis = yield* Random.nextBetween(0, 2 * plan.answerMillis)
            let billed: Billed | undefined
            const attempt = Effect.gen(function* () {
              seeParts()
              billed = {
                at: clock.currentTimeMillisUnsafe(),
                process: process.name,
                cost,
                max,
                isSettled: false,
                isInner
              }
              log.push(billed)
              yield* Effect.sleep(millis)
              billed.isSettled = true
              return { value: undefined, actual: { inputTokens: cost, outputTokens: 0 } }
            })
            waiting++
            asking += max
            const called = process.run(
              Effect.exit(
                governor.run({ model: "m", bytes: 0, inputTokens: max, maxTokens: 1 }, () => attempt, {
                  agent: name,
                  purses: isInner ? [outer!, inner!] : [outer!],
                  ...(gives ? { maxWait: "3 seconds" as const } : {})
                })
              )
            )
            const exit = yield* Effect.ensuring(
              called,
              Effect.sync(() => {
                waiting--
                asking -= max
                // Its reservation may be stored although it was never sent.
                if (billed === undefined && (gives || !alive.has(process))) unsent += max
              })
            )
            if (exit._tag === "Success") return
            const error = exit.cause.reasons[0]
            const reason =
              error?._tag === "Fail" && error.error instanceof process.code.Budget.BudgetError
                ? error.error.reason
                : undefined
            const cause = reason?._tag === "Denied" ? (reason.cause as Spending.SpendCapReached) : undefined
            const counts = log.filter((one) => one.isInner || cause?.purse === names.outer)
            const sent = counts.reduce((sum, one) => sum + (one.isSettled ? one.cost : one.max), 0)
            refused.push({
              tag: cause?._tag ?? reason?._tag ?? String(exit.cause),
              left: (cause?.left ?? 0) / perToken,
              asked: (cause?.asked ?? 0) / perToken,
              gives,
              isInner: cause?.purse === names.inner,
              upper: sent + unsent + asking
            })
            yield* Effect.sleep(1_000)
          }),
        { discard: true }
      )

    const start = Effect.gen(function* () {
      const name = `p${processes.length}`
      const process = yield* world.start(
        name,
        {},
        {
          ...plan.sharing,
          network: plan.network,
          skewMillis: yield* Random.nextBetween(-1e7, 1e7),
          drift: yield* Random.nextBetween(-1e-5, 1e-5)
        }
      )
      processes.push(process)
      alive.add(process)
      const { Budget, Governor, Spending } = process.code
      const open = (name: string, tokens: number) =>
        Spending.open(name, { dollars: tokens * perToken, ...(plan.per === undefined ? {} : { per: plan.per }) })
      const made = yield* process.within(
        Effect.all([open(names.outer, plan.cap), ...(plan.inner === undefined ? [] : [open(names.inner, plan.inner)])])
      )
      purses.set(process, made)
      const governor = yield* process.within(
        Effect.map(
          Layer.build(Layer.provide(Governor.layer({ prices, retry: once }), Budget.layerUnlimited)),
          (context) => Effect.runSync(Effect.provide(Governor.Governor, context))
        )
      )
      const agents = Array.from({ length: plan.agents }, (_, n) => agent(process, governor, `${name}.${n}`))
      const all = Effect.all(agents, { concurrency: "unbounded", discard: true })
      work.push(yield* Effect.forkDetach(all))
    })

    if (plan.per !== undefined) world.aheadMillis = untilMidnight - midnight
    for (let i = 0; i < plan.processes; i++) yield* start
    const stage: Storm.Stage = {
      plan,
      redis,
      world,
      processes,
      alive,
      start,
      gone: () => {},
      left: () => Effect.void
    }
    const events = yield* Effect.forEach(plan.events, (event) => Effect.forkDetach(Storm.happen(stage, event)))
    yield* Effect.forEach(events, Fiber.await)
    yield* Effect.timeoutOption(Effect.forEach(work, Fiber.await), horizonOf(plan))
    const stuck = waiting
    for (const { link } of processes) link.network = World.calm
    const [last] = alive
    const purse = last && purses.get(last)![0]!
    let status: Spending.Status | undefined
    // What is spent is judged long after the last call. With degraded mode only what is held is judged, and sooner, because its idle
    // processes commit several times a second.
    const isSoon = plan.sharing.whenAway === "degrade"
    for (let seconds = 0; seconds < 120; seconds += 5) {
      if (isSoon && status?.held === 0) break
      yield* Effect.sleep(5_000)
      // Whoever asks hears what the others have told.
      if (last !== undefined) status = yield* last.run(purse!.status)
    }
    yield* Effect.forEach([...alive], ({ close }) => close, { concurrency: "unbounded" })
    return {
      plan,
      log,
      refused,
      unsent,
      stuck,
      parts: Array.from(parts.values()).reduce((a, b) => a + b, 0),
      held: status && status.held / perToken,
      spent: status && status.spent / perToken
    }
  })

/**
 * Long enough for everything, one after the other, if all faults have ended. What a process may have spent alone is kept for it until
 * the end of `degradeFor`, and calls may wait for that.
 */
const horizonOf = ({ agents, answerMillis, calls, events, processes, sharing }: Plan): number => {
  const all = processes + events.filter(({ what }) => what === "start").length
  const kept = sharing.whenAway === "degrade" ? 600_000 : 0
  return 180_000 + kept + all * agents * calls * (answerMillis + 3_000)
}

export const run = (plan: Plan, redis: LuaRedis, code = World.library): Outcome =>
  World.simulated(redis, plan.seed, (time) => scene(plan, redis, time, code))

// -----------------------------------------------------------------------------
// The judge
// -----------------------------------------------------------------------------

/** The time of midnight by the clock of Redis, if caps are per day. */
const midnight = 10_000

const costOf = (log: ReadonlyArray<Billed>): number => log.reduce((sum, { cost }) => sum + cost, 0)

/** By how much a cap was exceeded, over all time or in one of two days. */
const overOf = (log: ReadonlyArray<Billed>, cap: number, { events, per }: Plan): number => {
  if (per === undefined) return costOf(log) - cap
  // Days are those of the clock of Redis, which may be set.
  if (events.some(({ what }) => what === "stepOfRedis")) return costOf(log) - 2 * cap
  // A call that is settled about midnight may count in either day.
  const slack = 5_000
  const before = log.filter(({ at }) => at < midnight - slack)
  const after = log.filter(({ at }) => at > midnight + slack)
  return Math.max(costOf(before) - cap, costOf(after) - cap, costOf(log) - 2 * cap)
}

/**
 * What calls can cost that the store has forgotten, if a process sent none meanwhile: it may have been idle, and then it cannot know
 * of them before another process tells.
 */
const unknownOf = ({ events, processes }: Plan, log: ReadonlyArray<Billed>): number => {
  const all = events.map((event) => {
    if (event.what !== "restore" && event.what !== "failover") return 0
    const until = event.at + event.millis + (event.what === "failover" ? event.behind : 0)
    const sent = log.filter(({ at }) => at >= event.at && at <= until)
    const isKnown = new Set(sent.map(({ process }) => process)).size === processes
    return isKnown ? 0 : sent.reduce((sum, { max }) => sum + max, 0)
  })
  return all.reduce((sum, each) => sum + each, 0)
}

/** The laws that a history breaks. */
export const broken = ({
  held = 0,
  log,
  parts,
  plan,
  refused,
  spent,
  stuck,
  unsent
}: Outcome): ReadonlyArray<string> => {
  const { cap, events, inner, network, per, sharing } = plan
  const isAlone = sharing.whenAway === "degrade"
  const losses = Storm.losesOf(plan)
  const ends = events.some(({ what }) => what === "crash" || what === "leave" || what === "start")
  // What only processes knew that are gone, or that a newcomer cannot know, is forgotten with the store.
  const forgotten = losses && ends ? Infinity : 0
  const allowed = (isAlone ? parts : 0) + forgotten + unknownOf(plan, log)
  const over = overOf(log, cap, plan)
  const ofInner = log.filter(({ isInner }) => isInner)
  const innerOver = inner === undefined ? 0 : overOf(ofInner, inner, plan)
  const quiet = new Set<Storm.Event["what"]>(["crash", "leave", "start", "step"])
  const isCalm = network.lost === 0 && events.every(({ what }) => quiet.has(what)) && network.most < 200
  const wrong = refused.filter(({ asked, gives, isInner, left, tag, upper }) => {
    if (tag === "SpendCapReached") {
      // A call that gives up while others have reserved the money is refused for the cap, too.
      if (asked <= left) return !gives
      return isCalm && per === undefined && left < (isInner ? inner! : cap) - upper - 1
    }
    if (tag === "WaitTooLong") return plan.givesUp === 0
    return tag === "LedgerUnavailable" ? isCalm : !ends
  })
  const billed = costOf(log)
  const gone = new Set(
    events.flatMap((each) => (each.what === "crash" || each.what === "leave" ? [`p${each.process}`] : []))
  )
  const most = log.reduce((sum, one) => sum + (gone.has(one.process) || !one.isSettled ? one.max : one.cost), unsent)
  const isCounted = spent !== undefined && per === undefined && !losses && !isAlone
  return [
    ...(over > allowed + 1e-3 ? [`the cap of ${cap} is exceeded by ${over} where ${allowed} is allowed`] : []),
    ...(innerOver > allowed + 1e-3 ? [`the inner cap of ${inner} is exceeded by ${innerOver}`] : []),
    ...(stuck > 0 ? [`${stuck} calls wait for ever`] : []),
    ...(held > 0 ? [`${held} are held for ever`] : []),
    ...(wrong.length > 0 ? [`refusals that are not true: ${inspect(wrong[0])}`] : []),
    ...(isCounted && spent < billed - 1e-3 ? [`${spent} count as spent where ${billed} were`] : []),
    ...(isCounted && isCalm && spent > most + 1e-3 ? [`${spent} count as spent where at most ${most} were`] : [])
  ]
}

// -----------------------------------------------------------------------------
// Plans
// -----------------------------------------------------------------------------

/** A random plan. Its cap is reached by some of the calls. */
export const plan = (seed: number, isLossyStore = false): Plan => {
  const { concurrency: _, ...plain } = (seed % 3 === 0 ? Storm.rougher : Storm.plan)(seed, isLossyStore)
  const next = Storm.numbers(seed ^ 0x10ca1)
  const pick = <A>(...values: ReadonlyArray<A>): A => values[Math.floor(next() * values.length)]!
  const largest = Math.floor(10 ** (3 + 3 * next()))
  const calls = plain.processes * plain.agents * Math.min(plain.calls, 8)
  const cap = Math.ceil(largest * Math.max(1, calls * pick(0.05, 0.2, 0.5, 2)))
  return {
    ...plain,
    calls: Math.min(plain.calls, 8),
    concurrency: Infinity,
    events: plain.events.filter(({ what }) => what !== "resize"),
    sizes: [1, largest],
    cap,
    inner: pick(undefined, Math.ceil(cap / 2)),
    per: pick(undefined, undefined, "day" as const),
    givesUp: pick(0, 0, 0.3)
  }
}

export const isBroken = (plan: Plan, redis: LuaRedis, code = World.library): boolean =>
  broken(run(plan, redis, code)).length > 0

/** The law that a plan breaks, and the smallest plan that breaks a law; nothing if it breaks none. */
export const complaint = (failing: Plan, redis: LuaRedis, code = World.library): string | undefined => {
  const laws = broken(run(failing, redis, code))
  if (laws.length === 0) return undefined
  const small = Storm.shrink(failing, (each) => isBroken({ ...failing, ...each }, redis, code)) as Plan
  return [
    `seed ${failing.seed}: ${laws.join("; ")}`,
    `As small as it gets: ${broken(run(small, redis, code)).join("; ")}`,
    inspect(small, { depth: Infinity, compact: 3, breakLength: 120 })
  ].join("\n")
}

/** The results of a seed: with a store that remembers, and with one that forgets if the seed has something to forget. */
export const tally = (seed: number, redis: LuaRedis, code = World.library): Tally.Tally => {
  const lossy = plan(seed, true)
  const plans = Storm.losesOf(lossy) ? [plan(seed), lossy] : [plan(seed)]
  return plans.map((each) => ofStorm(each, redis, code)).reduce(Tally.add, Tally.nothing)
}

const ofStorm = (storm: Plan, redis: LuaRedis, code: World.Code): Tally.Tally => {
  const command = `npm run storms -- --ledgers --from ${storm.seed} --seeds 1`
  try {
    const outcome = run(storm, redis, code)
    const over = Math.max(0, overOf(outcome.log, storm.cap, storm)) / storm.cap
    const found = broken(outcome).length === 0 ? undefined : complaint(storm, redis, code)
    return {
      storms: 1,
      requests: 0,
      calls: outcome.log.length,
      rows: { [Storm.kindOf(storm)]: { storms: 1, bursts: over, calls: 0 } },
      complaints: found === undefined ? [] : [`${found}\n${command}`]
    }
  } catch (error) {
    return { ...Tally.nothing, storms: 1, complaints: [`${String((error as Error).cause)}\n${command}`] }
  }
}
