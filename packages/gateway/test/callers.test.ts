import { assert, describe, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import * as Scope from "effect/Scope"
import type * as Events from "floodgate/Events"
import type { Rule } from "../src/settings/values.ts"
import { makeActivity, makeJournal } from "../src/activity.ts"
import { makeCallers } from "../src/callers.ts"
import { CallerPurses } from "../src/purses.ts"
import { JobTrees } from "../src/trees.ts"
import type { IncomingMessage } from "node:http"
import { makeAuth } from "../src/auth.ts"
import { hash } from "node:crypto"
import { makeKeyring } from "../src/keys.ts"
import { Tickets } from "../src/tickets.ts"
import { conversations } from "../../../test/support/conversations.ts"
import { showing } from "../src/inferred.ts"

const request = (agent: string | undefined, headers: Record<string, string> = {}, session = agent) => ({
  url: "https://api.test/v1/messages",
  protocol: "anthropic-messages",
  model: "claude-sonnet-5",
  agent,
  session,
  job: undefined,
  header: (name: string) => headers[name],
  body: {}
})

const told = (rules: ReadonlyArray<Rule>, ...args: Parameters<typeof request>) => {
  const { agent, caller, job, priority } = makeCallers(
    rules,
    new CallerPurses({}, Context.empty(), Scope.makeUnsafe()),
    new JobTrees(Context.empty(), Scope.makeUnsafe()),
    () => {}
  )(request(...args))
  return { agent, priority, weight: job.weight, ofKey: caller.weight }
}

describe("callers of the gateway", () => {
  it("names a caller without an agent by a hash of its key", () => {
    const { agent } = told([], undefined, { "x-api-key": "sk-secret-1234" })
    assert.match(agent, /^key-[\da-f]{8}$/)
    // The same key is the same caller, however it is sent.
    assert.strictEqual(told([], undefined, { authorization: "Bearer sk-secret-1234" }).agent, agent)
    assert.notStrictEqual(told([], undefined, { "x-api-key": "sk-secret-1235" }).agent, agent)
    assert.strictEqual(told([], "a7", { "x-api-key": "sk-secret-1234" }).agent, "a7")
  })

  it("puts interactive calls before others, and batches after them", () => {
    assert.strictEqual(told([], "a", { "x-claude-code-request-class": "main" }).priority, 1)
    assert.strictEqual(told([], "a", { "x-floodgate-class": "batch" }).priority, -1)
    assert.strictEqual(told([], "a", { "x-floodgate-class": "constructor" }).priority, 0)
    assert.strictEqual(told([], "a").priority, 0)
  })

  it("takes each setting from the first matching rule that has it, and the weight of a key from rules for keys only", () => {
    const rules: ReadonlyArray<Rule> = [
      { agent: "nightly-*", priority: -5 },
      { headers: { "X-Team": "search" }, weight: 3 },
      { key: "*x9Yz", weight: 2, priority: 7 }
    ]
    const key = { "x-api-key": "sk-ant-x9Yz" }
    assert.deepStrictEqual(told(rules, "nightly-7", key), {
      agent: "nightly-7",
      priority: -5,
      weight: undefined,
      ofKey: 2
    })
    assert.deepStrictEqual(told(rules, "b", { ...key, "x-team": "search" }), {
      agent: "b",
      priority: 7,
      weight: 3,
      ofKey: 2
    })
    const ofSession: ReadonlyArray<Rule> = [{ agent: "s-1", weight: 2 }]
    assert.deepStrictEqual(told(ofSession, "s-1/a1", {}, "s-1"), {
      agent: "s-1/a1",
      priority: 0,
      weight: 2,
      ofKey: undefined
    })
    assert.isUndefined(told(ofSession, "s-1/a1").weight)
    assert.deepStrictEqual(told(rules, "b"), { agent: "b", priority: 0, weight: undefined, ofKey: undefined })
    // A pattern is not a regular expression.
    assert.strictEqual(told([{ agent: "a.c", priority: 9 }], "abc").priority, 0)
  })
})

const minute = 60_000

describe("the jobs of a gateway", () => {
  const made = (now: () => number) => makeActivity(Context.make(Metric.MetricRegistry, new Map()), now)
  const bill = { model: "m", dollars: 0.5, actual: { inputTokens: 10, outputTokens: 1 } }

  it.effect("count their calls that wait and run, and what they use", () =>
    Effect.gen(function* () {
      let now = 1_000
      const { jobs } = yield* made(() => now)
      const owner = { agent: "a", job: "j", key: "k", rule: "" }
      const [first, second, third] = [jobs.open(owner), jobs.open(owner), jobs.open(owner)]
      now += 500
      first.sent()
      second.sent()
      const open = jobs.busiest(9).jobs[0]!
      assert.deepInclude(open, { name: "j", caller: "k", waiting: 1, running: 2, calls: 0, lastAt: 1_000 })
      now += 500
      // It was asked again.
      second.sent()
      first.ended("answered")
      second.ended("failed")
      third.ended("refused")
      jobs.billed(owner, bill)
      const [ended] = jobs.busiest(9).jobs
      assert.deepInclude(ended, { waiting: 0, running: 0, calls: 1, failed: 1, refused: 1, waitedMillis: 2_500 })
      assert.deepInclude(ended, { inputTokens: 10, outputTokens: 1, dollars: 0.5, unpriced: 0, lastAt: 2_000 })
    })
  )

  it.effect("of two callers with one name are two, and those that are not listed or forgotten are summed", () =>
    Effect.gen(function* () {
      let now = 0
      const { jobs } = yield* made(() => now++)
      const held = jobs.open({ job: "held", key: "one" })
      for (const key of ["one", "two"]) jobs.open({ job: "same", key }).ended("answered")
      for (let index = 0; index < 1_500; index++)
        jobs.billed({ agent: "a", job: `j-${index}`, key: "many", rule: "" }, bill)
      const { jobs: listed, otherJobs } = jobs.busiest(50)
      assert.strictEqual(listed.length, 50)
      assert.deepInclude(listed[0], { name: "held", waiting: 1 })
      assert.strictEqual(listed.length + otherJobs.jobs, 1_503)
      assert.strictEqual(otherJobs.calls, 2)
      const sum = listed.reduce((sum, { dollars }) => sum + dollars, otherJobs.dollars)
      assert.strictEqual(sum, 750)
      held.ended("hung up")
      assert.strictEqual(jobs.busiest(2_000).jobs.filter(({ name }) => name === "same").length, 0)
    })
  )

  it.effect("have one series for each of the first hundred, and one for all further ones", () =>
    Effect.gen(function* () {
      const registry = new Map()
      const { jobs } = yield* makeActivity(Context.make(Metric.MetricRegistry, registry), () => 0)
      for (let index = 0; index < 500; index++) jobs.billed({ agent: "a", job: `j-${index}`, key: "k", rule: "" }, bill)
      const names = [...registry.keys()].filter((key) => String(key).includes("floodgate_gateway_job_tokens"))
      assert.strictEqual(names.length, 101)
    })
  )
})

describe("the keys of a gateway", () => {
  it.effect("are listed by what they cost, then by what they sent", () =>
    Effect.gen(function* () {
      const activity = yield* makeActivity(Context.make(Metric.MetricRegistry, new Map()), () => 0)
      const bill = (key: string, inputTokens: number, dollars: number | undefined) =>
        activity.billed(
          { agent: "a", job: "j", key, rule: "r" },
          { model: "m", dollars, actual: { inputTokens, outputTokens: 1 } }
        )
      // Calls to a model without a price cost nothing that is known.
      bill("small", 10, undefined)
      bill("cheap", 5_000, 0.1)
      bill("large", 900, undefined)
      bill("dear", 1, 2)
      bill("middle", 100, undefined)
      const names = activity.keysByCost(4).map(({ name }) => name)
      assert.deepStrictEqual(names, ["dear", "cheap", "large", "middle"])
    })
  )
})

describe("the journal of a gateway", () => {
  it("counts the rejections and the waits of each minute, and lists all events but waits", () => {
    const journal = makeJournal()
    const add = (type: "rejection" | "wait", at: number) => journal.add({ type, at } as Events.Event)
    for (const at of [1, 2, minute - 1]) add("rejection", at)
    for (const at of [5, minute, minute + 1]) add("wait", at)
    add("rejection", minute + 2)
    assert.deepStrictEqual(
      journal.minutes.map(({ rejected, waited }) => ({ rejected, waited })),
      [
        { rejected: 3, waited: 1 },
        { rejected: 1, waited: 2 }
      ]
    )
    assert.deepStrictEqual(
      journal.events.map(({ type }) => type),
      ["rejection", "rejection", "rejection", "rejection"]
    )
  })
})

const arriving = (headers: Record<string, string>) => ({ url: "/v1/messages", headers }) as unknown as IncomingMessage

describe("a gateway without a token", () => {
  it("refuses pages of other sites, also after it has answered a local program at the same address", () => {
    const check = makeAuth(undefined, new Set())
    const host = "localhost:8787"
    const isRefused = (headers: Record<string, string>) => check(arriving({ host, ...headers })).refusal !== undefined
    assert.isFalse(isRefused({}))
    assert.isTrue(isRefused({ origin: "https://evil.test" }))
    assert.isFalse(isRefused({ origin: "http://localhost:3000" }))
    assert.isTrue(isRefused({ origin: "https://evil.test" }))
    assert.isFalse(isRefused({}))
  })

  it("refuses a name that is not its own, and one that no request gave", () => {
    const check = makeAuth(undefined, new Set(["gateway.test"]))
    const isRefused = (headers: Record<string, string>) => check(arriving(headers)).refusal !== undefined
    assert.isTrue(isRefused({}))
    assert.isTrue(isRefused({ host: "evil.test" }))
    assert.isFalse(isRefused({ host: "gateway.test:8787" }))
    assert.isTrue(isRefused({}))
  })
})

const expires = "2026-12-01T12:00:00Z"
const at = Date.parse(expires)
const ring = makeKeyring([
  { name: "team", sha256: hash("sha256", "fg-one"), expires },
  { name: "team", sha256: hash("sha256", "fg-two").toUpperCase() }
])

const checked = (sent: ReadonlyArray<string>, now: number): string => {
  const result = ring.check(sent, now)
  return "reason" in result ? `${result.reason} ${result.name}`.trim() : result.name
}

describe("a keyring", () => {
  it("accepts a key until the moment at which it expires, and names it then", () => {
    assert.strictEqual(checked(["fg-one"], at - 1), "team")
    assert.strictEqual(checked(["fg-one"], at), "expired team")
    assert.strictEqual(checked(["fg-two"], at), "team")
  })

  it("accepts no other key, nor several", () => {
    assert.strictEqual(checked([], 0), "missing")
    assert.strictEqual(checked(["fg-three"], 0), "unknown")
    assert.strictEqual(checked(["fg-one", "fg-two"], 0), "several")
  })

  it("knows its keys by their hashes", () => {
    const { id } = ring.check(["fg-two"], 0) as { readonly id: string }
    assert.isTrue(ring.has(id))
    assert.isFalse(ring.has(hash("sha256", "fg-three")))
  })
})

const aReset = 5 * 3_600_000
const aCall = (agent = "a", key = "k") => ({ agent, key, bytes: 100 })
const ticketsAt = () => {
  const clock = { now: 0 }
  return { clock, tickets: new Tickets(() => clock.now) }
}

describe("tickets", () => {
  it("let 50 sessions go on once each, spread from the reset on", () => {
    const { clock, tickets } = ticketsAt()
    const all = Array.from({ length: 50 }, (_, n) => tickets.give(aCall(`a${n}`), aReset)!)
    assert.strictEqual(all[0]!.at, aReset)
    for (const [n, { at }] of all.entries()) assert.strictEqual(at, aReset + 250 * n)
    clock.now = aReset - 1
    for (const { at, id } of all) assert.deepStrictEqual(tickets.take(id, "k"), { early: at })
    for (const { at, id } of all) {
      clock.now = at
      assert.deepInclude(tickets.take(id, "k"), { id, at, state: "sent" })
      assert.property(tickets.take(id, "k"), "wrong")
    }
  })

  it("keep the order of a conversation, until an earlier one has lapsed", () => {
    const { clock, tickets } = ticketsAt()
    const first = tickets.give(aCall(), aReset)!
    const second = tickets.give(aCall(), aReset)!
    const other = tickets.give(aCall("b"), aReset)!
    clock.now = aReset + 60_000
    assert.deepStrictEqual(tickets.take(second.id, "k"), { early: clock.now + 1_000 })
    assert.property(tickets.take(other.id, "k"), "order")
    assert.property(tickets.take(first.id, "k"), "order")
    assert.property(tickets.take(second.id, "k"), "order")
    const lapsed = tickets.give(aCall("c"), clock.now)!
    clock.now += 3_000_000
    const late = tickets.give(aCall("c"), clock.now)!
    clock.now += 600_001 + 60_000
    assert.property(tickets.take(lapsed.id, "k"), "wrong")
    assert.property(tickets.take(late.id, "k"), "order")
  })

  it("are no one else's, cannot be guessed, and are not made again when the outcome is unknown", () => {
    const { clock, tickets } = ticketsAt()
    const { id } = tickets.give(aCall(), aReset)!
    clock.now = aReset
    for (const forged of ["", "1", "__proto__", id.slice(1)]) assert.property(tickets.take(forged, "k"), "wrong")
    assert.property(tickets.take(id, "another"), "wrong")
    const ticket = tickets.take(id, "k")
    if (!("id" in ticket)) return assert.fail()
    tickets.ended(ticket, false)
    assert.deepStrictEqual(
      tickets.list.map(({ state }) => state),
      ["unknown"]
    )
    assert.property(tickets.take(id, "k"), "wrong")
    const refused = tickets.give(aCall(), aReset)!
    clock.now = refused.at
    const again = tickets.take(refused.id, "k")
    if (!("id" in again)) return assert.fail()
    assert.strictEqual(tickets.give(aCall(), 2 * aReset, again)!.id, refused.id)
    tickets.ended(again, false)
    assert.deepStrictEqual(tickets.take(refused.id, "k"), { early: 2 * aReset })
    assert.deepStrictEqual(
      tickets.cancel({ id: refused.id }).map(({ state }) => state),
      ["cancelled"]
    )
    assert.deepStrictEqual(tickets.cancel({ id: refused.id }), [])
    clock.now = 2 * aReset
    assert.property(tickets.take(refused.id, "k"), "wrong")
  })

  it("are bounded", () => {
    const { tickets } = ticketsAt()
    for (let n = 0; n < 10_000; n++) tickets.give(aCall(`a${n}`), aReset)
    assert.isUndefined(tickets.give(aCall(), aReset))
    assert.lengthOf(tickets.list, 10_000)
  })
})

/** Prompts of this length in the form of each protocol. */
const ofLength = (length: number): ReadonlyArray<Record<string, unknown>> =>
  conversations(length).map(({ body }) => ({ ...body }))
const first = ofLength(2)
const later = ofLength(6)

/** Without what the model has said. */
const fresh = (body: Record<string, unknown>): object => {
  const said = { role: "user", content: "Review it", parts: [{ text: "Review it" }] }
  const list = ["messages", "input", "contents"].find((name) => name in body)!
  return { ...body, [list]: [said] }
}

describe("the turn that shows an agent", () => {
  it("is the first turn of a conversation with tools, in the body of every protocol", () => {
    for (const body of first) assert.strictEqual(showing({ agent: undefined, body: fresh(body) }), 1)
    const converse = { messages: [{ role: "user" }], toolConfig: { tools: [{ toolSpec: {} }] } }
    assert.strictEqual(showing({ agent: undefined, body: converse }), 1)
  })

  it("does not exist if the prompt begins with answers of the model, because such a conversation goes on", () => {
    for (const body of later) assert.strictEqual(showing({ agent: undefined, body }), undefined)
  })

  it("is the second turn without tools, so that titles and single questions do not count", () => {
    for (const body of later) assert.strictEqual(showing({ agent: undefined, body: { ...body, tools: [] } }), 2)
    for (const body of first) {
      assert.strictEqual(showing({ agent: undefined, body: { ...fresh(body), tools: undefined } }), undefined)
    }
  })

  it("does not exist for a named agent, or for a body that cannot be read", () => {
    assert.strictEqual(showing({ agent: "a7", body: fresh(first[0]!) }), undefined)
    for (const body of [
      undefined,
      null,
      "text",
      7,
      [],
      {},
      { messages: null, tools: "all" },
      { messages: [null, 1] }
    ]) {
      assert.strictEqual(showing({ agent: undefined, body }), undefined)
    }
  })
})
