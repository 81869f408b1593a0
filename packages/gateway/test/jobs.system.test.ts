/** Jobs at a gateway, over real HTTP: whose a call is, and that being many gives nothing. */
import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Redacted from "effect/Redacted"
import type * as Gateway from "@floodgate/gateway"
import { createHash, randomUUID } from "node:crypto"
import { until } from "../../../test/support/gateway.ts"
import { recordedClients } from "../../../test/support/recordedHeaders.ts"
import { ask, chat, completion, idle, json, world } from "./world.ts"

/** A part of what the page gets. */
interface StatusOfJobs {
  readonly agents: ReadonlyArray<{ readonly name: string }>
  readonly jobs: ReadonlyArray<{
    readonly name: string
    readonly caller: string
    readonly calls: number
    readonly running: number
    readonly waiting: number
    readonly waitedMillis: number
    readonly inferredAgents: number
  }>
  readonly otherJobs: { readonly jobs: number; readonly calls: number }
  readonly pools: ReadonlyArray<{ readonly queued: number; readonly waiting: ReadonlyArray<object> }>
}

const callers = ["many", "single"] as const
const keys = callers.map((name) => ({ name, sha256: createHash("sha256").update(`fg-${name}`).digest("hex") }))
const secret = Redacted.make("sk-provider")
const credentials = { anthropic: secret, openai: secret, gemini: secret }

/** A gateway with a key for each caller that makes one call at a time; `order` has whose calls reached the provider. */
const oneByOne = Effect.fnUntraced(function* (options: Gateway.Options = {}) {
  const order: Array<string> = []
  const headers: Array<ReadonlyArray<string>> = []
  const gate = Promise.withResolvers<void>()
  const here = yield* world(
    (request, response, body) => {
      order.push((JSON.parse(body) as { messages: [{ content: string }] }).messages[0].content)
      headers.push(Object.keys(request.headers))
      void gate.promise.then(() => json(response, 200, completion))
    },
    { budget: { concurrency: 1 }, maxHold: "1 hour", keys, credentials, ...options }
  )
  const call = (caller: string, given: Readonly<Record<string, string>>, name = caller) =>
    ask(
      `${here.url}/v1/chat/completions`,
      chat({ messages: [{ role: "user", content: name }] }, { authorization: `Bearer fg-${caller}`, ...given })
    )
  const status = Effect.map(ask(`${here.url}/floodgate/status`), ({ text }) => JSON.parse(text) as StatusOfJobs)
  /** Waits until so many calls have reached the provider. */
  const reached = (count: number) =>
    until(
      Effect.sync(() => order.length),
      (calls) => calls === count
    )
  return { ...here, call, headers, reached, open: () => gate.resolve(), order, status }
})

type Here = Effect.Success<ReturnType<typeof oneByOne>>

/** Lets calls wait behind a first one, and returns whose were made until the last of `counted` was. */
const served = Effect.fnUntraced(function* (
  here: Here,
  calls: ReadonlyArray<Effect.Effect<unknown, unknown>>,
  counted: string
) {
  const first = yield* Effect.forkChild(here.call("single", {}, "first"))
  yield* here.reached(1)
  const waiting = yield* Effect.forkChild(Effect.all(calls, { concurrency: "unbounded", discard: true }))
  yield* until(here.pool, ({ queued }) => queued === calls.length)
  here.open()
  yield* until(
    Effect.sync(() => here.order.filter((name) => name === counted).length),
    (count) => count === 40
  )
  const made = here.order.slice(1, here.order.lastIndexOf(counted) + 1)
  yield* Fiber.interrupt(waiting)
  yield* Fiber.join(first)
  yield* idle(here)
  return made.filter((name) => name !== counted).length
})

describe("jobs at a gateway", () => {
  it.live("do not help a caller who invents a thousand of them beside one with a single job", () =>
    Effect.gen(function* () {
      const here = yield* oneByOne()
      here.open()
      const many = Effect.suspend(() => here.call("many", { "x-floodgate-job": randomUUID() }))
      const single = Effect.forever(here.call("single", { "x-floodgate-job": "the one" }))
      yield* many
      const working = yield* Effect.forkChild(
        Effect.all(
          [1, 2, 3].map(() => single),
          { concurrency: "unbounded", discard: true }
        )
      )
      yield* Effect.all(
        Array.from({ length: 20 }, () => Effect.repeat(many, { times: 49 })),
        { concurrency: "unbounded", discard: true }
      )
      yield* Fiber.interrupt(working)
      yield* idle(here)
      // The last invented jobs wait for nothing else.
      const order = here.order.slice(0, here.order.lastIndexOf("many") + 1)
      const shares = order.filter((name) => name === "single").length / 1_001
      assert.isAtLeast(shares, 0.95)
      assert.isAtMost(shares, 1.1)
      const { jobs, otherJobs } = yield* here.status
      assert.strictEqual(jobs.length, 50)
      assert.strictEqual(jobs.length + otherJobs.jobs, 1_002)
      assert.strictEqual(jobs.filter(({ caller }) => caller === "single").length, 1)
    })
  )

  it.live("do not help a caller who forges the job of another", () =>
    Effect.gen(function* () {
      const here = yield* oneByOne()
      const calls = callers.flatMap((caller) =>
        Array.from({ length: caller === "many" ? 120 : 40 }, () => here.call(caller, { "x-floodgate-job": "the one" }))
      )
      const others = yield* served(here, calls, "single")
      assert.isAtLeast(others, 38)
      assert.isAtMost(others, 42)
      const { jobs } = yield* here.status
      assert.deepStrictEqual(
        new Set(jobs.map(({ caller, name }) => `${caller}: ${name}`)),
        new Set(["many: the one", "single: the one", "single: single"])
      )
    })
  )

  it.live("share equally within a caller, however many agents they have, and by the weights of rules", () =>
    Effect.gen(function* () {
      const here = yield* oneByOne({ rules: [{ headers: { "x-team": "search" }, weight: 3 }] })
      const calls = [
        ...Array.from({ length: 160 }, (_, index) =>
          here.call(
            "single",
            { "x-floodgate-job": "wide", "x-floodgate-agent": `a${index}`, "x-team": "search" },
            "wide"
          )
        ),
        ...Array.from({ length: 40 }, () => here.call("single", { "x-floodgate-job": "narrow" }))
      ]
      const others = yield* served(here, calls, "single")
      assert.isAtLeast(others, 117)
      assert.isAtMost(others, 123)
    })
  )

  it.live("share between keys by the weights of rules for keys", () =>
    Effect.gen(function* () {
      const here = yield* oneByOne({ rules: [{ key: "many", weight: 3 }] })
      const calls = [
        ...Array.from({ length: 160 }, () => here.call("many", { "x-floodgate-job": randomUUID() })),
        ...Array.from({ length: 40 }, () => here.call("single", {}))
      ]
      const others = yield* served(here, calls, "single")
      assert.isAtLeast(others, 117)
      assert.isAtMost(others, 123)
    })
  )

  it.live("are those that clients name, whose headers reach the provider, and our own does not", () =>
    Effect.gen(function* () {
      const here = yield* oneByOne()
      here.open()
      for (const { calls } of recordedClients) {
        for (const { headers } of calls) yield* here.call("single", headers)
      }
      const named = { "x-claude-code-session-id": "session" }
      yield* here.call("single", { ...named, "x-floodgate-job": "ours" })
      // Names that are none: the client's own remains.
      yield* here.call("single", { ...named, "x-floodgate-job": "n".repeat(513) })
      yield* here.call("single", { ...named, "x-floodgate-job": "" })
      assert.isFalse(here.headers.some((names) => names.includes("x-floodgate-job")))
      assert.isTrue(here.headers.at(-1)!.includes("x-claude-code-session-id"))
      const { agents, jobs } = yield* here.status
      const expected = recordedClients.flatMap(({ calls }) => calls.flatMap(({ lineage }) => lineage?.session ?? []))
      const names = jobs.map(({ name }) => name)
      assert.deepStrictEqual(new Set(names), new Set([...expected, "ours", "session", "single"]))
      const claude = recordedClients[0]!.calls.map(({ lineage }) => lineage!)
      assert.deepInclude(
        jobs.find(({ name }) => name === claude[0]!.session),
        { calls: 3, caller: "single" }
      )
      for (const { session, subAgent } of claude) {
        assert.isTrue(agents.some(({ name }) => name === (subAgent === undefined ? session : `${session}/${subAgent}`)))
      }
    })
  )

  it.live("show how long their calls wait", () =>
    Effect.gen(function* () {
      const here = yield* oneByOne()
      const both = yield* Effect.forkChild(
        Effect.all(
          [1, 2].map(() => here.call("single", { "x-floodgate-job": "j" })),
          { concurrency: 2 }
        )
      )
      yield* here.reached(1)
      yield* until(here.pool, ({ queued }) => queued === 1)
      const { jobs, pools } = yield* here.status
      assert.deepInclude(jobs[0], { name: "j", running: 1, waiting: 1, waitedMillis: 0 })
      const [waiting] = pools.flatMap(({ waiting }) => waiting)
      assert.deepInclude(waiting, { job: "j", caller: "single" })
      yield* Effect.sleep(Duration.millis(50))
      here.open()
      yield* Fiber.join(both)
      const [ended] = (yield* here.status).jobs
      assert.deepInclude(ended, { running: 0, waiting: 0, calls: 2 })
      assert.isAtLeast(ended!.waitedMillis, 50)
      const metrics = (yield* ask(`${here.url}/metrics`)).text
      assert.match(metrics, /floodgate_gateway_job_tokens\{job="j"\} 1860/)
      assert.match(metrics, /floodgate_gateway_job_waited_seconds\{job="j"\} 0\.\d+/)
    })
  )

  it.live("have the agents that conversations show, where calls name none, and refuse none of them", () =>
    Effect.gen(function* () {
      const rules = [{ capPerJob: { agents: 1 } }]
      const here = yield* world((_, response) => json(response, 200, completion), { rules })
      const tools = [{ type: "function", function: { name: "read", parameters: { type: "object" } } }]
      const say = (messages: ReadonlyArray<object>, more: object = { tools }, headers: Record<string, string> = {}) =>
        Effect.map(ask(`${here.url}/v1/chat/completions`, chat({ messages, ...more }, headers)), ({ status }) =>
          assert.strictEqual(status, 200)
        )
      const user = (content: string) => ({ role: "user", content })
      const answer = { role: "assistant", content: "Hi, ✓" }
      const system = { role: "system", content: "You review files." }
      for (const name of ["a.ts", "b.ts", "c.ts"]) {
        const turns: Array<object> = [system, user(`Review ${name}, please`)]
        for (let turn = 0; turn < 3; turn++) {
          yield* say(turns)
          // The client sends the call again, because it has not seen the answer.
          if (turn === 1) yield* say(turns)
          turns.push(answer, user(`And then ${turn} of ${name}?`))
        }
        // A title of the conversation, and its history without the first turns.
        yield* say([user(`A title for ${name}`)], {})
        yield* say([system, user(`Summary of ${name}`), ...turns.slice(-2)])
      }
      const talk = [user("What is a weir?")]
      yield* say(talk, {})
      yield* say([...talk, answer, user("And a sluice?")], {})
      yield* say([...talk, answer, user("And a sluice?"), answer, user("Thanks")], {})
      yield* say([system, user("Named")], { tools }, { "x-floodgate-agent": "a7" })
      yield* idle(here)
      const { text } = yield* ask(`${here.url}/floodgate/status`)
      const { jobs } = JSON.parse(text) as StatusOfJobs
      const inferred = jobs.map(({ caller, inferredAgents, name }) => [name === caller, inferredAgents] as const)
      assert.deepStrictEqual(
        new Map(inferred),
        new Map([
          [true, 4],
          [false, 0]
        ])
      )
      const metrics = yield* ask(`${here.url}/metrics`)
      assert.include(metrics.text, "floodgate_gateway_agents_inferred 4")
    })
  )
})
