/** Plays a scenario with a client, in virtual time, and counts. */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Random from "effect/Random"
import type * as Scope from "effect/Scope"
import * as Prng from "../weather/prng.ts"
import * as VirtualTime from "../weather/virtualTime.ts"
import type { Job, Scenario } from "./scenarios.ts"
import * as Server from "./server.ts"

/** Makes a call until it is answered or lost. */
export type Client = (job: Job, agent: string) => Effect.Effect<Server.SentCall["outcome"]>

/** Something that the processes of a run share. */
export interface Shared {
  readonly shared: <A>(make: () => A) => A
}

/** Makes the client of one process. */
export type MakeClient = (
  server: Server.Server,
  time: VirtualTime.VirtualTime,
  scenario: Scenario,
  stores: Shared
) => Effect.Effect<Client, never, Scope.Scope>

export interface Result {
  readonly tokensPerSecond: number
  /** Seconds from the wish to the answer, of 95 % of the answered calls. */
  readonly p95: number
  readonly answered: number
  readonly lost: number
  /** The tokens of the process that got the fewest, as a part of those of the process that got the most. */
  readonly share: number
}

export const play = (scenario: Scenario, makeClient: MakeClient, seed: number): Result => {
  const { agents, burst = 1, from, job, lateBy = 0, processes = 1, to } = scenario
  const time = VirtualTime.make()
  const server = Server.make(time, scenario)
  const tokens = Array.from({ length: processes }, () => 0)
  const times: Array<number> = []
  let lost = 0

  /** A call, and what counts of it. */
  const call = Effect.fnUntraced(function* (client: Client, process: number, agent: string, wanted: Job) {
    const at = time.now()
    const outcome = yield* client(wanted, agent)
    if (time.now() < 1_000 * from) return
    if (outcome === "lost") lost++
    else {
      tokens[process]! += wanted.output
      times.push((time.now() - at) / 1_000)
    }
  })

  const agentOf = Effect.fnUntraced(function* (clients: ReadonlyArray<Client>, index: number) {
    const random = Prng.make(seed, index)
    const process = index % processes
    const one = call.bind(undefined, clients[process]!, process, `agent ${index}`)
    yield* Effect.sleep(3_000 * random.next() + (process === 0 ? 0 : 1_000 * lateBy))
    for (;;) {
      const jobs = Array.from({ length: burst }, () => job(random))
      yield* burst === 1 ? one(jobs[0]!) : Effect.forEach(jobs, one, { concurrency: "unbounded", discard: true })
      yield* Effect.sleep(burst === 1 ? 500 : 5_000)
    }
  })

  const program = Effect.gen(function* () {
    let common: unknown
    const stores: Shared = { shared: <A>(make: () => A) => (common ??= make()) as A }
    const clients = yield* Effect.forEach(tokens, () => makeClient(server, time, scenario, stores))
    const all = Array.from({ length: agents }, (_, index) => agentOf(clients, index))
    yield* Effect.raceFirst(Effect.all(all, { concurrency: "unbounded", discard: true }), Effect.sleep(1_000 * to))
  })
  const exit = time.run(Random.withSeed(Effect.scoped(program), seed))
  if (Exit.isFailure(exit)) throw new Error(`the client died: ${String(exit.cause)}`, { cause: exit.cause })
  times.sort((a, b) => a - b)
  return {
    tokensPerSecond: tokens.reduce((sum, each) => sum + each, 0) / (to - from),
    p95: times[Math.ceil(0.95 * times.length) - 1] ?? Number.NaN,
    answered: times.length,
    lost,
    share: Math.min(...tokens) / Math.max(...tokens)
  }
}
