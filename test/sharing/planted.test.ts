/** Bugs planted in what processes share: in the script of Redis, in the exchange, in the steps of a fleet. Storms show them. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { copy, type Mutant } from "../support/mutant.ts"
import { some } from "../support/size.ts"
import * as Storm from "./storm.ts"
import * as World from "./world.ts"

interface Bug extends Mutant {
  /** The first of the seeds that show it; some take more than are tried here. */
  readonly seed?: number
  readonly isLossyStore?: boolean
  /** Whether only callers that give up and processes that stand still show it. */
  readonly isRough?: boolean
}

const bugs: ReadonlyArray<Bug> = [
  {
    without: "a comparison of versions in the script",
    file: "redis/store.ts",
    from: "if ARGV[1] ~= (stored[1] or '') then",
    to: "if #ARGV == 0 then"
  },
  {
    without: "an answer of the script that another was faster",
    file: "redis/store.ts",
    from: "return { stored[1], redis.call('HGET', KEYS[1], 'value'), now - (stored[2] or now) }",
    to: "if #ARGV > 0 then return false end return { stored[1], redis.call('HGET', KEYS[1], 'value'), 0 }"
  },
  {
    without: "an end of what was committed: it is played twice",
    file: "budgetStore/exchange.ts",
    from: "this.pending.splice(0, done.operations)",
    to: ""
  },
  {
    without: "a check that a call still goes in time",
    file: "budgetStore/exchange.ts",
    from: "const isLate = done !== undefined && this.clockNow() - done.sentAt > done.state.law.lag",
    to: "const isLate = false"
  },
  {
    without: "the end of the calls of a process that has died",
    file: "budgetStore/fleet.ts",
    from: "  owner.inFlight = 0\n  owner.held = Amounts.nothing\n",
    to: ""
  },
  {
    without: "a look whether a commit was stored whose reply was lost",
    file: "budgetStore/exchange.ts",
    from: "done ??= this.doubted.find(({ seq }) => seq === found?.owners[this.id]?.seq)",
    to: ""
  },
  {
    without: "what is kept for a process that is cut off",
    file: "budgetStore/fleet.ts",
    from: "if (owner.part !== undefined) keepPart(state.law, owner, owner.part, now)",
    to: "",
    seed: 2400
  },
  {
    without: "what is known and the store has lost",
    file: "budgetStore/exchange.ts",
    from: "hasAll ? { state: found!, millis: age } : this.merge(known, found, age)",
    to: "{ state: found ?? known!, millis: age }",
    seed: 278,
    isLossyStore: true
  },
  {
    without: "the return of what was kept of a quota",
    file: "budgetStore/fleet.ts",
    from: "keepQuotas(law, part, -1)",
    to: ""
  },
  {
    without: "the return of a place whose caller had left when it was granted",
    file: "budgetStore/exchange.ts",
    from: "this.apply((law, now) => Law.release(law, ticket, Amounts.nothing, now), ticket, Amounts.nothing)",
    to: "",
    isRough: true
  },
  {
    without: "what is kept of a quota when limits are set before any call",
    file: "admission/limits.ts",
    from: "(sent === 0 && !rule.quota)",
    to: "sent === 0",
    seed: 1516,
    isRough: true
  },
  {
    without: "the memory of a process that was taken for dead",
    file: "budgetStore/fleet.ts",
    from: "const rememberedMillis = 600_000",
    to: "const rememberedMillis = 0"
  },
  {
    without: "the memory that somebody has left",
    file: "budgetStore/fleet.ts",
    from: "isOver(owner, time) || owner.at <= forgotten",
    to: "isOver(owner, time)",
    seed: 2754,
    isLossyStore: true
  },
  {
    without: "an end of what a process no longer knows of",
    file: "budgetStore/exchange.ts",
    from: "if (done === undefined) Fleet.retract(state, this.id, own)",
    to: "",
    seed: 372_873,
    isLossyStore: true
  },
  {
    without: "a guard around each caller that resumes",
    file: "budget/waker.ts",
    from: "        report(scheduler, error)\n",
    to: "        throw error\n",
    isRough: true
  },
  {
    without: "a refusal of those who come to a budget that is closed",
    file: "budget/make.ts",
    from: "if (pools.isClosed) return Effect.interrupt",
    to: ""
  }
]

/** Seeds that are tried. */
const most = 60

const redis = await World.redis()

describe("storms show a fleet", { timeout: 180_000 }, () => {
  for (const bug of some(bugs, 5)) {
    it.effect(`without ${bug.without}`, () =>
      Effect.gen(function* () {
        const take = yield* copy(bug)
        const code: World.Code = {
          Budget: yield* take<World.Code["Budget"]>("Budget.ts"),
          BudgetStore: yield* take<World.Code["BudgetStore"]>("BudgetStore.ts"),
          makeStore: (yield* take<{ readonly make: World.Code["makeStore"] }>("redis/store.ts")).make
        }
        const { isLossyStore = false, isRough = false, seed: first = 1 } = bug
        const plan = isRough ? Storm.rougher : Storm.plan
        const shows = (seed: number): boolean => Storm.isBroken(plan(seed, isLossyStore), redis, code)
        const seed = Array.from({ length: most }, (_, n) => first + n).find(shows)
        assert.isDefined(seed, `none of ${most} seeds from ${first} on shows it`)
      })
    )
  }

  it.effect("and the smallest plan that does", () =>
    Effect.gen(function* () {
      const take = yield* copy(bugs[0]!)
      const makeStore = (yield* take<{ readonly make: World.Code["makeStore"] }>("redis/store.ts")).make
      const code: World.Code = { ...World.library, makeStore }
      const complaint = Storm.complaint(Storm.plan(1), redis, code)
      assert.include(complaint, "npm run storms -- --from 1 --seeds 1")
      assert.include(complaint, "events: []")
    })
  )
})
