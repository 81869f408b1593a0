/** What answers say of the caps of their callers: the form of the fields, and that they agree with what is admitted next. */
import { assert, describe, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Scope from "effect/Scope"
import type { Rule } from "@floodgate/gateway"
import type * as Spending from "floodgate/Spending"
import { clockAt } from "../../../test/support/clock.ts"
import { PayingCall } from "../../../test/support/paying.ts"
import { mulberry } from "../../../test/support/random.ts"
import { sized } from "../../../test/support/size.ts"
import { CallerPurses } from "../src/purses.ts"
import { type CapPolicy, fields, fieldsOf } from "../src/rateLimits.ts"
import { type Item, listOf } from "./support/structuredFields.ts"

const second = 1_000
const hour = 3_600 * second
const perDollar = 1e9

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
const world = (rule: Rule, earlier: Readonly<Record<string, Spending.Kept>> = {}) => {
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
    call: (dollars: number) => new PayingCall(paying, Math.round(dollars * perDollar), clock),
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
    for (let history = 0; history < sized(100, 2_000); history++) {
      const cap = random() < 0.5 ? undefined : { dollars: dollars(), per: "5 hours" as const }
      const capPerKey = { dollars: dollars(), per: periods[history % periods.length] }
      const { call, limits, pass } = world({ cap, capPerKey })
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
          ended?.[0].payment.settle(Math.round(ended[1] * 1.5 * random() * perDollar))
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
      const { call, limits, pass } = world({ capPerKey: { dollars: 5, per } })
      assert.notProperty(limits()[0]!.parameters, "t", "nothing is spent")
      call(2).payment.settle(2 * perDollar)
      const { r, t } = limits()[0]!.parameters as { readonly r: number; readonly t: number }
      assert.strictEqual(r, 3_000_000)
      pass((t - 1) * second - 1)
      assert.strictEqual(limits()[0]!.parameters["r"], r)
      pass(second + 1)
      assert.strictEqual(limits()[0]!.parameters["r"], 5_000_000, per)
    }
  })

  it("is that of the caller alone, and names nobody", () => {
    const { call, limits, of, purses } = world({ name: "team", capPerAgent: { dollars: 5 }, capPerKey: { dollars: 9 } })
    call(2).payment.settle(2 * perDollar)
    const [own, key] = limits()
    const [other] = limits("secret-agent")
    assert.deepStrictEqual([own!.parameters["r"], key!.parameters["r"], other!.parameters["r"]], [3e6, 7e6, 5e6])
    assert.notDeepEqual(own!.parameters["pk"], other!.parameters["pk"])
    assert.notDeepEqual(own!.parameters["pk"], key!.parameters["pk"])
    assert.deepStrictEqual(limits()[0]!.parameters["pk"], own!.parameters["pk"])
    const text = JSON.stringify(fieldsOf(purses.policies(of("secret-agent")), 0, undefined))
    assert.notInclude(text, "secret-agent")
    // Whoever knows the names cannot find out whose a partition is, because another gateway has another key.
    const elsewhere = world({ name: "team", capPerAgent: { dollars: 5 } }).limits()[0]!
    assert.notDeepEqual(elsewhere.parameters["pk"], own!.parameters["pk"])
  })

  it("is nothing for a caller for whom there is no room", () => {
    const kept = { total: 1, cells: [{ ends: null, amount: 1 }] }
    const earlier = Object.fromEntries(Array.from({ length: 20_000 }, (_, n) => [`["key",${n}]`, kept]))
    const [limit] = world({ capPerKey: { dollars: 5 } }, earlier).limits()
    assert.deepStrictEqual(limit!.parameters, { r: 0 })
  })
})
