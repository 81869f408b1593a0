/**
 * Engine B: runs a whole client made of effects, the library's or another's, in a weather and in virtual time.
 *
 * Unlike in engine A, the client has its own queue, retries, deadlines and estimates. Time passes in whole milliseconds. Long
 * runs are shortened to about 200,000 calls, and a client has at most 50,000 workers.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Random from "effect/Random"
import type * as Scope from "effect/Scope"
import * as Provider from "./provider.ts"
import { binding, type Scenario } from "./scenario.ts"
import * as Score from "./score.ts"
import * as VirtualTime from "./virtualTime.ts"
import * as Workload from "./workload.ts"

export type Answer = Provider.Outcome & { readonly kind: "answer" }
export type Rejected = Provider.Outcome & { readonly kind: "rejection" }
export type Failed = Provider.Outcome & { readonly kind: "failure" }

/** Sends a call once, and ends when the provider answers. */
export type Attempt = (call: Workload.Call) => Effect.Effect<Answer, Rejected | Failed>

export interface Client {
  /** Makes a call until it is answered or given up. */
  readonly make: (call: Workload.Call) => Effect.Effect<unknown, unknown>
  /** Changes the limits that the user states. */
  readonly restate?: ((told: Scenario["told"]) => Effect.Effect<void>) | undefined
}
export type MakeClient = (scenario: Scenario, attempt: Attempt) => Effect.Effect<Client, never, Scope.Scope>

const maxCalls = 200_000
const maxWorkers = 50_000
const deadlineMillis = 600_000

export const run = (whole: Scenario, seed: number, makeClient: MakeClient): Score.Result => {
  const scenario = lightened(whole)
  const time = VirtualTime.make()
  const provider = Provider.make(scenario, seed)
  const tally = Score.tally(scenario)
  const work = Workload.make(scenario, seed)
  const open = new Set<Workload.Call>()

  const attempt: Attempt = (call) =>
    Effect.suspend(() => {
      const now = time.now()
      const outcome = provider.arrive(call, now)
      tally.sent(call, outcome, now)
      const end = outcome.kind === "answer" ? Effect.succeed(outcome) : Effect.fail(outcome)
      return Effect.delay(end, Duration.millis(outcome.after))
    })

  /** One call, and then the worker's next one. */
  const worker = (client: Client) =>
    Effect.fnUntraced(function* (first: Workload.Call) {
      for (let call: Workload.Call | undefined = first; call !== undefined;) {
        open.add(call)
        const exit: Exit.Exit<unknown, unknown> = yield* Effect.exit(client.make(call))
        open.delete(call)
        if (Exit.hasDies(exit)) yield* Effect.orDie(exit)
        tally.ended(call, time.now(), Exit.isFailure(exit))
        call = work.next(call, time.now(), Exit.isFailure(exit))
      }
    })

  const program = Effect.gen(function* () {
    const client = yield* makeClient(scenario, attempt)
    const restated = scenario.retold.map(({ at, told }) =>
      Effect.delay(client.restate?.(told) ?? Effect.void, Duration.millis(at))
    )
    const all = [...work.start().map(worker(client)), ...restated]
    yield* Effect.raceFirst(
      Effect.all(all, { concurrency: "unbounded", discard: true }),
      Effect.sleep(Duration.millis(scenario.millis))
    )
  })
  const exit = time.run(Random.withSeed(Effect.scoped(program), seed))
  if (Exit.isFailure(exit)) throw new Error(`the client died: ${String(exit.cause)}`, { cause: exit.cause })
  const expired = [...open].filter((call) => call.createdAt + deadlineMillis < scenario.millis)
  return tally.result(provider.account(scenario.millis), expired)
}

/** Events at fixed times must still happen. */
const lightened = (scenario: Scenario): Scenario => {
  const { work } = scenario
  if (work.kind === "jobs") return scenario
  const last = Math.max(
    ...scenario.outages.map(({ to }) => to),
    ...scenario.changes.map(({ at }) => at),
    ...scenario.retold.map(({ at }) => at),
    scenario.backFrom ?? 0
  )
  const enough = Math.max(
    120_000,
    4 * scenario.latency.mean,
    last * 1.5,
    (maxCalls / binding(scenario).perMinute) * 60_000
  )
  return {
    ...scenario,
    millis: Math.min(scenario.millis, enough),
    work: { ...work, workers: Math.min(maxWorkers, work.workers) }
  }
}
