/**
 * Random histories of processes that share a budget: processes start, die and are cut off, the network loses, doubles and delays
 * messages, and clocks are wrong. A seed makes one history.
 */
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Random from "effect/Random"
import type * as Budget from "floodgate/Budget"
import type * as BudgetStore from "floodgate/BudgetStore"
import type * as Limits from "floodgate/Limits"
import { inspect } from "node:util"
import type * as VirtualTime from "../../benchmark/weather/virtualTime.ts"
import type { LuaRedis } from "./luaRedis.ts"
import * as World from "./world.ts"

/** What happens, and when. */
export type Event =
  | { readonly at: number; readonly what: "crash" | "leave"; readonly process: number }
  | { readonly at: number; readonly what: "start" }
  | {
      readonly at: number
      readonly what: "cut"
      readonly process: number
      readonly way: "to" | "from" | "both"
      readonly millis: number
    }
  | { readonly at: number; readonly what: "down"; readonly millis: number }
  /** It can be read, but refuses writes. */
  | { readonly at: number; readonly what: "readOnly"; readonly millis: number }
  | { readonly at: number; readonly what: "wipe" }
  /** The stored values return to those of this long ago. */
  | { readonly at: number; readonly what: "restore"; readonly millis: number }
  /** The server dies, and after this time a replica that lags behind takes its place. */
  | { readonly at: number; readonly what: "failover"; readonly behind: number; readonly millis: number }
  /** A wall clock is set, of a process or of Redis. */
  | { readonly at: number; readonly what: "step"; readonly process: number; readonly ahead: number }
  | { readonly at: number; readonly what: "stepOfRedis"; readonly ahead: number }
  /** A process is suspended. */
  | { readonly at: number; readonly what: "freeze"; readonly process: number; readonly millis: number }
  /** Replies arrive after their timeouts. */
  | {
      readonly at: number
      readonly what: "slow"
      readonly process: number
      readonly millis: number
      readonly most: number
    }
  /** A process resizes the pool to a part of its limits. */
  | { readonly at: number; readonly what: "resize"; readonly process: number; readonly part: number }

/** Callers that do not only wait. */
interface Rough {
  /** How many of them give up, and after how many milliseconds at the latest. */
  readonly givesUp: number
  readonly within: number
  /** How long an agent may be idle between two calls. */
  readonly idleMillis: number
  readonly maxQueued: number
  /** How many calls the provider rejects or fails. */
  readonly fails: number
  /** How many callers end as soon as they are admitted, and have an observer that throws. */
  readonly careless?: number | undefined
}

/** What careless callers throw. */
class Harm extends Error {}

export interface Plan {
  readonly seed: number
  readonly processes: number
  readonly agents: number
  readonly calls: number
  readonly limits: Limits.Limits
  readonly concurrency: number
  readonly sharing: BudgetStore.Options
  readonly network: World.Network
  readonly sizes: readonly [least: number, most: number]
  readonly answerMillis: number
  readonly events: ReadonlyArray<Event>
  readonly rough?: Rough
}

export interface Outcome {
  readonly plan: Plan
  readonly log: ReadonlyArray<World.Entry>
  readonly peak: number
  readonly done: number
  readonly refused: ReadonlyArray<string>
  /** Calls that still wait long after all faults have ended. */
  readonly stuck: number
  /** The longest time in which calls waited in a process and none of them was admitted or refused. */
  readonly silence: number
  readonly inFlight: number
  /** What is left of the quota at the end, if any process still runs. */
  readonly quotaLeft: number | undefined
  readonly requests: number
  readonly endedAt: number
  /** How often a careless caller threw, and how often that was reported. */
  readonly thrown: number
  readonly reported: number
  /** Callers of a closed budget that were not interrupted. */
  readonly late: number
}

/** Long enough for everything, one after the other, if all faults have ended. */
const horizonOf = (plan: Plan): number => {
  const { agents, answerMillis, calls, processes, rough } = plan
  const each = answerMillis + turnMillis(plan) + 1_000
  return 120_000 + (processes + 4) * agents * calls * each + calls * (rough?.idleMillis ?? 0)
}

/**
 * A turn with the largest call takes two requests and their replies, each of them twice if other processes are faster. A
 * message that is lost costs a timeout and a pause, and the turn, if others have passed over the process by then.
 */
const turnMillis = (plan: Plan): number => {
  const { answerMillis, events, network, sizes } = plan
  const lost = network.lost > 0 || events.some(({ what }) => what === "slow") ? 2_500 : 0
  const each = (1_000 * sizes[1]) / minRate(plan) + 2 * answerMillis + 8 * network.most + lost
  return each / (1 - network.lost) ** 4
}

/** The smallest amount per second that the pool ever has. */
const minRate = (plan: Plan): number => plan.limits.tokens!.perSecond! * minPart(plan)

const partOf = ({ concurrency, limits }: Plan, part: number) => ({
  limits: {
    ...limits,
    tokens: { perSecond: part * limits.tokens!.perSecond!, burst: part * limits.tokens!.burst! }
  },
  concurrency: concurrency === Infinity ? Infinity : Math.ceil(part * concurrency)
})

/** Some storms have jobs, which several processes share, and some have callers. An earlier version does not know them. */
const ownerOf = ({ seed }: Plan, name: string): Budget.ReserveOptions => {
  const number = name.length + name.charCodeAt(name.length - 1)
  return {
    job: seed % 4 === 0 ? undefined : { name: `job ${number % (1 + (seed % 3))}`, weight: 1 + (number % 2) },
    caller: seed % 5 === 0 ? `caller ${number % 2}` : undefined
  }
}

export const run = (plan: Plan, redis: LuaRedis, code = World.library): Outcome => {
  let reported = 0
  const report = (error: unknown): void => {
    if (!(error instanceof Harm)) throw error
    reported++
  }
  const outcome = World.simulated(redis, plan.seed, (time) => scene(plan, redis, time, code), report)
  return { ...outcome, reported }
}

/** What the provider may answer instead of a success. */
const failureOf = ({ fails }: Rough): Effect.Effect<World.Call["failure"]> =>
  Effect.gen(function* () {
    if (!((yield* Random.next) < fails)) return undefined
    const reason = (yield* Random.next) < 0.5 ? "rateLimit" : "overload"
    return (yield* Random.next) < 0.5
      ? { reason }
      : { reason, retryAfter: Duration.millis(yield* Random.nextBetween(0, 5_000)) }
  })

/** Where the events of a plan happen. */
export interface Stage {
  readonly plan: Plan
  readonly redis: LuaRedis
  readonly world: World.World
  readonly processes: ReadonlyArray<World.Process>
  readonly alive: Set<World.Process>
  readonly start: Effect.Effect<void>
  /** Called when a process ends. */
  readonly gone: () => void
  /** What happens after a process has closed. */
  readonly left: (process: World.Process) => Effect.Effect<unknown>
}

/** Lets an event happen at its time. */
export const happen = (
  { alive, gone, left, plan, processes, redis, start, world }: Stage,
  event: Event
): Effect.Effect<void> =>
  Effect.gen(function* () {
    yield* Effect.sleep(event.at)
    switch (event.what) {
      case "start":
        return yield* start
      case "wipe":
        return redis.wipe()
      case "restore": {
        const back = redis.snapshot()
        yield* Effect.sleep(event.millis)
        return back()
      }
      case "failover": {
        const back = redis.snapshot()
        yield* Effect.sleep(event.behind)
        world.isDown = true
        yield* Effect.sleep(event.millis)
        world.isDown = false
        redis.forget()
        return back()
      }
      case "step":
        return processes[event.process]?.step(event.ahead)
      case "freeze":
        processes[event.process]?.freeze(event.millis)
        return yield* Effect.sleep(event.millis)
      case "resize": {
        const process = processes[event.process]
        if (process === undefined || !alive.has(process)) return
        yield* process.awake
        return yield* process.budget.resize(partOf(plan, event.part))
      }
      case "slow": {
        const process = processes[event.process]
        if (process === undefined || !alive.has(process)) return
        process.link.network = { ...plan.network, most: event.most }
        yield* Effect.sleep(event.millis)
        process.link.network = plan.network
        return
      }
      case "stepOfRedis":
        world.aheadMillis += event.ahead
        return
      case "down":
        world.isDown = true
        yield* Effect.sleep(event.millis)
        world.isDown = false
        return
      case "readOnly":
        redis.setReadOnly(true)
        yield* Effect.sleep(event.millis)
        redis.setReadOnly(false)
        return
      case "crash":
      case "leave": {
        const process = processes[event.process]
        if (process === undefined || !alive.delete(process)) return
        if (event.what === "leave") yield* process.awake
        gone()
        if (event.what === "crash") return yield* process.crash
        yield* process.close
        yield* left(process)
        return
      }
      case "cut": {
        const process = processes[event.process]
        if (process === undefined || !alive.has(process)) return
        if (event.way !== "from") process.link.isCutTo = true
        if (event.way !== "to") process.link.isCutFrom = true
        yield* Effect.sleep(event.millis)
        if (!alive.has(process)) return
        process.link.isCutTo = process.link.isCutFrom = false
      }
    }
  })

const scene = (
  plan: Plan,
  redis: LuaRedis,
  time: VirtualTime.VirtualTime,
  code: World.Code
): Effect.Effect<Omit<Outcome, "reported">> =>
  Effect.gen(function* () {
    const world = yield* World.make(redis, time, code)
    const { rough } = plan
    const options: Budget.Options = {
      limits: plan.limits,
      concurrency: plan.concurrency,
      ...(rough !== undefined && { maxQueued: rough.maxQueued })
    }
    const processes: Array<World.Process> = []
    const work: Array<Fiber.Fiber<void>> = []
    const alive = new Set<World.Process>()
    const refused: Array<string> = []
    let done = 0
    let silence = 0
    let thrown = 0
    let late = 0
    const isCareless = numbers(plan.seed ^ 0x5eed)
    /**
     * The latest time at which the lease of an ended process began. A process that joins later may not know that time has
     * passed.
     */
    let goneAt = -Infinity
    /** For each process, how many calls wait, and when a call was last admitted, refused, or arrived while none waited. */
    const lines = new Map<World.Process, { waiting: number; movedAt: number }>()
    const clock = yield* Clock.Clock
    const moves = (process: World.Process, more: number) =>
      Effect.sync(() => {
        const line = lines.get(process)!
        const now = clock.currentTimeMillisUnsafe()
        if (line.waiting > 0) silence = Math.max(silence, now - line.movedAt)
        if (line.waiting === 0 || more < 0) line.movedAt = now
        line.waiting += more
      })

    /** A call whose fiber has an observer that throws. No other fiber waits for it. */
    const leftAlone = (called: Effect.Effect<void, Budget.BudgetError>) =>
      Effect.gen(function* () {
        const over = yield* Deferred.make<void>()
        const fiber = yield* Effect.forkDetach(Effect.ensuring(called, Deferred.succeed(over, undefined)))
        // The fiber that interrupts another one runs its observers.
        fiber.addObserver((exit) => {
          if (Exit.hasInterrupts(exit)) return
          thrown++
          throw new Harm()
        })
        work.push(yield* Effect.forkDetach(Deferred.await(over)))
      })

    /** A closed budget interrupts every later caller, both in pools that it knows and in new ones. */
    const checkClosed = ({ budget }: World.Process) =>
      Effect.forEach([{}, { account: "late" }], (how) =>
        Effect.map(
          Effect.exit(Effect.timeoutOption(Effect.scoped(budget.reserve({ tokens: 1 }, how)), 1_000)),
          (exit) => {
            if (!Exit.hasInterrupts(exit)) late++
          }
        )
      )

    const agent = (process: World.Process, name: string) =>
      Effect.forEach(
        Array.from({ length: plan.calls }),
        () =>
          Effect.gen(function* () {
            const tokens = yield* Random.nextIntBetween(...plan.sizes)
            const used = Math.ceil(tokens * (yield* Random.nextBetween(0.5, 1)))
            yield* Effect.sleep(yield* Random.nextBetween(0, plan.answerMillis))
            if (rough !== undefined) yield* Effect.sleep(rough.idleMillis * (yield* Random.next) ** 4)
            yield* process.awake
            const call = {
              estimate: { tokens, outputTokens: tokens },
              usage: { tokens: used, outputTokens: used },
              millis: yield* Random.nextBetween(0, 2 * plan.answerMillis),
              options: { agent: name, ...(process.code === code ? ownerOf(plan, name) : {}) }
            }
            const failure = rough === undefined || rough.fails === 0 ? undefined : yield* failureOf(rough)
            yield* moves(process, 1)
            let isGranted = false
            const goes = Effect.andThen(
              moves(process, -1),
              Effect.sync(() => {
                isGranted = true
              })
            )
            const leaves = Effect.suspend(() => (isGranted ? Effect.void : moves(process, -1)))
            const gives = rough !== undefined && (yield* Random.next) < rough.givesUp
            const patience = gives ? rough.within * (yield* Random.next) ** 2 : Infinity
            const called = process.call(failure === undefined ? call : { ...call, usage: undefined, failure }, goes)
            if (rough?.careless !== undefined && isCareless() < rough.careless) {
              return yield* leftAlone(Effect.ensuring(process.call({ ...call, millis: 0 }, goes), leaves))
            }
            const error = yield* Effect.flip(
              gives ? Effect.raceFirst(called, Effect.andThen(Effect.sleep(patience), process.awake)) : called
            ).pipe(
              Effect.catch(() => Effect.undefined),
              Effect.ensuring(leaves)
            )
            if (error === undefined) done++
            else {
              refused.push(error.reason._tag)
              yield* Effect.sleep(1_000)
            }
          }),
        { discard: true }
      )

    const start = Effect.gen(function* () {
      const name = `p${processes.length}`
      const process = yield* world.start(name, options, {
        ...plan.sharing,
        network: plan.network,
        skewMillis: yield* Random.nextBetween(-1e7, 1e7),
        drift: yield* Random.nextBetween(-1e-5, 1e-5)
      })
      if (goneAt > -Infinity) goneAt = clock.currentTimeMillisUnsafe()
      processes.push(process)
      lines.set(process, { waiting: 0, movedAt: 0 })
      alive.add(process)
      const agents = Array.from({ length: plan.agents }, (_, n) => agent(process, `${name}.${n}`))
      work.push(yield* Effect.forkDetach(Effect.all(agents, { concurrency: "unbounded", discard: true })))
    })

    const stage: Stage = {
      plan,
      redis,
      world,
      processes,
      alive,
      start,
      gone: () => {
        goneAt = clock.currentTimeMillisUnsafe()
      },
      left: checkClosed
    }
    for (let i = 0; i < plan.processes; i++) yield* start
    const events = yield* Effect.forEach(plan.events, (event) => Effect.forkDetach(happen(stage, event)))
    yield* Effect.forEach(events, Fiber.await)
    const all = Effect.forEach(work, Fiber.await)
    // Long after the last fault everything must be done.
    yield* Effect.timeoutOption(all, horizonOf(plan))
    const stuck = Array.from(lines.values()).reduce((sum, { waiting }) => sum + waiting, 0)
    const endedAt = yield* Clock.currentTimeMillis
    // Nothing is lost any more: all processes report what they know, and the next request notices those that have died.
    for (const { link } of processes) link.network = World.calm
    const retry = plan.events.some(({ what }) => what === "readOnly") ? 60_000 : 0
    // If a clock was set back, less time of a lease has passed by it.
    const back = plan.events.reduce((sum, each) => sum - (each.what === "stepOfRedis" ? Math.min(0, each.ahead) : 0), 0)
    yield* Effect.sleep(5_000 + retry + back + Math.max(0, goneAt + leaseMillisOf(plan) - endedAt))
    const [last] = alive
    const lastCall = last?.call({ estimate: { tokens: 1 }, millis: 1 }) ?? Effect.void
    yield* Effect.ignore(Effect.timeoutOption(lastCall, horizonOf(plan)))
    yield* Effect.sleep(1_000)
    const left = last === undefined ? undefined : (yield* last.budget.status).pools.default
    yield* Effect.forEach([...alive], ({ close }) => close, { concurrency: "unbounded" })
    return {
      plan,
      log: world.log,
      peak: world.peak(),
      done,
      refused,
      stuck,
      silence,
      inFlight: left?.inFlight ?? 0,
      quotaLeft: left?.dimensions.outputTokens?.level,
      requests: world.requests(),
      endedAt,
      thrown,
      late
    }
  })

// -----------------------------------------------------------------------------
// The judge
// -----------------------------------------------------------------------------

/** The faults that make a store lose its state, or return to an older one. */
const losses: ReadonlySet<Event["what"]> = new Set(["wipe", "restore", "failover", "stepOfRedis"])

/** Whether its store really forgets anything. A plan with such faults need not. */
export const losesOf = ({ events }: Plan): boolean => events.some(({ what }) => losses.has(what))

/** Why a plan may exceed the limit: its mode, and what its store loses, as two cells of a table. */
export const kindOf = (plan: Plan): string =>
  `${plan.sharing.whenAway === "degrade" ? '`"degrade"`' : "wait, or fail"} | ${
    losesOf(plan) ? "the state, or the time of Redis" : "nothing"
  }`

/** How long requests may fail, and messages may be lost, before a process is late with its commits. */
const patience = 3_000

/** The smallest part of its limits that the pool ever has. */
const minPart = ({ events }: Plan): number =>
  Math.min(1, ...events.map((event) => (event.what === "resize" ? event.part : 1)))

/** A call that is larger than the bucket is sent when the bucket is full. */
const beyondBurst = (plan: Plan): number =>
  Math.max(0, plan.sizes[1] - minPart(plan) * (plan.limits.tokens!.burst ?? 0))

/**
 * By how many bursts a history exceeds its limit, apart from calls that are larger than the bucket, and from refunds that the
 * options ask for.
 */
export const burstsOver = ({ log, plan }: Outcome): number => {
  const { burst = 1, perSecond = 0 } = plan.limits.tokens!
  const excess = World.excessOf(log, "tokens", { perSecond, burst }) - beyondBurst(plan) - refundedOf(plan)
  return Math.max(0, excess) / burst
}

/**
 * How long calls may wait in a process without any of them being admitted or refused, in any mode and with any fault. Calls
 * that wait for a store give up after a minute, and the reservations of a dead process are free after its lease. Before a
 * process has its turn, each other process may have a call of the largest size, twice if it has only a part of the rate, and
 * the debt of another call comes first. Turns are fair by cost: if there are fewer slots than processes, a process whose call
 * was the largest waits until the calls of each other one have cost as much, which are seldom more than six of sizes drawn
 * evenly.
 */
const longestSilence = (plan: Plan): number => {
  const { concurrency, events, processes, sharing } = plan
  const most = processes + events.filter(({ what }) => what === "start").length
  const turns = (concurrency < most ? 6 : 2) * (most + 1)
  const away = typeof sharing.whenAway === "object" ? 60_000 : 0
  const frozen = events.reduce((sum, event) => sum + (event.what === "freeze" ? event.millis : 0), 0)
  return away + frozen + 20_000 + patience + turns * turnMillis(plan)
}

/** The least and the most that the calls may have used of the quota. They differ if nobody heard how a call ended. */
const usedOf = ({ log, plan }: Outcome): { readonly least: number; readonly most: number } => {
  const { agents, events, sharing, sizes } = plan
  const gone = new Set(
    events.flatMap((event) => (event.what === "crash" || event.what === "leave" ? [`p${event.process}`] : []))
  )
  const hasLost = losesOf(plan)
  let least = 0
  // A process that dies may have admitted calls that were not sent yet.
  let most = gone.size * agents * sizes[1]
  // A store that returned to an older state may not know yet that the reservations of a dead process were refunded, and charges
  // them again when it returns.
  if (events.some(({ what }) => what === "restore" || what === "failover")) most += refundedOf(plan)
  for (const { amounts, estimate, isSettled, process } of log) {
    const { outputTokens: uses = 0 } = amounts
    const isKnown = isSettled && !gone.has(process)
    least += isKnown ? uses : 0
    most += isKnown ? uses : Math.max(uses, estimate.outputTokens ?? 0)
  }
  // The part of a process that dies, or that the store forgets, may be used unseen.
  const isUnseen = sharing.whenAway === "degrade" && (hasLost || gone.size > 0)
  return { least: hasLost ? 0 : least, most: isUnseen ? Infinity : most }
}

const leaseMillisOf = ({ sharing }: Plan): number => (sharing.lease === "5 seconds" ? 5_000 : 20_000)

/** Whether a lease is so short that a process may miss it: messages are lost, or take so long that others are faster. */
const mayMissLease = (plan: Plan): boolean =>
  leaseMillisOf(plan) === 5_000 && (plan.network.lost > 0 || plan.network.most >= 200)

/**
 * The most that processes which may be considered dead can hold. With the option to refund it, it is refunded although it was
 * spent.
 */
const refundedOf = (plan: Plan): number => {
  const { agents, events, processes, sharing, sizes } = plan
  if (sharing.lost !== "refund") return 0
  const leaseMillis = leaseMillisOf(plan)
  const isLong = (event: Event): boolean => "millis" in event && event.millis + patience >= leaseMillis
  const isAway = ({ what }: Event): boolean => what === "down" || what === "readOnly"
  const areAll = mayMissLease(plan) || events.some((event) => isAway(event) && isLong(event))
  const gone = new Set(
    events.flatMap((event) =>
      event.what === "crash" || event.what === "leave" || ("process" in event && isLong(event)) ? [event.process] : []
    )
  )
  const started = events.filter(({ what }) => what === "start").length
  return (areAll ? processes + started : gone.size) * agents * sizes[1]
}

/** The laws that a history breaks. */
export const broken = (outcome: Outcome): ReadonlyArray<string> => {
  const { inFlight, late, log, peak, plan, quotaLeft = quota, reported, silence, stuck, thrown } = outcome
  const { concurrency, events, limits, processes, sharing, sizes } = plan
  const { burst = 0, perSecond = 0 } = limits.tokens!
  const isAlone = sharing.whenAway === "degrade"
  const hasLost = losesOf(plan)
  const most = processes + events.filter(({ what }) => what === "start").length
  // A call that is larger than a part is sent when the part is full. One share of the bucket stays free beside the parts.
  const oversized = isAlone ? most * Math.max(0, sizes[1] - (minPart(plan) * burst) / (most + 1)) : beyondBurst(plan)
  // Each time a store loses what was spent, a bucket is full again that was empty, or in debt for a larger call.
  const forgiven = events.filter(({ what }) => losses.has(what)).length * Math.max(burst, sizes[1])
  // What processes use unseen is at most one declared burst.
  const allowed = oversized + forgiven + (isAlone ? burst : 0) + refundedOf(plan)
  const leaseMillis = leaseMillisOf(plan)
  const longest = Math.max(
    0,
    ...events.map((event) => ("millis" in event && event.what !== "restore" ? event.millis : 0))
  )
  // The calls of a process that is considered dead continue at the provider, and so do calls that were sent before parts were
  // given out.
  const isKnownToAll = !isAlone && !hasLost && longest + patience < leaseMillis && !mayMissLease(plan)
  const places = isKnownToAll ? concurrency : Infinity
  const excess = World.excessOf(log, "tokens", { perSecond, burst })
  const counted = quota - quotaLeft
  const used = usedOf(outcome)
  return [
    ...(quotaLeft !== quota && counted > used.most + 1 ? [`${counted} count as used where ${used.most} were`] : []),
    ...(quotaLeft !== quota && counted < used.least - 1 ? [`${counted} count as used where ${used.least} were`] : []),
    ...(reported !== thrown ? [`${thrown} callers threw, and ${reported} of them were reported`] : []),
    ...(late > 0 ? [`${late} callers of a closed budget were not interrupted`] : []),
    ...(stuck > 0 ? [`${stuck} calls wait for ever`] : []),
    ...(silence > longestSilence(plan) ? [`nothing moves for ${silence} ms`] : []),
    ...(inFlight > 0 ? [`${inFlight} calls are in flight for ever`] : []),
    ...(peak > places ? [`${peak} calls are in flight where ${places} may be`] : []),
    ...(excess > allowed + 1e-6 ? [`the limit of ${burst} is exceeded by ${excess} where ${allowed} is allowed`] : [])
  ]
}

// -----------------------------------------------------------------------------
// Plans
// -----------------------------------------------------------------------------

/** More than all calls use, so that the rest at the end is the unused amount. */
const quota = 1e12

/** Numbers from 0 to 1, the same for the same seed. */
export const numbers = (seed: number) => (): number => {
  seed = (seed + 0x6d2b79f5) | 0
  let t = Math.imul(seed ^ (seed >>> 15), 1 | seed)
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
  return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296
}

/** A random plan. Unless the plan is lossy, the store forgets nothing, so that no call beyond the limit may be sent. */
export const plan = (seed: number, isLossyStore = false): Plan => {
  const next = numbers(seed)
  const between = (least: number, most: number): number => least + next() * (most - least)
  const whole = (least: number, most: number): number => Math.floor(between(least, most + 1))
  const pick = <A>(...values: ReadonlyArray<A>): A => values[Math.floor(next() * values.length)]!
  const perSecond = 10 ** between(3, 5)
  const burst = perSecond * between(0.5, 4)
  const processes = whole(1, 4)
  const events: Array<Event> = []
  for (let i = whole(0, 4); i > 0; i--) {
    const at = between(0, 20_000)
    const process = whole(0, processes - 1)
    const millis = 10 ** between(1, 5.5)
    const lossyKinds: ReadonlyArray<() => Event> = [
      () => ({ at, what: "wipe" }),
      () => ({ at, what: "restore", millis: between(100, 15_000) }),
      () => ({ at, what: "failover", behind: 10 ** between(0, 4), millis: between(10, 5_000) }),
      () => ({ at, what: "stepOfRedis", ahead: between(-1e5, 1e5) })
    ]
    const kinds: ReadonlyArray<() => Event> = [
      () => ({ at, what: "crash", process }),
      () => ({ at, what: "leave", process }),
      () => ({ at, what: "start" }),
      () => ({ at, what: "cut", process, way: pick("to", "from", "both"), millis }),
      () => ({ at, what: "cut", process, way: pick("to", "from", "both"), millis }),
      () => ({ at, what: "down", millis }),
      () => ({ at, what: "step", process, ahead: between(-1e7, 1e7) }),
      ...(isLossyStore ? lossyKinds : [])
    ]
    events.push(pick(...kinds)())
  }
  const isLossy = next() < 0.5
  return {
    seed,
    processes,
    agents: whole(1, 4),
    // Some have so many that the limit binds for long.
    calls: whole(2, 8) * (seed % 8 === 0 ? 5 : 1),
    limits: { tokens: { perSecond, burst }, outputTokens: { total: quota } },
    concurrency: next() < 0.5 ? Infinity : whole(1, 8),
    sharing: {
      whenAway: pick<BudgetStore.Options["whenAway"]>("fail", "degrade", "degrade", { wait: "1 minute" }),
      lost: pick("keep", "refund"),
      lease: pick("5 seconds", "20 seconds"),
      degradeFor: pick("1 minute", "10 minutes")
    },
    network: {
      least: 0.1,
      most: pick(1, 10, 200),
      lost: isLossy ? between(0, 0.2) : 0,
      doubled: isLossy ? between(0, 0.3) : 0
    },
    sizes: [1, Math.ceil(burst * pick(0.05, 0.3, 0.9, 1.5))],
    answerMillis: pick(50, 500, 3_000),
    events
  }
}

/**
 * A rougher plan: callers give up, processes are suspended, replies come too late, limits change, and some agents are idle
 * until their process stops committing.
 */
export const rougher = (seed: number, isLossyStore = false): Plan => {
  const plain = plan(seed, isLossyStore)
  const next = numbers(~seed)
  const between = (least: number, most: number): number => least + next() * (most - least)
  const whole = (least: number, most: number): number => Math.floor(between(least, most + 1))
  const pick = <A>(...values: ReadonlyArray<A>): A => values[Math.floor(next() * values.length)]!
  const more = Array.from({ length: whole(1, 3) }, (): Event => {
    const at = between(0, 20_000)
    const process = whole(0, plain.processes - 1)
    const millis = 10 ** between(1, 5)
    return pick<Event>(
      { at, what: "freeze", process, millis },
      { at, what: "slow", process, millis, most: between(500, 8_000) },
      { at, what: "resize", process, part: between(0.3, 1) }
    )
  })
  const rough = {
    givesUp: pick(0.1, 0.5),
    within: pick(50, 5_000, 60_000),
    idleMillis: pick(0, 0, 200_000),
    maxQueued: pick(1, 3, Infinity),
    // Some have a provider that also rejects and fails calls.
    fails: seed % 5 === 0 ? pick(0.02, 0.2) : 0
  }
  // Some have callers whose code throws.
  const careless = seed % 3 === 0 ? { careless: 0.3 } : {}
  if (seed % 7 === 0) more.push({ at: between(0, 20_000), what: "readOnly", millis: 10 ** between(1, 5) })
  return { ...plain, events: [...plain.events, ...more], rough: { ...rough, ...careless } }
}

// -----------------------------------------------------------------------------
// Smaller plans
// -----------------------------------------------------------------------------

/** Runs that a search for a smaller plan may take. */
const maxTries = 300

/** The parts of a plan that may be dropped, the largest first. */
const smaller = (plan: Plan): ReadonlyArray<Plan> => {
  const { agents, calls, events, network, processes, rough } = plan
  const fewer = (count: number): ReadonlyArray<number> =>
    [Math.ceil(count / 2), count - 1].filter((each) => each >= 1 && each < count)
  return [
    ...events.map((_, at) => ({ ...plan, events: events.filter((_, other) => other !== at) })),
    ...fewer(processes).map((each) => ({ ...plan, processes: each })),
    ...fewer(agents).map((each) => ({ ...plan, agents: each })),
    ...fewer(calls).map((each) => ({ ...plan, calls: each })),
    ...(network.doubled > 0 ? [{ ...plan, network: { ...network, doubled: 0 } }] : []),
    ...(network.lost > 0 ? [{ ...plan, network: { ...network, lost: 0 } }] : []),
    ...(network.most > 1 ? [{ ...plan, network: { ...network, most: 1 } }] : []),
    ...(plan.concurrency < Infinity ? [{ ...plan, concurrency: Infinity }] : []),
    ...(rough !== undefined && rough.givesUp > 0 ? [{ ...plan, rough: { ...rough, givesUp: 0 } }] : []),
    ...(rough !== undefined && rough.fails > 0 ? [{ ...plan, rough: { ...rough, fails: 0 } }] : []),
    ...(rough?.careless === undefined ? [] : [{ ...plan, rough: { ...rough, careless: undefined } }]),
    ...(rough !== undefined && rough.idleMillis > 0 ? [{ ...plan, rough: { ...rough, idleMillis: 0 } }] : []),
    ...(rough !== undefined && rough.maxQueued < Infinity
      ? [{ ...plan, rough: { ...rough, maxQueued: Infinity } }]
      : [])
  ]
}

/**
 * The smallest plan that still fails and needs each of its parts: fewer events, processes, agents and calls, a calmer network.
 */
export const shrink = (plan: Plan, fails: (plan: Plan) => boolean): Plan => {
  let tries = 0
  for (;;) {
    const next = smaller(plan).find((each) => tries++ < maxTries && fails(each))
    if (next === undefined) return plan
    plan = next
  }
}

export const isBroken = (plan: Plan, redis: LuaRedis, code = World.library): boolean =>
  broken(run(plan, redis, code)).length > 0

/** Plays a seed again. */
export const commandOf = ({ rough, seed }: Plan): string =>
  `npm run storms -- --from ${seed} --seeds 1${rough === undefined ? "" : " --rough"}`

/**
 * The law that a plan breaks, the command that shows it, and the smallest plan that breaks a law; nothing if it breaks none.
 */
export const complaint = (failing: Plan, redis: LuaRedis, code = World.library) => {
  const laws = broken(run(failing, redis, code))
  if (laws.length === 0) return undefined
  const small = shrink(failing, (each) => isBroken(each, redis, code))
  return [
    `seed ${failing.seed}: ${laws.join("; ")}`,
    commandOf(failing),
    `As small as it gets: ${broken(run(small, redis, code)).join("; ")}`,
    inspect(small, { depth: Infinity, compact: 3, breakLength: 120 })
  ].join("\n")
}
