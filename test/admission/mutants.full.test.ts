/**
 * The checks of the laws and rules catch a broken budget. Each fault is planted in a copy of the sources; the check that
 * bears the name of what it breaks must fail.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fault from "../support/fault.ts"
import { type LawName, laws } from "../support/laws.ts"
import { isLogarithmic } from "../support/queue.ts"
import { type RuleName, rules } from "../support/rules.ts"
import { some } from "../support/size.ts"

const difference = Fault.operating("-")

/** A law before any call. */
interface Unused {
  readonly sent: number
  readonly caps: Record<
    string,
    { level: number; readonly rule: { readonly capacity: number; readonly quota: boolean } }
  >
}

/** A fault for each rule of `test/support/rules.ts`, which must fail by it. */
const brokenRules: ReadonlyArray<readonly [RuleName, Fault.Fault]> = [
  [
    "meter: admits a call to the millisecond, however often it is asked",
    {
      without: "one curve for the rate and for what it refills",
      in: "Meter.advance",
      by: Fault.through(Fault.operating("**"), () => 0)
    }
  ],
  [
    "verdicts: random rejections of one burst that arrive together raise no alarm",
    {
      without: "the acceptances that are left over",
      in: "Verdicts.failed",
      by: Fault.through(Fault.calling("Math.min"), () => 0)
    }
  ],
  [
    "judging: a rejection is an exhaustion if its headers leave less than its charge, and only then",
    { without: "the evidence of headers", in: "Pacer.reject", by: Fault.never(Fault.returning('"exhausted"')) }
  ],
  [
    "isolated: a lone rejection changes nothing for others",
    { without: "a verdict", in: "Pacer.reject", by: Fault.never(Fault.returning('"isolated"')) }
  ],
  [
    "exhausted: the rate becomes what was delivered between two exhaustions, at most halved at once",
    { without: "what was delivered", in: "Pacer.reject", by: Fault.through(Fault.operating("/", difference), () => 0) }
  ],
  [
    "headers: lower levels apply at once, higher ones gradually",
    {
      without: "doubt about higher levels",
      in: "Pacer.observe",
      by: Fault.through(Fault.operating("*", undefined, difference), () => Infinity)
    }
  ],
  [
    "window: finds an undeclared limit of calls in flight",
    { without: "a window", in: "Window.othersAt", by: Fault.through(Fault.calling("Math.max"), () => 0) }
  ],
  [
    "overload: a lone one delays nobody, and 5 % of random ones cost next to nothing",
    { without: "a verdict", in: "Pacer.overload", by: Fault.never(Fault.returning('"isolated"')) }
  ],
  [
    "nothing known: calls double with each round of verdicts until rejections or headers end that",
    { without: "an opening", in: "Pacer.decide", by: Fault.always(Fault.returning("0")) }
  ],
  [
    "cap: neither headers nor an oversized call raise what the user states",
    {
      without: "a meter of its own",
      in: "Pacer.make",
      by: Fault.instead((make: (rules: object, shares: object, ...rest: Array<unknown>) => unknown) => {
        // As if the user had stated all of what headers say.
        return (rules: object, _: object, ...rest: Array<unknown>) => make(rules, { tokens: 1 }, ...rest)
      })
    }
  ],
  [
    "cap: the part of a quota that is kept stays kept when limits change, even before any call",
    {
      without: "the kept part of a quota if nothing was sent",
      in: "Pacer.resize",
      by: Fault.instead((resize: (...args: Array<unknown>) => unknown) => (law: Unused, ...rest: Array<unknown>) => {
        const resized = resize(law, ...rest)
        if (law.sent > 0) return resized
        for (const cap of Object.values(law.caps)) if (cap.rule.quota) cap.level = cap.rule.capacity
        return resized
      })
    }
  ],
  [
    "overload: an outage is probed after 1, 2, 3, 5, 7, 10 s, one call at a time",
    { without: "one probe at a time", in: "Pacer.decide", by: Fault.always(Fault.returning("0")) }
  ],
  [
    "ramp: growth is bounded by 40 % a minute after a ramp error",
    {
      without: "a bound",
      in: "Meter.rateAt",
      by: Fault.through(Fault.operating("**"), (growth: number) => 10 * growth)
    }
  ]
]

type CapStep = (cap: object, ...rest: Array<number>) => unknown

/** Faults that break a law of `test/support/laws.ts`. */
const brokenLaws: ReadonlyArray<readonly [LawName, Fault.Fault]> = [
  [
    "law 1, never over",
    {
      without: "the window of 60 s",
      in: "Cap.wait",
      by: Fault.instead((wait: CapStep) => (cap: { readonly rule: object }, ...rest: Array<number>) => {
        return wait({ ...cap, rule: { ...cap.rule, window: undefined } }, ...rest)
      })
    }
  ],
  [
    "law 1, never over",
    {
      without: "the loss of refunds that would have overflowed",
      in: "Cap.settle",
      by: Fault.instead((settle: CapStep) => (cap: object, charge: number, used: number) => {
        return settle(cap, charge, used, Infinity)
      })
    }
  ],
  [
    "law 2, all or nothing",
    {
      without: "a decision over all dimensions before any is charged",
      in: "Cap.wait",
      by: Fault.instead((wait: CapStep) => (cap: { level: number }, ...rest: Array<number>) => {
        const millis = wait(cap, ...rest)
        if (millis === 0) cap.level -= 1
        return millis
      })
    }
  ],
  [
    "law 3, order",
    { without: "tags that advance by cost", in: "Group.charge", by: Fault.dropped(Fault.operating("+=")) }
  ],
  [
    "law 17, being many gives nothing",
    {
      without: "callers",
      in: "FairQueue.push",
      by: Fault.instead((push: (entry: object, front: boolean) => void) => (entry: object, front: boolean) => {
        push(Object.assign(entry, { caller: undefined }), front)
      })
    }
  ],
  [
    "law 17, being many gives nothing",
    {
      without: "jobs",
      in: "FairQueue.push",
      by: Fault.instead((push: (entry: object, front: boolean) => void) => (entry: object, front: boolean) => {
        push(Object.assign(entry, { job: undefined }), front)
      })
    }
  ],
  [
    "law 4, cancel-safe",
    { without: "the removal of waiters that leave", in: "FairQueue.remove", by: Fault.instead(() => () => {}) }
  ],
  [
    "law 5, work-conserving",
    {
      without: "exact waits",
      in: "Cap.wait",
      by: Fault.instead(
        (wait: (...args: Array<unknown>) => number) =>
          (...args: Array<unknown>) =>
            2 * wait(...args)
      )
    }
  ],
  [
    "law 6, settled once",
    {
      without: "debt",
      in: "Cap.settle",
      by: Fault.instead((settle: CapStep) => (cap: object, charge: number, used: number, at: number) => {
        return settle(cap, charge, Math.min(used, charge), at)
      })
    }
  ],
  [
    "law 7, typed refusal at once",
    { without: "refusals by quotas", in: "budget/Pool.admit", by: Fault.always(Fault.deciding("quota")) }
  ],
  [
    "law 8, logarithmic",
    {
      without: "an end of the decision at the first call that has to wait",
      in: "budget/Pool.drain",
      by: Fault.instead((drain: () => unknown, pool: { readonly queued: number; now(): number }) => () => {
        for (let i = 0; i < pool.queued; i++) pool.now()
        return drain()
      })
    }
  ],
  [
    "law 9, a lone rejection costs one call",
    { without: "a verdict", in: "Pacer.reject", by: Fault.never(Fault.returning('"isolated"')) }
  ],
  [
    "law 10, what was delivered decides",
    { without: "what was delivered", in: "Pacer.reject", by: Fault.through(Fault.operating("/", difference), () => 0) }
  ],
  [
    "law 11, verdicts, not answers",
    {
      without: "verdicts before answers",
      in: "Pacer.reject",
      by: Fault.instead(
        (reject: (...args: Array<unknown>) => unknown) =>
          (law: { readonly inFlight: number }, admission: { readonly number: number }, ...rest: Array<unknown>) => {
            // Calls without an answer do not count.
            return reject(law, { ...admission, number: admission.number - law.inFlight }, ...rest)
          }
      )
    }
  ],
  [
    "law 12, weather loses no work",
    { without: "a pause for all callers", in: "Pacer.overload", by: Fault.always(Fault.returning('"isolated"')) }
  ],
  [
    "law 13, nobody harms another",
    { without: "a report of what a caller throws", in: "Waker.make", by: Fault.silenced }
  ],
  [
    "law 14, nothing in use is forgotten",
    {
      without: "a check whether a pool is paused",
      in: "budget/Pool.isIdle",
      by: Fault.through(Fault.operating("<", undefined, Fault.operating("+")), () => false)
    }
  ],
  [
    "law 15, closed is closed",
    {
      without: "an end of the waits when it is closed",
      in: "budget/Pool.shutDown",
      by: Fault.instead(() => () => {})
    }
  ],
  [
    "law 15, closed is closed",
    {
      without: "an interruption of callers that come later",
      in: "Budget.make",
      by: Fault.never(Fault.returning("Effect.interrupt"))
    }
  ]
]

/**
 * Undefined if a check fails by one of its own assertions, otherwise the problem: a fault must not keep the check from running.
 */
const problemOf = (exit: Exit.Exit<unknown, unknown>): string | undefined => {
  if (Exit.isSuccess(exit)) return "the check passes"
  const error = Cause.squash(exit.cause) as Error | undefined
  return error?.name === "AssertionError" ? undefined : String(error?.stack ?? error)
}

/** A check of a module of the copy. */
const checking =
  <A>(module: string, check: (code: A) => Effect.Effect<unknown, unknown>) =>
  (take: Fault.Import): Effect.Effect<string | undefined> =>
    Effect.map(Effect.exit(Effect.flatMap(take<A>(module), check)), problemOf)

describe("mutants", () => {
  for (const [name, fault] of some(brokenRules, 6)) {
    it.effect(`"${name}" catches a law without ${fault.without}`, () =>
      Fault.notices(
        fault,
        checking("pacing/pacer.ts", (law: Parameters<(typeof rules)[RuleName]>[0]) =>
          Effect.sync(() => rules[name](law))
        )
      )
    )
  }

  for (const [name, fault] of some(brokenLaws, 6)) {
    it.effect(`"${name}" catches a budget without ${fault.without}`, () =>
      Fault.notices(
        fault,
        checking("Budget.ts", ({ make }: { readonly make: Parameters<(typeof laws)[LawName]>[0] }) =>
          laws[name](make, 1)
        )
      )
    )
  }

  it.effect("law 8 of the queue catches one that walks through a flow", () =>
    Fault.notices(
      {
        without: "a running sum",
        in: "FairQueue.serve",
        by: Fault.instead(
          (serve: (entry: unknown) => unknown, queue: { inOrder(): Iterable<{ readonly cost: number }> }) =>
            (entry: unknown) => {
              let sum = 0
              for (const { cost } of queue.inOrder()) sum += cost
              return sum > 0 ? serve(entry) : undefined
            }
        )
      },
      checking("admission/fairQueue.ts", ({ FairQueue }: { readonly FairQueue: Parameters<typeof isLogarithmic>[0] }) =>
        Effect.sync(() => isLogarithmic(FairQueue))
      )
    )
  )

  it("reports a fault whose target does not exist, or exists twice", () => {
    const by = Fault.instead(() => () => {})
    assert.throws(() => Fault.copies({ without: "", in: "Cap.nowhere", by }), /"Cap.nowhere" should be exported once/)
    assert.throws(() => Fault.copies({ without: "", in: "layer", by }), /"layer" should be exported once .* src\//)
    const nothing = Fault.dropped(Fault.calling("nowhere"))
    assert.throws(() => Fault.copies({ without: "x", in: "Cap.wait", by: nothing }), /no place for a fault without x/)
  })
})
