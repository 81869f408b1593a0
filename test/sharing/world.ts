/**
 * Processes in simulated time. Each has a clock of its own, a connection to the store that may be slow, lossy or cut, and a
 * budget with the code of a real process. The store is the code of `@floodgate/redis`, and its script runs in a Lua in this
 * process.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Random from "effect/Random"
import * as References from "effect/References"
import * as Scope from "effect/Scope"
import * as Budget from "floodgate/Budget"
import * as BudgetStore from "floodgate/BudgetStore"
import * as Governor from "floodgate/Governor"
import type * as Limits from "floodgate/Limits"
import * as Spending from "floodgate/Spending"
import { make as makeStore } from "../../packages/redis/src/store.ts"
import * as VirtualTime from "../../benchmark/weather/virtualTime.ts"
import type { Import } from "../support/fault.ts"
import * as LuaRedis from "./luaRedis.ts"

/** What the network does to each message. */
export interface Network {
  /** One way, in milliseconds. */
  readonly least: number
  readonly most: number
  /** How likely a message is lost, and how likely a request comes twice. */
  readonly lost: number
  readonly doubled: number
}

export const calm: Network = { least: 0.2, most: 1, lost: 0, doubled: 0 }

/** The connection of one process to the store. */
export interface Link {
  network: Network
  isCutTo: boolean
  isCutFrom: boolean
}

/** The code that processes run: the library's, or a broken copy of it. */
export interface Code {
  readonly Budget: typeof Budget
  readonly BudgetStore: typeof BudgetStore
  readonly Governor: typeof Governor
  readonly makeStore: typeof makeStore
  readonly Spending: typeof Spending
  /** The code that every second process runs instead, where two versions share a store. */
  readonly beside?: Code
}

export const library: Code = { Budget, BudgetStore, Governor, makeStore, Spending }

/** The code of a copy of the sources. */
export const codeOf = (take: Import): Effect.Effect<Code> =>
  Effect.gen(function* () {
    return {
      ...library,
      Budget: yield* take<Code["Budget"]>("Budget.ts"),
      BudgetStore: yield* take<Code["BudgetStore"]>("BudgetStore.ts"),
      Governor: yield* take<Code["Governor"]>("Governor.ts"),
      Spending: yield* take<Code["Spending"]>("Spending.ts")
    }
  })

/** How a store replaces a value. */
export type Swap = BudgetStore.Store["swap"]

/** The library's code over a store that replaces values in another way. */
export const swapping = (swap: (store: BudgetStore.Store) => Swap): Code => ({
  ...library,
  makeStore: (...args) => {
    const store = makeStore(...args)
    return { ...store, swap: swap(store) }
  }
})

/** A store that replaces a value whatever its version is. */
export const comparingNothing = swapping(
  (store) =>
    (name, _, ...next) =>
      Effect.flatMap(store.read(name), (stored) => store.swap(name, stored?.version, ...next))
)

/** A call as the provider sees it. */
export interface Entry {
  readonly at: number
  readonly process: string
  readonly agent: string
  /** Its usage, and its estimate. */
  readonly amounts: Limits.Estimate
  readonly estimate: Limits.Estimate
  /** Whether its process has reported its usage. */
  isSettled: boolean
}

export interface Process {
  readonly name: string
  /** The code that it runs. */
  readonly code: Code
  readonly link: Link
  readonly budget: Budget.TokenBudget["Service"]
  /** Sets its wall clock ahead, or back. */
  readonly step: (millis: number) => void
  /** Suspends it for this long while time passes, like a stopped program or a migrated machine. */
  readonly freeze: (millis: number) => void
  /** Waits while it is suspended. */
  readonly awake: Effect.Effect<void>
  /** Runs with this process's clock and budget, until the process ends. */
  readonly run: <A, E>(effect: Effect.Effect<A, E, Budget.TokenBudget>) => Effect.Effect<A, E>
  /** Runs here, with this process's clock, store and budget, in the scope of the process. */
  readonly within: <A, E>(effect: Effect.Effect<A, E, Budget.TokenBudget | Scope.Scope>) => Effect.Effect<A, E>
  /** Sends a call: reserves, is with the provider for a time, and settles. */
  readonly call: (call: Call, whenGranted?: Effect.Effect<void>) => Effect.Effect<void, Budget.BudgetError>
  /** Ends it in order, or kills it, so that it reports nothing. */
  readonly close: Effect.Effect<void>
  readonly crash: Effect.Effect<void>
}

export interface Call {
  readonly estimate: Limits.Estimate
  /** Its usage. @default its estimate */
  readonly usage?: Limits.Usage | undefined
  readonly millis: number
  readonly options?: Budget.ReserveOptions
  /** The provider's failure, if it does not succeed. Such a call uses nothing. */
  readonly failure?: Pick<Parameters<Budget.Reservation["fail"]>[0], "reason" | "retryAfter">
}

const nothing = { tokens: 0, outputTokens: 0 }

export interface World {
  readonly log: Array<Entry>
  /** The calls that the provider works on. */
  readonly inFlight: () => number
  readonly peak: () => number
  readonly redis: LuaRedis.LuaRedis
  /** No request is answered while it is down. */
  isDown: boolean
  /** How far the clock of Redis was set ahead, in milliseconds. */
  aheadMillis: number
  readonly requests: () => number
  readonly start: (name: string, options: Budget.Options, sharing?: ProcessOptions) => Effect.Effect<Process>
}

export interface ProcessOptions extends BudgetStore.Options {
  readonly network?: Network
  /** How far its clock is off, and by how much it runs fast. */
  readonly skewMillis?: number
  readonly drift?: number
}

/** A clock that is off, and whose wall clock may be set. Its sleeps last as long as others do, while it is awake. */
const clockWith = (
  clock: Clock.Clock,
  skewMillis: number,
  drift: number,
  ahead: () => number,
  awake: Effect.Effect<void>
): Clock.Clock => {
  const own = () => Math.round(Math.round(clock.currentTimeMillisUnsafe() * 1e6) * (1 + drift))
  const nanos = () => BigInt(own() + Math.round(skewMillis * 1e6))
  const wall = () => clock.currentTimeMillisUnsafe() + ahead()
  const wallNanos = () => clock.currentTimeNanosUnsafe() + BigInt(Math.round(ahead() * 1e6))
  return {
    sleep: (duration) => Effect.andThen(clock.sleep(duration), awake),
    currentTimeMillisUnsafe: wall,
    currentTimeMillis: Effect.sync(wall),
    currentTimeNanosUnsafe: wallNanos,
    currentTimeNanos: Effect.sync(wallNanos),
    monotonicTimeNanosUnsafe: nanos,
    monotonicTimeNanos: Effect.sync(nanos)
  }
}

export const make = (
  redis: LuaRedis.LuaRedis,
  { after, soon }: VirtualTime.VirtualTime,
  code = library
): Effect.Effect<World> =>
  Effect.map(Effect.all([Clock.Clock, Random.Random]), ([clock, random]) => {
    let inFlight = 0
    let peak = 0
    let requests = 0
    let processes = 0
    // Its clock is off, as any is.
    redis.now = () => Math.floor(clock.currentTimeMillisUnsafe() * 1.00002 + world.aheadMillis) + 1_700_000_000_000

    const serve = (words: ReadonlyArray<string>): Effect.Effect<unknown, BudgetStore.StoreError> => {
      requests++
      try {
        return Effect.succeed(redis.send(words))
      } catch (cause) {
        return Effect.fail(new BudgetStore.StoreError({ cause }))
      }
    }

    const between = (least: number, most: number): number => random.nextDoubleUnsafe() * (most - least) + least
    const happens = (probability: number): boolean => probability > 0 && random.nextDoubleUnsafe() < probability

    /** A message is on its way, and arrives or not. */
    const travel = ({ least, lost, most }: Network, isCut: () => boolean, arrive: () => void): void =>
      after(between(least, most), () => {
        if (!isCut() && !happens(lost)) arrive()
      })

    /** A request that was sent arrives even if nothing waits for its reply any longer. */
    const send = (link: Link, awake: Effect.Effect<void>) => (_: string, words: ReadonlyArray<string>) =>
      Effect.ensuring(
        Effect.callback<unknown, BudgetStore.StoreError>((resume) => {
          const { network } = link
          const arrive = (): void => {
            const reply = serve(words)
            travel(
              network,
              () => link.isCutFrom || world.isDown,
              () => resume(reply)
            )
          }
          soon(() => travel(network, () => link.isCutTo || world.isDown, arrive))
          if (happens(network.doubled)) {
            const late = between(0, 3_000)
            soon(() => after(late, () => void serve(words)))
          }
        }),
        awake
      )

    const world: World = {
      log: [],
      inFlight: () => inFlight,
      peak: () => peak,
      redis,
      isDown: false,
      aheadMillis: 0,
      requests: () => requests,
      start: Effect.fnUntraced(function* (
        name,
        options,
        { drift = 0, network = calm, skewMillis = 0, ...sharing } = {}
      ) {
        const runs = processes++ % 2 === 1 && code.beside !== undefined ? code.beside : code
        const { Budget, BudgetStore, makeStore } = runs
        const link: Link = { network, isCutTo: false, isCutFrom: false }
        let ahead = 0
        let frozenUntil = -Infinity
        const awake: Effect.Effect<void> = Effect.suspend(() => {
          const left = frozenUntil - clock.currentTimeMillisUnsafe()
          return left > 0 ? Effect.andThen(clock.sleep(Duration.millis(Math.ceil(left))), awake) : Effect.void
        })
        const store = BudgetStore.layer(makeStore("world", send(link, awake)), { ...sharing, name })
        const own = clockWith(clock, skewMillis, drift, () => ahead, awake)
        const scope = yield* Scope.make()
        const layer = Budget.layer(options).pipe(Layer.provideMerge(store))
        const context = yield* Layer.buildWithScope(layer, scope).pipe(
          Effect.provideService(Clock.Clock, own),
          Effect.provideService(References.MinimumLogLevel, "None")
        )
        const run: Process["run"] = (effect) =>
          Effect.flatMap(
            Effect.forkIn(Effect.provideService(Effect.provideContext(effect, context), Clock.Clock, own), scope),
            (fiber) => Effect.onInterrupt(Fiber.join(fiber), () => Fiber.interrupt(fiber))
          )
        const budget = Context.get(context, Budget.TokenBudget)
        const call: Process["call"] = (
          { estimate, failure, millis, options, usage = failure === undefined ? estimate : nothing },
          whenGranted = Effect.void
        ) =>
          run(
            Budget.withReservation(
              estimate,
              (reservation) => {
                const at = clock.currentTimeMillisUnsafe()
                const entry: Entry = {
                  at,
                  process: name,
                  agent: reservation.agent,
                  amounts: usage,
                  estimate,
                  isSettled: false
                }
                world.log.push(entry)
                peak = Math.max(peak, ++inFlight)
                return Effect.andThen(whenGranted, millis === 0 ? Effect.void : Effect.sleep(millis)).pipe(
                  Effect.andThen(
                    failure === undefined ? reservation.settle(usage) : reservation.fail({ ...failure, usage: nothing })
                  ),
                  Effect.andThen(Effect.sync(() => void (entry.isSettled = true))),
                  Effect.ensuring(Effect.sync(() => void inFlight--))
                )
              },
              options
            )
          )
        const within: Process["within"] = (effect) =>
          Scope.provide(effect, scope).pipe(
            Effect.provideContext(context),
            Effect.provideService(Clock.Clock, own),
            Effect.provideService(References.MinimumLogLevel, "None")
          )
        const close = Scope.close(scope, Exit.void)
        return {
          name,
          code: runs,
          link,
          step: (millis) => void (ahead += millis),
          freeze: (millis) => void (frozenUntil = Math.max(frozenUntil, clock.currentTimeMillisUnsafe() + millis)),
          awake,
          budget,
          run,
          within,
          call,
          close,
          crash: Effect.suspend(() => {
            link.isCutTo = link.isCutFrom = true
            return Effect.asVoid(Effect.forkDetach(close))
          })
        }
      })
    }
    return world
  })

/** A Lua for a file of tests: each test wipes it. */
export const redis = LuaRedis.make

/** Runs an effect in simulated time, with an empty store. */
export const simulated = <A, E>(
  redis: LuaRedis.LuaRedis,
  seed: string | number,
  scene: (time: VirtualTime.VirtualTime) => Effect.Effect<A, E>,
  uncaught?: (error: unknown) => void
): A => {
  redis.reset()
  const time = VirtualTime.make((millis) => millis)
  const exit = time.run(Random.withSeed(scene(time), seed), uncaught)
  if (Exit.isFailure(exit)) throw new Error(`seed ${seed}`, { cause: exit.cause })
  return exit.value
}

/** Plays scenes in simulated time, each with an empty store. */
export const player =
  (redis: LuaRedis.LuaRedis, seed: string) =>
  <A, E>(scene: (world: World) => Effect.Effect<A, E>): A =>
    simulated(redis, seed, (time) => Effect.flatMap(make(redis, time), scene))

// -----------------------------------------------------------------------------
// Judges: they know the limit and the log, and nothing of the library
// -----------------------------------------------------------------------------

/** By how much the log exceeds a bucket at most: the maximum over all intervals of what was sent, less burst and refill. */
export const excessOf = (
  log: ReadonlyArray<Entry>,
  dimension: Limits.Dimension,
  limit: { readonly perSecond: number; readonly burst: number }
): number => {
  let level = limit.burst
  let before = 0
  let worst = 0
  for (const { amounts, at } of log) {
    level = Math.min(limit.burst, level + (limit.perSecond * (at - before)) / 1_000)
    before = at
    level -= dimension === "requests" ? 1 : (amounts[dimension] ?? 0)
    worst = Math.max(worst, -level)
  }
  return worst
}

/** The most that any span of a length holds. */
export const maxIn = (log: ReadonlyArray<Entry>, dimension: Limits.Dimension, millis: number): number => {
  let sum = 0
  let most = 0
  let first = 0
  const of = ({ amounts }: Entry): number => (dimension === "requests" ? 1 : (amounts[dimension] ?? 0))
  for (const entry of log) {
    sum += of(entry)
    while (entry.at - log[first]!.at >= millis) sum -= of(log[first++]!)
    most = Math.max(most, sum)
  }
  return most
}

/** Jain's fairness index of several amounts. */
export const jain = (amounts: ReadonlyArray<number>): number => {
  const sum = amounts.reduce((a, b) => a + b, 0)
  return sum ** 2 / (amounts.length * amounts.reduce((a, b) => a + b * b, 0))
}
