/** The purses of a gateway's caps, which hold even if callers invent agents and keys. */
import { assert, describe, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Scope from "effect/Scope"
import { CallerPurses } from "../src/purses.ts"
import { PayingCall } from "../../../test/support/paying.ts"
import type { Rule } from "@floodgate/gateway"
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
