import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Logger from "effect/Logger"
import { ask as askOnce, type Got, messages, ofClaudeCode, world } from "./world.ts"

// These use real HTTP, so they run on the real clock. They wait only for conditions.

const adminToken = "an-operator-with-a-long-token"

/** A gateway before a provider that answers at once, and that limits nothing here. */
const gateway = (options: Parameters<typeof world>[1]) =>
  world(messages, { budget: { limits: { requests: { perMinute: 1e9 } } }, adminToken, ...options })

const ask = (url: string, ...of: Parameters<typeof ofClaudeCode>): Effect.Effect<Got, unknown> =>
  askOnce(`${url}/v1/messages`, ofClaudeCode(...of))

const operate = (url: string, body: object, token = adminToken) =>
  Effect.promise(async () => {
    const response = await fetch(`${url}/floodgate/jobs`, {
      method: "POST",
      headers: { "x-floodgate-admin": token, "content-type": "application/json" },
      body: JSON.stringify(body)
    })
    return { status: response.status, body: (await response.json()) as { readonly error?: string } }
  })

const treesOf = (url: string) =>
  Effect.promise(async () => {
    const response = await fetch(`${url}/floodgate/status`)
    const { trees } = (await response.json()) as {
      readonly trees: ReadonlyArray<{
        readonly id: string
        readonly name: string
        readonly agents: number
        readonly depth: number
        readonly refused: number
        readonly stop: string
        readonly spent: Readonly<Record<string, number>>
        readonly reserved: Readonly<Record<string, number>>
        readonly tokens: number
        readonly dollars: number
        readonly waitedMillis: number
        readonly list: ReadonlyArray<{
          readonly name: string
          readonly parent?: string
          readonly depth: number
          readonly tokens: number
          readonly dollars: number
        }>
      }>
    }
    return trees
  })

const statuses = (all: ReadonlyArray<Got>): Record<string, number> => {
  const counts: Record<string, number> = {}
  for (const { status } of all) counts[status] = (counts[status] ?? 0) + 1
  return counts
}

/** A tree on record: one prompt started 8 agents, these 42, these 141, these 416, and these 270. */
const levels = [8, 42, 141, 416, 270]

/** Its agents, each with the one that started it. */
const recorded = levels.flatMap((size, level) =>
  Array.from({ length: size }, (_, index) => ({
    name: `a${level}-${index}`,
    parent: level === 0 ? undefined : `a${level - 1}-${index % levels[level - 1]!}`
  }))
)

describe("the agents of a job at the gateway", () => {
  it.live("are at most as many as the cap, of 877 that one prompt would start, and their calls go on", () =>
    Effect.gen(function* () {
      const { upstream, url } = yield* gateway({ rules: [{ capPerJob: { agents: 20 } }] })
      yield* ask(url, "s1")
      const all = yield* Effect.forEach(recorded, ({ name, parent }) => ask(url, "s1", name, parent), {
        concurrency: 40
      })
      assert.deepStrictEqual(statuses(all), { 200: 19, 400: recorded.length - 19 })
      const refused = all.find(({ status }) => status === 400)!
      assert.strictEqual(refused.headers.get("x-should-retry"), "false")
      assert.match(
        refused.text,
        /may have at most 20 agents in all, so agent s1\/a\d-\d+ may not start: do the rest yourself/
      )
      const before = upstream.requests.length
      const begun = recorded.filter((_, index) => all[index]!.status === 200)
      const again = yield* Effect.forEach(begun, ({ name, parent }) => ask(url, "s1", name, parent))
      assert.deepStrictEqual(statuses(again), { 200: 19 })
      assert.strictEqual(upstream.requests.length, before + 19)
      const [tree] = yield* treesOf(url)
      assert.deepStrictEqual([tree?.agents, tree?.refused], [20, recorded.length - 19])
      const metrics = yield* Effect.promise(async () => (await fetch(`${url}/metrics`)).text())
      assert.include(metrics, 'floodgate_gateway_job_cap_part{cap="agents"} 1\n')
      assert.include(metrics, 'floodgate_gateway_job_cap_part{cap="perHour"} 0\n')
      assert.include(metrics, `floodgate_gateway_agents_refused ${recorded.length - 19}\n`)
    })
  )

  it.live("may start each other as deep as the cap says", () =>
    Effect.gen(function* () {
      const { url } = yield* gateway({ rules: [{ capPerJob: { depth: 2 } }] })
      const all = [
        yield* ask(url, "s1"),
        yield* ask(url, "s1", "a"),
        yield* ask(url, "s1", "b", "a"),
        yield* ask(url, "s1", "c", "b")
      ]
      assert.deepStrictEqual(
        all.map(({ status }) => status),
        [200, 200, 200, 400]
      )
      const [tree] = yield* treesOf(url)
      assert.deepStrictEqual(
        tree?.list.map(({ depth, name, parent }) => [name, parent, depth]),
        [
          ["s1", undefined, 0],
          ["s1/a", "s1", 1],
          ["s1/b", "s1/a", 2]
        ]
      )
    })
  )

  it.live("are never refused under a generous cap, and jobs of others and of other keys have caps of their own", () =>
    Effect.gen(function* () {
      const { url } = yield* gateway({ rules: [{ capPerJob: { agents: 16 } }] })
      const fan = (session: string, headers?: Record<string, string>) =>
        Effect.forEach(
          Array.from({ length: 15 }, (_, index) => index),
          (index) => ask(url, session, `a${index}`, undefined, headers),
          { concurrency: 15 }
        )
      yield* ask(url, "s1")
      const all = [...(yield* fan("s1")), ...(yield* fan("s2")), ...(yield* fan("s1", { "x-api-key": "sk-two-9999" }))]
      assert.deepStrictEqual(statuses(all), { 200: 45 })
      assert.strictEqual((yield* treesOf(url)).length, 3)
      // A job that is named has the agents of all its sessions.
      const named = yield* Effect.forEach(["x", "y", "z"], (session) => fan(session, { "x-floodgate-job": "one" }))
      assert.deepStrictEqual(statuses(named.flat()), { 200: 16, 400: 29 })
    })
  )

  it.live("are not counted where nothing names an agent, or no rule caps them", () =>
    Effect.gen(function* () {
      const { url } = yield* gateway({ rules: [{ model: "other", capPerJob: { agents: 1 } }] })
      const all = yield* Effect.forEach(["a", "b", "c"], (name) => ask(url, "s1", name))
      assert.deepStrictEqual(statuses(all), { 200: 3 })
      assert.deepStrictEqual(yield* treesOf(url), [])
    })
  )

  it.live.each([
    {
      cap: { calls: 3 },
      sent: 3,
      spent: { calls: 3 },
      says: /has spent 3 calls of the 3 calls that it may, so no further call/
    },
    // Each may use 1,109 tokens, and uses 20.
    {
      cap: { tokens: 1_140 },
      sent: 2,
      spent: { tokens: 40 },
      says: /has spent 40 tokens of the 1,140 tokens that it may/
    },
    { cap: { dollars: 0.0013 }, sent: 4, spent: { dollars: 0.0004 }, says: /has spent \$0.0004 of the \$0.0013/ }
  ])("spend at most $cap together, and then every call of the job is refused", ({ cap, says, sent, spent }) =>
    Effect.gen(function* () {
      const prices = { "claude-test": { input: 0, output: 10 } }
      const { upstream, url } = yield* gateway({ prices, rules: [{ capPerJob: cap }] })
      const agents = ["a", "b", undefined, "c", "a", undefined, "b"]
      const all = yield* Effect.forEach(agents, (agent) => ask(url, "s1", agent))
      assert.deepStrictEqual(
        all.map(({ status }) => status),
        agents.map((_, index) => (index < sent ? 200 : 400))
      )
      assert.strictEqual(upstream.requests.length, sent)
      const last = all.at(-1)!
      assert.match(last.text, says)
      assert.deepStrictEqual([last.headers.get("x-should-retry"), last.headers.get("ratelimit")], ["false", null])
      const [tree] = yield* treesOf(url)
      assert.deepStrictEqual(tree?.spent, spent)
      const [unit] = Object.keys(cap)
      assert.deepStrictEqual(tree?.reserved, { [unit!]: 0 })
      assert.deepStrictEqual([tree?.tokens, tree?.dollars.toFixed(6)], [sent * 20, (sent * 0.0001).toFixed(6)])
      const first = tree?.list.find(({ name }) => name === "s1/a")
      assert.deepStrictEqual([first?.tokens, first?.dollars], [20, 0.0001])
      const metrics = yield* Effect.promise(async () => (await fetch(`${url}/metrics`)).text())
      assert.match(metrics, new RegExp(`floodgate_gateway_job_cap_part\\{cap="${unit}"\\} (?!0\n)`))
      // Another job has a cap of its own.
      assert.strictEqual((yield* ask(url, "s2")).status, 200)
    })
  )

  it.live("have the caps of each rule beside those of others, whichever of their calls come in between", () =>
    Effect.gen(function* () {
      const rules = [
        { name: "dear", headers: { "x-kind": "dear" }, capPerJob: { calls: 2 } },
        { capPerJob: { agents: 5 } }
      ]
      const { url } = yield* gateway({ rules })
      const dear = { "x-kind": "dear" }
      const all = [
        yield* ask(url, "s1", "a", undefined, dear),
        yield* ask(url, "s1", "a"),
        yield* ask(url, "s1", "a", undefined, dear),
        yield* ask(url, "s1", "a", undefined, dear)
      ]
      assert.deepStrictEqual(
        all.map(({ status }) => status),
        [200, 200, 200, 400]
      )
      const names = (yield* treesOf(url)).map(({ name }) => name.replace(/key-\w+/, "key"))
      assert.deepStrictEqual(names.toSorted(), ["the job s1 of key", "the job s1 of key (dear)"])
    })
  )

  it.live("spend what their job may, also in calls that name the job alone, which only an operator stops", () =>
    Effect.gen(function* () {
      const { url } = yield* gateway({ rules: [{ capPerJob: { agents: 1, calls: 4 } }] })
      const unnamed = Effect.map(
        askOnce(`${url}/v1/messages`, {
          method: "POST",
          headers: { "x-api-key": "sk-one-x9Yz", "x-floodgate-job": "nightly" },
          body: JSON.stringify({
            model: "claude-test",
            max_tokens: 100,
            messages: [{ role: "user", content: "Hello" }]
          })
        }),
        ({ status }) => status
      )
      const named = (name: string) =>
        Effect.map(ask(url, name, undefined, undefined, { "x-floodgate-job": "nightly" }), ({ status }) => status)
      // The second agent is one too many, and a call without a name is none.
      assert.deepStrictEqual(
        [yield* named("a"), yield* named("b"), yield* unnamed, yield* unnamed],
        [200, 400, 200, 200]
      )
      const [tree] = yield* treesOf(url)
      assert.deepStrictEqual([tree?.agents, tree?.spent, tree?.tokens], [1, { calls: 3 }, 60])
      const stopped: Array<number> = []
      for (const stop of ["agents", "calls", "none"]) {
        yield* operate(url, { job: tree!.id, stop })
        stopped.push(yield* unnamed)
      }
      // The fourth call is the last that the cap allows.
      assert.deepStrictEqual(stopped, [200, 400, 400])
    })
  )

  it.live("are stopped by an operator with the token: new ones, or all calls, until they may go on", () => {
    const lines: Array<unknown> = []
    return Effect.gen(function* () {
      const { url } = yield* gateway({ rules: [{ capPerJob: { agents: 100 } }] })
      yield* ask(url, "s1")
      const [tree] = yield* treesOf(url)
      const job = tree!.id
      const seen: Array<ReadonlyArray<number>> = []
      const both = Effect.gen(function* () {
        const known = yield* ask(url, "s1")
        const fresh = yield* ask(url, "s1", `a${seen.length}`)
        seen.push([known.status, fresh.status])
        return fresh.text
      })
      assert.strictEqual((yield* operate(url, { job, stop: "agents" }, "wrong-token-of-somebody")).status, 401)
      yield* both
      for (const stop of ["agents", "calls", "none"]) {
        assert.strictEqual((yield* operate(url, { job, stop })).status, 200)
        const text = yield* both
        if (stop === "agents") assert.include(text, "was stopped: end your work now")
      }
      assert.deepStrictEqual(seen, [
        [200, 200],
        [200, 400],
        [400, 400],
        [200, 200]
      ])
      const wrong = yield* Effect.forEach(
        [{ stop: "agents" }, { job, stop: "all" }, { job: "nothing", stop: "none" }],
        (body) => operate(url, body)
      )
      assert.deepStrictEqual(
        wrong.map(({ status }) => status),
        [400, 400, 404]
      )
      assert.strictEqual(lines.filter((line) => (line as { event?: string }).event === "job").length, 3)
    }).pipe(Effect.provide(Logger.layer([Logger.make(({ message }) => void lines.push(...[message].flat()))])))
  })
})
