/** The scenarios: a server that queues without a bound, the agents that call it, and what happens meanwhile. Times are in seconds. */
import type * as Prng from "../weather/prng.ts"

/** The tokens of a call. */
export interface Job {
  readonly input: number
  readonly output: number
}

export interface Server {
  /** The sequences that run at once, its `--max-num-seqs`. */
  readonly concurrency: number
  readonly memoryTokens: number
  readonly perInputTokenMillis: number
  readonly perOutputTokenMillis: number
  readonly perSequenceMillis: number
  /** Nothing is computed between these times: the model loads, or the machine hangs. */
  readonly stopped?: readonly [from: number, to: number] | undefined
  /** The factor of the time of each step, at a time. */
  readonly slowness?: ((seconds: number) => number) | undefined
  /** Servers behind a balancer, at a time. */
  readonly replicas?: ((seconds: number) => number) | undefined
  /** The time of a request and of its answer on the way. */
  readonly away?: number | undefined
}

export interface Scenario {
  readonly name: string
  readonly server: Server
  readonly agents: number
  /** How many calls run at once where the server is full; the fixed numbers lie around it. */
  readonly full: number
  readonly job: (random: Prng.Prng) => Job
  /** After this long the client gives up a call that it has sent. */
  readonly timeout?: number | undefined
  /** The calls that an agent makes at once. A burst is followed by a pause of 5 s, a single call by one of 0.5 s. */
  readonly burst?: number | undefined
  readonly processes?: number | undefined
  /** Whether the processes share a store. */
  readonly store?: boolean | undefined
  /** When the processes after the first start. */
  readonly lateBy?: number | undefined
  readonly streams: boolean
  /** Whether a proxy holds streams back until they are complete. */
  readonly gathered?: boolean | undefined
  /** What counts lies between these times. */
  readonly from: number
  readonly to: number
}

// -----------------------------------------------------------------------------
// Servers and calls
// -----------------------------------------------------------------------------

const batch64: Server = {
  concurrency: 64,
  memoryTokens: 400_000,
  perInputTokenMillis: 0.02,
  perOutputTokenMillis: 18,
  perSequenceMillis: 0.35
}
/** Memory for about 50 calls. */
const memory50: Server = { ...batch64, concurrency: 256, memoryTokens: 150_000 }

const halfSpeed = (seconds: number): number => (seconds >= 300 && seconds < 600 ? 2 : 1)
const doubles = (seconds: number): number => (seconds < 450 ? 1 : 2)

const between = (value: number, from: number, to: number): number => Math.round(Math.min(to, Math.max(from, value)))

const usual = ({ lognormal }: Prng.Prng): Job => ({
  input: between(lognormal(3_200, 0.7), 1, 12_000),
  output: between(lognormal(420, 0.6), 20, 2_000)
})

const mixed = (random: Prng.Prng): Job => ({ ...usual(random), input: random.next() < 0.8 ? 500 : 30_000 })

const scenario = (name: string, server: Server, agents: number, options: Partial<Scenario> = {}): Scenario => ({
  name,
  server,
  agents,
  full: server.concurrency === 256 ? 50 : server.concurrency,
  job: usual,
  streams: true,
  from: 60,
  to: 600,
  ...options
})

const whole = { streams: false }
const minute = { timeout: 60 }
const long = { to: 900 }
const two = { ...minute, processes: 2 }
const late = { ...two, lateBy: 120, from: 240, to: 720 }
const away = (seconds: number): Server => ({ ...batch64, replicas: () => 8, away: seconds })

// -----------------------------------------------------------------------------
// The table
// -----------------------------------------------------------------------------

/** The eight cells of a batch of 64 and of memory for about 50. */
const plain = [
  { name: "batch 64", server: batch64 },
  { name: "memory 50", server: memory50 }
].flatMap(({ name, server }) =>
  [200, 400].flatMap((agents) => [
    scenario(`${name}, ${agents} agents`, server, agents),
    scenario(`${name}, ${agents} agents, 60 s`, server, agents, minute)
  ])
)

export const scenarios: ReadonlyArray<Scenario> = [
  ...plain,
  scenario("half speed for 5 min, batch 64, 200 agents", { ...batch64, slowness: halfSpeed }, 200, long),
  scenario("half speed for 5 min, memory 50, 400 agents, 60 s", { ...memory50, slowness: halfSpeed }, 400, {
    ...minute,
    ...long
  }),
  scenario("loads for 40 s, 400 agents, 60 s", { ...batch64, stopped: [0, 40] }, 400, { ...minute, from: 40 }),
  scenario("prompts of 500 and 30,000, 200 agents, 60 s", { ...batch64, memoryTokens: 800_000 }, 200, {
    ...minute,
    job: mixed
  }),
  scenario("one agent", batch64, 1),
  scenario("one agent, bursts of 12", batch64, 1, { burst: 12 }),
  scenario("one agent, bursts of 60", batch64, 1, { burst: 60 }),
  scenario("two processes, 400 agents, 60 s", batch64, 400, two),
  scenario("two processes with a store, 400 agents, 60 s", batch64, 400, { ...two, store: true }),
  scenario("two processes, one 2 min later, batch 64, 60 s", batch64, 400, late),
  scenario("two processes, one 2 min later, memory 50, 60 s", memory50, 400, late),
  scenario("two processes with a store, one 2 min later, memory 50, 60 s", memory50, 400, { ...late, store: true }),
  scenario("ten processes, 400 agents, 60 s", batch64, 400, { ...minute, processes: 10 }),
  scenario("ten processes with a store, 400 agents, 60 s", batch64, 400, { ...minute, processes: 10, store: true }),
  scenario("ten processes, batch 4, 100 agents, 60 s", { ...batch64, concurrency: 4 }, 100, {
    ...minute,
    processes: 10
  }),
  scenario("ten processes with a store, batch 4, 100 agents, 60 s", { ...batch64, concurrency: 4 }, 100, {
    ...minute,
    processes: 10,
    store: true
  }),
  scenario("capacity doubles, 400 agents, 60 s", { ...batch64, replicas: doubles }, 400, {
    ...minute,
    ...long,
    full: 96
  }),
  scenario("not streamed, batch 64, 200 agents", batch64, 200, whole),
  scenario("not streamed, memory 50, 400 agents, 60 s", memory50, 400, { ...whole, ...minute }),
  scenario("not streamed, half speed for 5 min, 400 agents, 60 s", { ...batch64, slowness: halfSpeed }, 400, {
    ...whole,
    ...minute,
    ...long
  }),
  scenario("not streamed, two processes, 400 agents, 60 s", batch64, 400, { ...whole, ...two }),
  scenario("not streamed, capacity doubles, 400 agents, 60 s", { ...batch64, replicas: doubles }, 400, {
    ...whole,
    ...minute,
    ...long,
    full: 96
  }),
  scenario("not streamed, down for 2 min, 400 agents, 60 s", { ...batch64, stopped: [200, 320] }, 400, {
    ...whole,
    ...minute,
    ...long
  }),
  scenario("not streamed, answers of one length, 400 agents, 60 s", batch64, 400, {
    ...whole,
    ...minute,
    job: () => ({ input: 2_000, output: 300 })
  }),
  scenario("streamed through a proxy that gathers, 400 agents, 60 s", batch64, 400, { ...minute, gathered: true }),
  scenario("down for 2 min, 400 agents, 60 s", { ...batch64, stopped: [200, 320] }, 400, { ...minute, ...long }),
  scenario("answers of 8 tokens, 400 agents", { ...batch64, concurrency: 256 }, 400, {
    full: 256,
    to: 200,
    job: ({ lognormal }) => ({ input: between(lognormal(227, 0.5), 1, 10_000), output: 8 })
  }),
  scenario("answers of 300 to 2,700 tokens, 200 agents, 120 s", { ...batch64, memoryTokens: 600_000 }, 200, {
    timeout: 120,
    job: ({ next }) => ({ input: 2_000, output: Math.round(300 + 2_400 * next()) })
  }),
  scenario("batch 4, 50 agents, 120 s", { ...batch64, concurrency: 4 }, 50, { timeout: 120 }),
  scenario(
    "one slot, 20 agents, 120 s",
    { ...batch64, concurrency: 1, memoryTokens: 40_000, perInputTokenMillis: 0.05 },
    20,
    { timeout: 120 }
  ),
  scenario(
    "no bound but slow tokens, 400 agents, 60 s",
    { ...batch64, concurrency: 1_000, memoryTokens: 4_000_000, perSequenceMillis: 1 },
    400,
    { ...minute, full: 48 }
  ),
  scenario("8 replicas 1.5 s away, 400 agents, 60 s", away(1.5), 400, { ...minute, full: 256, to: 200 }),
  scenario("8 replicas 4 s away, 400 agents, 60 s", away(4), 400, { ...minute, full: 256, to: 200 })
]
