/** The purses of a gateway's caps, which hold even if callers invent agents, keys and jobs. */
import { assert, describe, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Logger from "effect/Logger"
import * as Scope from "effect/Scope"
import { type CapPolicy, fields, fieldsOf } from "../src/rateLimits.ts"
import { type Item, listOf } from "./support/structuredFields.ts"
import { mulberry } from "../../../test/support/random.ts"
import { sized } from "../../../test/support/size.ts"
import { CallerPurses } from "../src/purses.ts"
import { Jobs } from "../src/jobs.ts"
import { type JobSeat, JobTrees } from "../src/trees.ts"
import { PayingCall } from "../../../test/support/paying.ts"
import type { Rule } from "../src/settings/values.ts"
import type * as Spending from "floodgate/Spending"
import { clockAt } from "../../../test/support/clock.ts"

const dollar = 1e9
const perDay = { dollars: 5, per: "day" as const }

/** Purses under one rule, and calls of its agents and keys. */
const world = (rule: Rule, earlier: Readonly<Record<string, Spending.Kept>> = {}) => {
  let now = 0
  const scope = Scope.makeUnsafe()
  const purses = new CallerPurses(
    earlier,
    Context.make(
      Clock.Clock,
      clockAt(() => now)
    ),
    scope
  )
  purses.show([rule])
  const of = (agent: string, key?: string) =>
    purses.of([rule], agent, () => (key === undefined ? [] : [{ name: key, hash: key }]))
  const take = (paying: ReadonlyArray<Spending.Purse>, dollars: number) =>
    new PayingCall(
      paying,
      dollars * dollar,
      clockAt(() => now)
    )
  return {
    purses,
    scope,
    of,
    pass: (millis: number) => (now += millis),
    take,
    spend: (paying: ReadonlyArray<Spending.Purse>, dollars: number) => {
      const call = take(paying, dollars)
      const { state } = call
      call.payment.settle(dollars * dollar)
      return state
    }
  }
}

const others = (count: number, from = 0) => Array.from({ length: count }, (_, n) => `other-${from + n}`)

describe("the ledger of a key", () => {
  it("is kept while a call has reserved from it, however many keys come meanwhile", () => {
    const { of, spend, take } = world({ capPerKey: perDay })
    const held = take(of("a", "sk-real"), 4)
    assert.isTrue(held.isPaid)
    for (const key of others(5_000)) of("a", key)
    assert.strictEqual(spend(of("a", "sk-real"), 4), "waits", "4 of 5 dollars are held")
  })

  it("is kept while a request that pays from it is between two attempts", () => {
    const { of, purses, spend } = world({ capPerKey: perDay })
    const paying = of("a", "sk-real")
    const leave = purses.use(paying)
    for (const key of others(5_000)) of("a", key)
    assert.strictEqual(spend(of("a", "sk-real"), 4), "paid")
    assert.strictEqual(spend(paying, 4), "refused", "it is the same cap")
    leave()
  })

  it("is closed when it is forgotten, and only then", () => {
    const { of, scope } = world({ capPerKey: perDay })
    of("a", "sk-first")
    const finalizers = () => (scope.state._tag === "Open" ? (scope.state.finalizers?.size ?? 0) : 0)
    for (const key of others(1_500)) of("a", key)
    const open = finalizers()
    for (const key of others(1_500, 1_500)) of("a", key)
    assert.strictEqual(finalizers(), open)
    assert.isAtMost(open, 1_001)
  })

  it("keeps what was spent, and forgets keys that spent nothing", () => {
    const { of, purses, spend } = world({ capPerKey: perDay })
    assert.strictEqual(spend(of("a", "sk-real"), 4), "paid")
    for (const key of others(5_000)) of("a", key)
    assert.strictEqual(Object.keys(purses.kept).length, 1)
    assert.strictEqual(spend(of("a", "sk-real"), 4), "refused")
    assert.strictEqual(spend(of("a", "sk-real"), 1), "paid")
  })
})

describe("a rule that is given a name", () => {
  it("takes over what an earlier process has kept, which is then kept once", () => {
    const { of, purses, spend } = world({ capPerKey: perDay })
    assert.strictEqual(spend(of("a", "sk-real"), 4), "paid")
    const named = world({ name: "team", capPerKey: perDay }, purses.kept)
    assert.strictEqual(named.spend(named.of("a", "sk-real"), 4), "refused")
    assert.strictEqual(Object.keys(named.purses.kept).length, 1)
  })

  it("keeps what a key has spent, also when the cap was idle for long after that, and over a restart", () => {
    const { of, purses, spend } = world({ capPerKey: perDay })
    assert.strictEqual(spend(of("a", "sk-real"), 4), "paid")
    const team: Rule = { name: "team", capPerKey: perDay }
    purses.show([team])
    const ofTeam = (of: typeof purses, key: string) => of.of([team], "a", () => [{ name: key, hash: key }])
    assert.strictEqual(spend(ofTeam(purses, "sk-real"), 4), "refused")
    // It can be changed by the id under which it is listed.
    const { id } = purses.caps(1)[0]!
    assert.strictEqual(purses.change({ cap: id, dollars: 6 })?.dollars, 6)
    // So many keys come that idle ones are set aside.
    for (const key of others(1_500)) ofTeam(purses, key)
    assert.strictEqual(spend(ofTeam(purses, "sk-real"), 4), "refused")
    const again = world(team, purses.kept)
    assert.strictEqual(again.spend(ofTeam(again.purses, "sk-real"), 4), "refused")
    assert.strictEqual(again.spend(ofTeam(again.purses, "sk-real"), 1), "paid")
  })
})

describe("the ledgers of agents", () => {
  const rule = { cap: { dollars: 1e6 }, capPerAgent: perDay }

  it("refuse a new agent at the maximum, until another agent's period has ended", () => {
    const one = world(rule)
    const first = others(19_999)
    assert.strictEqual(one.spend(one.of(first[0]!), 1), "paid")
    // All others have spent the same. The cap for all callers counts as one more.
    const entries = Object.entries(one.purses.kept).flatMap(([id, kept]) =>
      id.includes(first[0]!)
        ? first.map((agent) => [id.replace(first[0]!, agent), kept] as const)
        : [[id, kept] as const]
    )
    const { of, pass, purses, spend } = world(rule, Object.fromEntries(entries))
    assert.strictEqual(spend(of("one too many"), 1), "refused")
    const [, refuser] = of("one too many")
    assert.match(refuser!.name, /agents and keys beyond the first 20,?000/)
    for (const agent of [first[0]!, first[12_345]!]) {
      assert.strictEqual(spend(of(agent), 4.5), "refused", "4 of its dollars are left")
      assert.strictEqual(spend(of(agent), 3), "paid")
    }
    const { kept } = purses
    assert.strictEqual(Object.keys(kept).length, 20_000)
    assert.isBelow(JSON.stringify(kept).length, 6e6)
    // It is the same after a restart.
    const again = world(rule, kept)
    assert.deepStrictEqual(again.purses.kept, kept)
    assert.strictEqual(again.spend(again.of("one too many"), 1), "refused")
    assert.strictEqual(again.spend(again.of(first[0]!), 2), "refused")
    pass(86_400_000)
    assert.strictEqual(spend(of("one too many"), 1), "paid")
  })

  it("have short names even for agents with long names", () => {
    const { of, purses, spend } = world(rule)
    for (const agent of others(100)) spend(of("\u0001".repeat(505) + agent), 1)
    assert.isBelow(JSON.stringify(purses.kept).length, 40_000)
  })
})

// -----------------------------------------------------------------------------
// What answers say of them
// -----------------------------------------------------------------------------

const second = 1_000
const hour = 3_600 * second

/** The two fields, read by a parser of its own. */
const read = (caps: ReadonlyArray<CapPolicy>, now = 0, retryAfter?: number) => {
  const written = fieldsOf(caps, now, retryAfter)!
  return { policies: listOf(written[fields.policy]!), limits: listOf(written[fields.limits]!) }
}

const policy = (given: Partial<CapPolicy> = {}): CapPolicy => ({
  name: "everybody",
  per: "day",
  partition: undefined,
  limit: 5,
  spent: 0,
  held: 0,
  until: 24 * hour,
  ...given
})

const item = (value: string, parameters: Item["parameters"]): Item => ({ value, parameters })

describe("the fields RateLimit-Policy and RateLimit", () => {
  it("have an item for each cap, in micro-dollars and seconds", () => {
    const partition = Buffer.from("00ff", "hex")
    const caps = [
      policy({ spent: 1.5, held: 0.25, until: 61_001 }),
      policy({ name: "per key (team)", per: "5 hours", limit: 0.29, partition }),
      policy({ name: "ever", per: undefined, limit: 1e6, spent: 0.000_000_1, until: undefined })
    ]
    const qu = "microdollars"
    const pk = { bytes: partition }
    assert.deepStrictEqual(read(caps), {
      policies: [
        item("everybody", { q: 5_000_000, w: 86_400, qu }),
        item("per key (team)", { q: 290_000, w: 18_000, qu, pk }),
        item("ever", { q: 1e12, qu })
      ],
      limits: [
        item("everybody", { r: 3_250_000, t: 62 }),
        item("per key (team)", { r: 290_000, pk }),
        item("ever", { r: 999_999_999_999 })
      ]
    })
    assert.isUndefined(fieldsOf([], 0, undefined))
  })

  it("can be read whatever a rule is called", () => {
    const random = mulberry(1)
    const character = (): string => String.fromCodePoint(Math.floor(random() ** 4 * 0x10ffff))
    const names = Array.from({ length: 200 }, () => Array.from({ length: 8 }, character).join(""))
    for (const name of [...names, "\ud800", "a\r\nset-cookie: b", '";r=9', "\\", "the team's 5 %"]) {
      const { limits, policies } = read([policy({ name }), policy()])
      assert.deepStrictEqual([policies[0]!.value, policies[1]!.value], [limits[0]!.value, "everybody"])
      if (/^[ -~]*$/.test(name)) assert.strictEqual(policies[0]!.value, name)
      assert.deepStrictEqual(limits[0]!.parameters, { r: 5_000_000 })
    }
  })

  it("name no time that is later than the retry-after of the same answer", () => {
    const [spent] = [policy({ spent: 1, until: 60 * second })]
    assert.strictEqual(read([spent], 0, 60).limits[0]!.parameters["t"], 60)
    assert.notProperty(read([spent], 0, 59).limits[0]!.parameters, "t")
  })
})

/** The purses of one caller under a rule, and its calls. */
const capped = (rule: Rule, earlier: Readonly<Record<string, Spending.Kept>> = {}) => {
  let now = 1_000_000 * hour
  const clock = clockAt(() => now)
  const purses = new CallerPurses(earlier, Context.make(Clock.Clock, clock), Scope.makeUnsafe())
  purses.show([rule])
  const of = (agent: string) => purses.of([rule], agent, () => [{ name: "k", hash: "name k" }])
  const paying = of("a")
  return {
    of,
    purses,
    pass: (millis: number) => (now += millis),
    call: (dollars: number) => new PayingCall(paying, Math.round(dollars * dollar), clock),
    limits: (agent = "a") => read(purses.policies(of(agent)), now).limits
  }
}

const remaining = (limits: ReadonlyArray<Item>): number =>
  Math.min(...limits.map(({ parameters }) => parameters["r"] as number))

describe("what is left of a caller's caps", () => {
  it("is never negative, and admits a call of that cost and none of more, whatever was called before", () => {
    const random = mulberry(2)
    const whole = (max: number): number => 1 + Math.floor(random() * max)
    const dollars = (): number => whole(5_000_000) / 1e6
    const periods = ["day", "2 hours", undefined] as const
    let spentCaps = 0
    for (let history = 0; history < sized(40, 2_000); history++) {
      const cap = random() < 0.5 ? undefined : { dollars: dollars(), per: "5 hours" as const }
      const capPerKey = { dollars: dollars(), per: periods[history % periods.length] }
      const { call, limits, pass } = capped({ cap, capPerKey })
      const open: Array<readonly [call: PayingCall, dollars: number]> = []
      for (let step = whole(12); step > 0; step--) {
        const kind = random()
        if (kind < 0.2) pass(whole(4_000) * second)
        else if (kind < 0.7) {
          const asked = dollars() / 2
          const made = call(asked)
          if (made.isPaid) open.push([made, asked])
          else made.payment.settle(0)
        } else {
          const [ended] = open.splice(whole(open.length) - 1, 1)
          // A call may cost more than was reserved for it.
          ended?.[0].payment.settle(Math.round(ended[1] * 1.5 * random() * dollar))
        }
        for (const { parameters } of limits()) {
          assert.isAtLeast(parameters["r"] as number, 0)
          assert.isAtLeast((parameters["t"] as number | undefined) ?? 1, 1)
        }
      }
      const units = remaining(limits())
      const larger = call((units + whole(1_000)) / 1e6)
      assert.isFalse(larger.isPaid)
      larger.payment.settle(0)
      if (units > 0) assert.isTrue(call(units / 1e6).isPaid)
      else spentCaps++
    }
    assert.isAbove(spentCaps, 0)
  })

  it("grows when the time that they name has passed, and not before", () => {
    for (const per of ["day", "2 hours", "10 minutes"] as const) {
      const { call, limits, pass } = capped({ capPerKey: { dollars: 5, per } })
      assert.notProperty(limits()[0]!.parameters, "t", "nothing is spent")
      call(2).payment.settle(2 * dollar)
      const { r, t } = limits()[0]!.parameters as { readonly r: number; readonly t: number }
      assert.strictEqual(r, 3_000_000)
      pass((t - 1) * second - 1)
      assert.strictEqual(limits()[0]!.parameters["r"], r)
      pass(second + 1)
      assert.strictEqual(limits()[0]!.parameters["r"], 5_000_000, per)
    }
  })

  it("is that of the caller alone, and names nobody", () => {
    const { call, limits, of, purses } = capped({
      name: "team",
      capPerAgent: { dollars: 5 },
      capPerKey: { dollars: 9 }
    })
    call(2).payment.settle(2 * dollar)
    const [own, key] = limits()
    const [other] = limits("secret-agent")
    assert.deepStrictEqual([own!.parameters["r"], key!.parameters["r"], other!.parameters["r"]], [3e6, 7e6, 5e6])
    assert.notDeepEqual(own!.parameters["pk"], other!.parameters["pk"])
    assert.notDeepEqual(own!.parameters["pk"], key!.parameters["pk"])
    assert.deepStrictEqual(limits()[0]!.parameters["pk"], own!.parameters["pk"])
    const text = JSON.stringify(fieldsOf(purses.policies(of("secret-agent")), 0, undefined))
    assert.notInclude(text, "secret-agent")
    // Whoever knows the names cannot find out whose a partition is, because another gateway has another key.
    const elsewhere = capped({ name: "team", capPerAgent: { dollars: 5 } }).limits()[0]!
    assert.notDeepEqual(elsewhere.parameters["pk"], own!.parameters["pk"])
  })

  it("is nothing for a caller for whom there is no room", () => {
    const kept = { total: 1, cells: [{ ends: null, amount: 1 }] }
    const earlier = Object.fromEntries(Array.from({ length: 20_000 }, (_, n) => [`["key",${n}]`, kept]))
    const [limit] = capped({ capPerKey: { dollars: 5 } }, earlier).limits()
    assert.deepStrictEqual(limit!.parameters, { r: 0 })
  })
})

const idle = 300_000

/** The jobs of one caller under one rule, and what is logged. */
const jobsUnder = (capPerJob: NonNullable<Rule["capPerJob"]>) => {
  let now = 0
  const logged: Array<unknown> = []
  const clock = clockAt(() => now)
  const logger = Logger.make(({ message }) => void logged.push(...[message].flat()))
  const context = Context.make(Clock.Clock, clock).pipe(Context.add(Logger.CurrentLoggers, new Set([logger])))
  const trees = new JobTrees(context as Context.Context<never>, Scope.makeUnsafe())
  const seat = (job: string, agent?: string): JobSeat => {
    const request = { url: "", protocol: "", model: "m", agent, job, session: agent, header: () => undefined }
    return trees.of([{ capPerJob }], request, job, { name: "key", hash: "hash" })!
  }
  /** Begins a call of an agent, and returns its end. */
  const begin = (job: string, agent?: string) => {
    const { line } = seat(job, agent)
    const paying = { agent: "", priority: 0, weight: 1, wake: (resume: () => void) => resume() }
    const hold = line({ paying, clock } as unknown as Parameters<typeof line>[0]).take()
    return { isOpen: hold.isOpen, end: () => hold.settle(0) }
  }
  return { trees, context, clock, logged, seat, begin, pass: (millis: number) => (now += millis) }
}

describe("the capped jobs of a gateway", () => {
  it("are warned of once for each cap of which they have used 80 %", async () => {
    const { begin, clock, logged, seat, trees } = jobsUnder({ agents: 5, tokens: 100, calls: 1_000 })
    const warned = async () => {
      trees.review()
      await Promise.resolve()
      return logged.splice(0)
    }
    const { purses } = seat("one", "a")
    const spend = (tokens: number) => new PayingCall(purses, tokens, clock).payment.settle(tokens, tokens)
    for (const agent of ["a", "b", "c"]) begin("one", agent)
    spend(79)
    assert.deepStrictEqual(await warned(), [])
    begin("one", "d")
    const { id } = trees.shown(1)[0]!
    const line = { event: "jobCap", job: "the job one of key", id }
    assert.deepStrictEqual(await warned(), [{ ...line, cap: "agents", used: 4, limit: 5 }])
    spend(1)
    assert.deepStrictEqual(await warned(), [{ ...line, cap: "tokens", used: 80, limit: 100 }])
    assert.deepStrictEqual(await warned(), [])
    assert.deepStrictEqual(trees.figures.used, [
      ["agents", 0.8],
      ["atOnce", 0],
      ["perHour", 0],
      ["tokens", 0.8],
      ["dollars", 0],
      ["calls", 0.002]
    ])
  })

  /** Opens so many jobs more, and returns how many purses each has. */
  const fill = (seat: (job: string) => JobSeat, count: number, from = 0): ReadonlyArray<number> => {
    const counts: Array<number> = []
    for (let n = from; n < from + count; n++) counts.push(seat(`other ${n}`).purses.length)
    return counts
  }

  it("are kept while anything of them may still be used, however many jobs come", () => {
    const { begin, clock, pass, seat, trees } = jobsUnder({ tokens: 100 })
    const waiting = seat("waiting")
    waiting.enter()
    const reserving = new PayingCall(seat("reserving").purses, 50, clock)
    const running = begin("running", "a")
    new PayingCall(seat("idle").purses, 90, clock).payment.settle(90, 90)
    fill(seat, 996)
    pass(idle)
    assert.deepStrictEqual(fill(seat, 4, 996), [1, 1, 1, 1])
    const left = trees.shown(1_000).map(({ name }) => name)
    for (const job of ["waiting", "reserving", "running"]) assert.include(left, `the job ${job} of key`)
    assert.notInclude(left, "the job idle of key")
    waiting.leave()
    reserving.payment.settle(0)
    running.end()
  })

  it("are refused beyond the first thousand that may run, with agents and without", () => {
    const { begin, pass, seat } = jobsUnder({ tokens: 100 })
    fill(seat, 1_000)
    pass(idle - 1)
    assert.isFalse(begin("one more", "a").isOpen)
    assert.isFalse(begin("one more").isOpen)
  })

  it("know how long the calls of each agent have waited that were sent", () => {
    const { begin, context, pass, seat, trees } = jobsUnder({ tokens: 100 })
    begin("one", "a")
    let now = 0
    const jobs = new Jobs(context as Context.Context<never>, () => now)
    for (const isSent of [true, false]) {
      const call = jobs.open({ key: "key", job: "one" }, seat("one", "a"))
      now += 70
      if (isSent) call.sent()
      now += 5
      call.ended(isSent ? "answered" : "refused")
    }
    pass(1)
    const [job] = trees.shown(1)
    assert.deepStrictEqual([job?.waitedMillis, job?.list[0]?.waitedMillis], [70, 70])
  })

  it("are no policies of a caller", () => {
    const { context, seat } = jobsUnder({ tokens: 100, dollars: 1, calls: 5 })
    const purses = new CallerPurses({}, context as Context.Context<never>, Scope.makeUnsafe())
    const own = purses.of([{ cap: { dollars: 1 } }], "a", () => [])
    const all = [...own, ...seat("one", "a").purses]
    assert.strictEqual(all.length, 4)
    assert.deepStrictEqual(
      purses.policies(all).map(({ name }) => name),
      ["all callers"]
    )
  })
})
