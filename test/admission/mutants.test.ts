/**
 * The checks of the laws and rules catch a broken budget. Each mutant is a copy of the sources in which one rule was taken
 * out; the check that bears the rule's name must fail.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { type LawName, laws } from "../support/laws.ts"
import { some } from "../support/size.ts"
import { load, type Mutant } from "../support/mutant.ts"
import { isLogarithmic } from "../support/queue.ts"
import { type RuleName, rules } from "../support/rules.ts"

/** The rules of DESIGN 5.1 and what becomes of them. */
const brokenRules: ReadonlyArray<readonly [RuleName, Mutant]> = [
  [
    "meter: lets a call in to the millisecond, however often anybody looks",
    {
      without: "the integral of the curve",
      file: "admission/meter.ts",
      from: "m.level + refill(m, elapsed, reached))",
      to: "m.level + elapsed * rate(m))"
    }
  ],
  [
    "verdicts: random rejections of one burst that arrive together are no streak",
    {
      without: "the acceptances that are left over",
      file: "admission/verdicts.ts",
      from: "test.surplus = Math.min(",
      to: "test.surplus = 0 * Math.min("
    }
  ],
  [
    "judging: a rejection whose headers leave less than its charge is an exhaustion, one that leaves more is none",
    {
      without: "the evidence of headers",
      file: "admission/rejections.ts",
      from: "if (remaining < ticket.charge[meter.dimension] + roundedTo / 2) {",
      to: "if (remaining < 0) {"
    }
  ],
  [
    "isolated: a lone rejection changes nothing for others",
    {
      without: "a verdict",
      file: "admission/rejections.ts",
      from: 'if (!isAlarm(pool, ticket, hasRoom)) return "isolated"',
      to: "isAlarm(pool, ticket, hasRoom)"
    }
  ],
  [
    "exhausted: the rate becomes what was delivered between two exhaustions, at most halved at once",
    {
      without: "what was delivered",
      file: "admission/rejections.ts",
      from: "Math.max((here.given - from.given) / span, least)",
      to: "0.7 * rate"
    }
  ],
  [
    "headers: what they say is less holds at once, what they say is more by and by",
    {
      without: "doubt of what they promise",
      file: "admission/headers.ts",
      from: "meter.level + levelGain * (level - meter.level)",
      to: "level"
    }
  ],
  [
    "window: finds an undeclared limit of calls in flight",
    {
      without: "a window",
      file: "admission/window.ts",
      from: "w.size = Math.min(w.size, Math.max(w.low - 1, Math.floor(confirmed)))",
      to: "w.size = Infinity"
    }
  ],
  [
    "overload: a lone one delays nobody, and random ones of 5 % cost next to nothing",
    {
      without: "a verdict",
      file: "admission/outage.ts",
      from: 'if (outageTest.score < score) return "isolated"',
      to: ""
    }
  ],
  [
    "nothing known: calls double with each round of verdicts, until rejections or headers end that",
    {
      without: "an opening",
      file: "admission/admit.ts",
      from: "if (opening === undefined || pool.inFlight === 0) return 0",
      to: "if (opening !== null) return 0"
    }
  ],
  [
    "cap: what the user states is never raised, neither by headers nor by an oversized call",
    {
      without: "a meter of its own",
      file: "admission/headers.ts",
      from: "  Meter.setLimit(meter, limit)\n  // What is left",
      to: "  Meter.setLimit(meter, limit)\n  if (pool.caps[dimension]) pool.caps[dimension].rule = shareOf(meter, 1)\n  // What is left"
    }
  ],
  [
    "overload: an outage is probed after 1, 2, 5, 10 s, one call at a time",
    {
      without: "one probe at a time",
      file: "admission/gate.ts",
      from: "  gate.allowed = 1\n",
      to: "  gate.allowed = 4\n"
    }
  ],
  [
    "ramp: growth is bounded by 40 % a minute after the provider's ramp error",
    { without: "a bound", file: "admission/meter.ts", from: "const rampGrowth = 1.4", to: "const rampGrowth = 14" }
  ]
]

/** The laws of DESIGN 5 and what becomes of them. */
const brokenLaws: ReadonlyArray<readonly [LawName, Mutant]> = [
  [
    "law 1, never over",
    {
      without: "the window of 60 s",
      file: "admission/cap.ts",
      from: "if (rule.window === undefined) return refilled",
      to: "if (rule !== undefined) return refilled"
    }
  ],
  [
    "law 1, never over",
    {
      without: "the loss of what is given back to a bucket that was full since",
      file: "admission/cap.ts",
      from: "const since = highs.filter(({ at }) => at > takenAt)",
      to: "const since = highs.filter(() => false)"
    }
  ],
  [
    "law 2, all or nothing",
    {
      without: "one instant: a call that waits for one dimension takes of the others",
      file: "admission/admit.ts",
      from: "const wait = Cap.wait(cap, charge[each] ?? 0, pool.lag)\n",
      to: "const wait = Cap.wait(cap, charge[each] ?? 0, pool.lag)\n    if (wait === 0) Cap.take(cap, 1)\n"
    }
  ],
  [
    "law 3, order",
    {
      without: "tags that move by cost",
      file: "admission/fairQueue.ts",
      from: "    flow.start += step + flow.owed\n",
      to: "    flow.start += flow.owed\n"
    }
  ],
  [
    "law 4, cancel-safe",
    {
      without: "the removal of a waiter that leaves",
      file: "budget/pool.ts",
      from: "const wasHead = this.queue.peek() === waiter\n    this.queue.remove(waiter)",
      to: "const wasHead = this.queue.peek() === waiter"
    }
  ],
  [
    "law 5, work-conserving",
    {
      without: "exact waits",
      file: "admission/cap.ts",
      from: "(missing - slack / 2) / rule.rate",
      to: "(2 * missing) / rule.rate"
    }
  ],
  [
    "law 6, settled once",
    {
      without: "debt",
      file: "admission/cap.ts",
      from: "if (used > charge) return take(cap, used - charge)",
      to: "if (used > charge) return"
    }
  ],
  [
    "law 7, typed refusal at once",
    {
      without: "refusals by a quota",
      file: "budget/pool.ts",
      from: "asked <= cap.level * (1 + 1e-9)",
      to: "asked <= Infinity"
    }
  ],
  [
    "law 8, logarithmic",
    {
      without: "an end of the loop at the first that does not fit",
      file: "budget/pool.ts",
      from: "if (blocked !== undefined) this.wakeIn(blocked.millis)",
      to: "if (blocked !== undefined) this.wakeIn(blocked.millis)\n    for (const each of this.queue.inOrder()) Law.decide(own.law, each.charge, this.now())"
    }
  ],
  [
    "law 9, a lone rejection costs one call",
    {
      without: "a verdict",
      file: "admission/rejections.ts",
      from: 'if (!isAlarm(pool, ticket, hasRoom)) return "isolated"',
      to: "isAlarm(pool, ticket, hasRoom)"
    }
  ],
  [
    "law 10, what was delivered decides",
    {
      without: "what was delivered",
      file: "admission/rejections.ts",
      from: "Math.max((here.given - from.given) / span, least)",
      to: "0.5 * rate"
    }
  ],
  [
    "law 11, verdicts, not answers",
    {
      without: "verdicts before answers",
      file: "admission/rejections.ts",
      from: "Verdicts.failed(bucketTest, ticket.number, accepted, ",
      to: "Verdicts.failed(bucketTest, ticket.number, Math.max(0, accepted - pool.inFlight), "
    }
  ],
  [
    "law 12, weather loses no work",
    {
      without: "a pause that all share",
      file: "admission/outage.ts",
      from: "if (outageTest.score < score)",
      to: "if (outageTest.score < Infinity)"
    }
  ],
  [
    "law 13, nobody harms another",
    {
      without: "a report of what a caller throws",
      file: "budget/waker.ts",
      from: "        report(scheduler, error)\n",
      to: ""
    }
  ],
  [
    "law 14, nothing in use is forgotten",
    {
      without: "a look whether a pool is paused",
      file: "budget/pool.ts",
      from: "return !isPaused && (",
      to: "return ("
    }
  ],
  [
    "law 15, closed is closed",
    {
      without: "an end of the wait of those who came before",
      file: "budget/pool.ts",
      from: "      this.answer(waiter, Effect.interrupt)\n",
      to: ""
    }
  ],
  [
    "law 15, closed is closed",
    {
      without: "an interruption of those who come later",
      file: "budget/make.ts",
      from: "if (pools.isClosed) return Effect.interrupt",
      to: ""
    }
  ]
]

/** The check fails by an assertion of its own, and not because the mutant does not run. */
const isCaught = (exit: Exit.Exit<unknown, unknown>) => {
  const error = Exit.isFailure(exit) ? Cause.squash(exit.cause) : undefined
  assert.strictEqual((error as Error | undefined)?.name, "AssertionError", String(error ?? "it is not caught"))
}

describe("mutants", () => {
  for (const [name, mutant] of some(brokenRules, 4)) {
    it.effect(`"${name}" catches a law without ${mutant.without}`, () =>
      Effect.gen(function* () {
        const law = yield* load<Parameters<(typeof rules)[RuleName]>[0]>(mutant, "admission/law.ts")
        isCaught(yield* Effect.exit(Effect.sync(() => rules[name](law))))
      })
    )
  }

  for (const [name, mutant] of some(brokenLaws, 4)) {
    it.effect(`"${name}" catches a budget without ${mutant.without}`, () =>
      Effect.gen(function* () {
        const { make } = yield* load<{ readonly make: Parameters<(typeof laws)[LawName]>[0] }>(mutant, "Budget.ts")
        isCaught(yield* Effect.exit(laws[name](make, true)))
      })
    )
  }

  it.effect("law 8 of the queue catches one that walks through a flow", () =>
    Effect.gen(function* () {
      const mutant: Mutant = {
        without: "a running sum",
        file: "admission/fairQueue.ts",
        from: "      flow.backlog -= stepOf(entry)\n",
        to: "      flow.backlog = 0\n      for (let each = flow.head; each; each = each.next) flow.backlog += stepOf(each)\n"
      }
      const { FairQueue } = yield* load<{ readonly FairQueue: Parameters<typeof isLogarithmic>[0] }>(
        mutant,
        "admission/fairQueue.ts"
      )
      isCaught(yield* Effect.exit(Effect.sync(() => isLogarithmic(FairQueue))))
    })
  )
})
