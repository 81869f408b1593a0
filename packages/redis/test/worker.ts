/**
 * One process of the tests: agents that call a provider over HTTP under a budget in Redis. It prints "ready", starts at the first
 * line of its input, and ends with a line of JSON about what happened.
 */
import { createInterface } from "node:readline"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as References from "effect/References"
import * as Budget from "floodgate/Budget"
import type { Options } from "floodgate/BudgetStore"
import type { Limits } from "floodgate/Limits"
import * as Clients from "./clients.ts"

export interface Job {
  readonly url: string
  readonly prefix: string
  readonly name: string
  readonly provider: string
  readonly limits: Limits
  readonly concurrency?: number
  readonly store?: Options
  /** The package that it reaches Redis by. */
  readonly client?: Clients.Name
  readonly agents: number
  /** The sizes of each agent's calls. */
  readonly calls: ReadonlyArray<number>
  /** Or of each agent's own. */
  readonly callsPerAgent?: ReadonlyArray<ReadonlyArray<number>>
  /** What is estimated for a call of one token. */
  readonly estimate?: number
  /** How far this process's clocks are off: of the day, and since the machine was started. */
  readonly skewMillis?: number
}

export interface Outcome {
  readonly name: string
  readonly done: number
  readonly failed: number
  readonly errors: ReadonlyArray<string>
  /** Every grant: when it was heard of, in milliseconds since the epoch, and the tokens. */
  readonly grants: ReadonlyArray<readonly [at: number, tokens: number]>
}

const job = JSON.parse(process.argv[2]!) as Job
if (job.skewMillis !== undefined) {
  const skew = job.skewMillis
  const now = Date.now.bind(Date)
  const nanos = process.hrtime.bigint.bind(process.hrtime)
  Date.now = () => now() + skew
  process.hrtime.bigint = () => nanos() + BigInt(skew) * 1_000_000n
}

const errors = new Set<string>()
const grants: Array<readonly [at: number, tokens: number]> = []
let done = 0
let failed = 0

const call = (agent: number, tokens: number) =>
  Budget.withReservation(
    { tokens: Math.ceil(tokens * (job.estimate ?? 1)) },
    (reservation) =>
      Effect.flatMap(
        Effect.promise(async (signal) => {
          grants.push([performance.timeOrigin + performance.now(), tokens])
          const response = await fetch(job.provider, {
            method: "POST",
            body: JSON.stringify({ process: job.name, agent, tokens }),
            signal
          })
          await response.text()
        }),
        () => reservation.settle({ tokens })
      ),
    { agent: `agent-${agent}` }
  ).pipe(
    Effect.match({
      onSuccess: () => void done++,
      onFailure: (error) => {
        failed++
        errors.add(error.reason._tag)
      }
    })
  )

const warmUp = Effect.andThen(
  Budget.withReservation({ tokens: 0 }, (reservation) => reservation.settle({ tokens: 0 })),
  Effect.promise(async () => {
    await (await fetch(job.provider)).text()
  })
)

const agents = Array.from({ length: job.agents }, (_, n) => n)

const agent = (n: number) =>
  Effect.forEach(job.callsPerAgent?.[n] ?? job.calls, (tokens) => call(n, tokens), { discard: true })

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]()

const program = Effect.gen(function* () {
  const budget = yield* Budget.TokenBudget
  // Opens the pool and the connections, so that the start is not measured: the first use of `fetch` takes up to a second
  // on a busy machine, and no store knows of that.
  for (let round = 0; round < 3; round++) {
    yield* Effect.forEach(agents, () => Effect.ignore(warmUp), { concurrency: "unbounded", discard: true })
  }
  console.log("ready")
  yield* Effect.promise(() => lines.next())
  yield* Effect.forEach(agents, agent, { concurrency: "unbounded", discard: true })
  yield* budget.status
})

await Effect.runPromise(
  Effect.provide(
    program,
    Budget.layer({ limits: job.limits, concurrency: job.concurrency }).pipe(
      Layer.provide(Clients.layer(job.client ?? "redis", job.url, job.prefix, { ...job.store, name: job.name }))
    )
  ).pipe(
    Effect.provideService(References.MinimumLogLevel, "None"),
    Effect.timeoutOrElse({
      duration: Duration.seconds(100),
      orElse: () => Effect.sync(() => void errors.add("hangs"))
    })
  )
)
const outcome: Outcome = { name: job.name, done, failed, errors: [...errors], grants }
console.log(JSON.stringify(outcome))
process.exit(0)
