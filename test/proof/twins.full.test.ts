/**
 * The search finds broken laws: each law has a twin of the code that is off by one or lacks one thing, and a shortest history
 * shows it. The same history breaks nothing in the library.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fault from "../support/fault.ts"
import { type Code, library, replay } from "./play.ts"
import { type ScopeName, scopes } from "./scopes.ts"
import * as Search from "./search.ts"

interface Twin extends Fault.Fault {
  readonly law: Search.LawName
  readonly scope: ScopeName
  /** The moves of the shortest history. */
  readonly moves: number
}

interface Bucket {
  readonly rule: { readonly window?: { readonly max: number } }
}
type CapStep = (cap: object, ...rest: Array<number>) => unknown
type Decide = (law: object, charge: object, now: number) => unknown
interface Gated {
  readonly gate: {
    readonly allowed: number
    readonly misses: number
    readonly probes: number
    readonly until: number
  }
}
type MakePool = new (options: object) => object
interface PoolOptions {
  readonly concurrency: number
  readonly after: (millis: number, then: unknown) => unknown
}

const twins: ReadonlyArray<Twin> = [
  {
    law: "everybody is served",
    without: "a guard around each caller that resumes",
    scope: "harms",
    moves: 3,
    in: "Waker.make",
    by: Fault.unguarded
  },
  {
    law: "nobody harms another",
    without: "a report of what a caller throws",
    scope: "harms",
    moves: 3,
    in: "Waker.make",
    by: Fault.silenced
  },
  {
    law: "nobody harms another",
    without: "a task of its own for a caller that resumes",
    scope: "harms",
    moves: 3,
    in: "Waker.make",
    by: Fault.instead(() => () => (resume: () => void) => resume())
  },
  {
    law: "closed is closed",
    without: "an end of the waits when it is closed",
    scope: "harms",
    moves: 3,
    in: "budget/Pool.shutDown",
    by: Fault.instead(() => () => {})
  },
  {
    law: "never over",
    without: "the last token of each charge",
    scope: "bucket",
    moves: 2,
    in: "Cap.wait",
    by: Fault.instead((wait: CapStep) => (cap: object, charge: number, ...rest: Array<number>) => {
      return wait(cap, charge - 1, ...rest)
    })
  },
  {
    law: "never over",
    without: "the last place of its concurrency",
    scope: "places",
    moves: 2,
    in: "budget/Pool",
    by: Fault.instead((Pool: MakePool) => {
      return class extends Pool {
        constructor(options: PoolOptions) {
          super({ ...options, concurrency: options.concurrency + 1 })
        }
      }
    })
  },
  {
    law: "never over",
    without: "the last token of a window",
    scope: "window",
    moves: 3,
    in: "Cap.wait",
    by: Fault.instead((wait: CapStep) => (cap: Bucket, ...rest: Array<number>) => {
      const { window } = cap.rule
      const larger = window && { ...window, max: window.max + 1 }
      return wait({ ...cap, rule: { ...cap.rule, window: larger } }, ...rest)
    })
  },
  {
    law: "never over",
    without: "what was spent before a resize",
    scope: "resize",
    moves: 4,
    in: "Cap.setRule",
    by: Fault.instead(
      (setRule: (cap: object, rule: object) => unknown) => (cap: object, rule: { readonly capacity: number }) => {
        const set = setRule(cap, rule)
        Object.assign(set ?? cap, { level: rule.capacity })
        return set
      }
    )
  },
  {
    law: "what is held is given back",
    without: "the end of a call whose caller is gone",
    scope: "places",
    moves: 4,
    in: "budget/Pool.cancel",
    by: Fault.never(Fault.leading(Fault.calling("settle")))
  },
  {
    law: "what is held is given back",
    without: "the loss of what a full bucket cannot hold",
    scope: "bucket",
    moves: 3,
    in: "Cap.settle",
    by: Fault.through(Fault.operating("-", Fault.saying("capacity")), (room: number) => room + 1)
  },
  {
    law: "what is held is given back",
    without: "the rule that only the first end of a call counts",
    scope: "bucket",
    moves: 2,
    in: "line/Line.end",
    by: Fault.never(Fault.returning("false"))
  },
  {
    law: "nobody fits and waits",
    without: "a decision when the first caller leaves",
    scope: "bucket",
    moves: 4,
    in: "line/Line.leave",
    by: Fault.never(Fault.leading(Fault.calling("decide")))
  },
  {
    law: "everybody is served",
    without: "a refusal if a quota lacks a single token",
    scope: "quota",
    moves: 3,
    in: "budget/Pool.admit",
    by: Fault.always(Fault.deciding("quota"))
  },
  {
    law: "somebody looks in time",
    without: "a timer at the right millisecond",
    scope: "dimensions",
    moves: 2,
    in: "budget/Pool",
    by: Fault.instead((Pool: MakePool) => {
      return class extends Pool {
        constructor({ after, ...options }: PoolOptions) {
          super({ ...options, after: (millis: number, then: unknown) => after(millis + 1, then) })
        }
      }
    })
  },
  {
    law: "everybody is served",
    without: "an end of the wait for a probe",
    scope: "probes",
    moves: 8,
    in: "Pacer.decide",
    by: Fault.instead((decide: Decide) => (law: Gated, charge: object, now: number) => {
      const { allowed, misses, probes, until } = law.gate
      const isProbed = now >= until && misses > 1 && probes >= allowed
      return isProbed ? { millis: 1, by: "pause" } : decide(law, charge, now)
    })
  },
  {
    law: "in order",
    without: "an agent's own order",
    scope: "bucket",
    moves: 3,
    in: "FairQueue.push",
    by: Fault.instead((push: (entry: object, front: boolean) => void) => (entry: object, front: boolean) => {
      push(entry, !front)
    })
  },
  {
    law: "in order",
    without: "priorities",
    scope: "priorities",
    moves: 4,
    in: "FairQueue",
    by: Fault.through(Fault.operating(">", Fault.saying("priority"), Fault.saying("priority")), (isFirst: boolean) => {
      return !isFirst
    })
  },
  {
    law: "in order",
    without: "the rule that nobody overtakes the head",
    scope: "shares",
    moves: 5,
    in: "Group.join",
    by: Fault.through(Fault.calling("Math.max"), () => 0)
  },
  {
    law: "fairly",
    without: "the cost of calls in its tags",
    scope: "shares",
    moves: 8,
    in: "Group.charge",
    by: Fault.dropped(Fault.operating("+="))
  },
  {
    law: "nothing goes in a pause",
    without: "the last millisecond of a pause",
    scope: "ramp",
    moves: 4,
    in: "Pacer.decide",
    by: Fault.instead((decide: Decide) => (law: Gated, charge: object, now: number) => {
      const { until } = law.gate
      if (now >= until) return decide(law, charge, now)
      return now < until - 1 ? { millis: until - 1 - now, by: "pause" } : decide(law, charge, until)
    })
  }
]

describe("a shortest history shows", () => {
  for (const twin of twins) {
    const { law, moves, scope, without } = twin
    it.effect(`"${law}" broken by a pool without ${without}`, () =>
      Fault.notices(twin, (take) =>
        Effect.gen(function* () {
          const code: Code = {
            ...(yield* take<Pick<Code, "Pool">>("budget/pool.ts")),
            Pacer: yield* take<Code["Pacer"]>("pacing/pacer.ts"),
            Waker: yield* take<Code["Waker"]>("line/waker.ts")
          }
          const found = Search.search(code, scopes[scope], { depth: moves + 1 })
          const { law: broken, history = [] } = found.broken ?? {}
          const says = Search.describe(found)
          if (broken !== law || history.length !== moves) return `${law}, ${moves} moves: ${says}`
          assert.isUndefined(Search.judge(library, replay(library, scopes[scope], history), history), says)
          return undefined
        })
      )
    )
  }
})
