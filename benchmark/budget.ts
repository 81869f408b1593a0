/**
 * What a reservation costs when nothing waits, beside other limiters: `npm run -s bench -- budget [--rounds 15]`.
 *
 * Contenders take turns (see `support/inTurns.ts`): first all in one process, as in a program that uses much of Effect, where
 * other code also invalidates the compiler's assumptions; then each in a process of its own. Calls are made anew, as in a program
 * whose calls differ in size, unless the name says that one effect is run often. Every call that Floodgate admits is settled.
 */
import Bottleneck from "bottleneck"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as RateLimiter from "effect/persistence/RateLimiter"
import * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import * as Budget from "floodgate/Budget"
import { RateLimiter as Limiter } from "limiter"
import pLimit from "p-limit"
import PQueue from "p-queue"
import { RateLimiterMemory } from "rate-limiter-flexible"
import { parseArgs } from "node:util"
import { type Contender, inProcesses, inTurns, resultsOf, serveTurns, timed } from "./support/inTurns.ts"

const permits = 10
const plenty = 1e12

const keep = <A>(layer: Layer.Layer<A>): Promise<Context.Context<A>> =>
  Effect.runPromise(Layer.buildWithScope(layer, Scope.makeUnsafe()))

const limits = { tokens: { perSecond: plenty, burst: plenty } }
const budget = await keep(Budget.layer({ limits }))
const limited = await keep(Budget.layer({ limits, concurrency: permits }))
const limiters = await keep(RateLimiter.layer.pipe(Layer.provide(RateLimiter.layerStoreMemory)))
const limiter = Context.get(limiters, RateLimiter.RateLimiter)
const bucket = { key: "key", limit: 1e9, window: "1 minute", algorithm: "token-bucket", tokens: 1 } as const

const calls = 50_000

const repeated = <E, R>(call: (i: number) => Effect.Effect<unknown, E, R>) =>
  Effect.gen(function* () {
    for (let i = 0; i < calls; i++) yield* call(i)
  })

/** Makes calls anew, or runs one effect often. */
const inEffect = (
  call: (i: number) => Effect.Effect<unknown, unknown, Budget.TokenBudget>,
  context: Context.Context<Budget.TokenBudget> = budget
) => {
  const all = repeated(call)
  return () => Effect.runPromise(Effect.provideContext(Effect.orDie(all), context))
}

const often = (
  call: Effect.Effect<unknown, unknown, Budget.TokenBudget>,
  context?: Context.Context<Budget.TokenBudget>
) => inEffect(() => call, context)

const inPromises = (call: (i: number) => Promise<unknown>) => async () => {
  for (let i = 0; i < calls; i++) await call(i)
}

const nothing = async () => {}
const semaphore = Semaphore.makeUnsafe(permits)
const pLimited = pLimit(permits)
const pQueue = new PQueue({ concurrency: permits })
const tokenBucket = new Limiter({ tokensPerInterval: plenty, interval: "second" })
const flexible = new RateLimiterMemory({ points: 1e9, duration: 60 })

const settled = ({ settle }: Budget.Reservation) => settle({ tokens: 1 })

const cases: Readonly<Record<string, () => Promise<unknown>>> = {
  "effect RateLimiter.consume": inEffect((i) => limiter.consume({ ...bucket, tokens: 1 + (i % 100) })),
  "effect RateLimiter.consume, one effect run often": often(limiter.consume(bucket)),
  "floodgate withReservation": inEffect((i) => Budget.withReservation({ tokens: 1 + (i % 100) }, settled)),
  "floodgate withReservation, one effect run often": often(Budget.withReservation({ tokens: 2 }, settled)),
  "floodgate withReservation, with concurrency": inEffect(
    (i) => Budget.withReservation({ tokens: 1 + (i % 100) }, settled),
    limited
  ),
  "floodgate withReservation, not settled": inEffect((i) =>
    Budget.withReservation({ tokens: 1 + (i % 100) }, () => Effect.void)
  ),
  "floodgate consume": inEffect((i) => Budget.consume(1 + (i % 100))),
  "floodgate consume, one effect run often": often(Budget.consume(1)),
  "effect Semaphore.withPermit": inEffect(() => semaphore.withPermit(Effect.void)),
  "p-limit": inPromises(() => pLimited(nothing)),
  "p-queue": inPromises(() => pQueue.add(nothing)),
  limiter: inPromises(() => tokenBucket.removeTokens(1)),
  "rate-limiter-flexible": inPromises(() => flexible.consume("key", 1)),
  // Fewer calls, because each one takes it a hundred times as long.
  bottleneck: async () => {
    const bottleneck = new Bottleneck({ maxConcurrent: permits })
    for (let i = 0; i < calls / 100; i++) await bottleneck.schedule(nothing)
  }
}

const turnOf = (name: string) => () => timed(name === "bottleneck" ? calls / 100 : calls, cases[name]!)

if (process.send !== undefined) serveTurns(turnOf(process.argv[2]!))
else {
  const { values } = parseArgs({
    options: { rounds: { type: "string", default: "15" }, only: { type: "string", default: "" } }
  })
  const names = Object.keys(cases).filter((name) => new RegExp(`^effect RateLimiter|${values.only}`).test(name))
  const base = names.find((name) => name === "floodgate withReservation") ?? names[0]!
  const compare = async (title: string, contenders: ReadonlyArray<Contender>): Promise<void> => {
    const measured = await inTurns(contenders, { rounds: Number(values.rounds), warmups: 3, base })
    console.log(`\n${resultsOf(title, "call", measured)}`)
  }
  await compare(
    "in one process",
    names.map((name) => ({ name, turn: turnOf(name) }))
  )
  const { contenders, end } = inProcesses(import.meta.filename, names)
  await compare("each in a process of its own", contenders)
  end()
}
