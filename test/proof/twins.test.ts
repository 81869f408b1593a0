/**
 * The search finds what it looks for: each law has a twin of the code that is off by one, or lacks one thing, and a
 * shortest history shows it. The same history breaks nothing in the library.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { copy, type Mutant } from "../support/mutant.ts"
import { type Code, library, replay } from "./play.ts"
import { type ScopeName, scopes } from "./scopes.ts"
import * as Search from "./search.ts"

interface Twin extends Mutant {
  readonly law: Search.LawName
  readonly scope: ScopeName
  /** The moves of the shortest history. */
  readonly moves: number
}

const twins: ReadonlyArray<Twin> = [
  {
    law: "everybody is served",
    without: "a guard around each caller that resumes",
    scope: "harms",
    moves: 3,
    file: "budget/waker.ts",
    from: "        report(scheduler, error)\n",
    to: "        throw error\n"
  },
  {
    law: "nobody harms another",
    without: "a report of what a caller throws",
    scope: "harms",
    moves: 3,
    file: "budget/waker.ts",
    from: "        report(scheduler, error)\n",
    to: ""
  },
  {
    law: "nobody harms another",
    without: "a task of its own for a caller that resumes",
    scope: "harms",
    moves: 3,
    file: "budget/waiter.ts",
    from: "if (resume !== undefined) wake(() => resume(answer))",
    to: "if (resume !== undefined) resume(answer)"
  },
  {
    law: "closed is closed",
    without: "an end of the wait of those who came before",
    scope: "harms",
    moves: 3,
    file: "budget/pool.ts",
    from: "      this.answer(waiter, Effect.interrupt)\n",
    to: ""
  },
  {
    law: "never over",
    without: "the last token of a charge",
    scope: "bucket",
    moves: 3,
    file: "admission/cap.ts",
    from: "let missing = Math.min(needed, rule.capacity) - level",
    to: "let missing = Math.min(needed, rule.capacity) - level - 1"
  },
  {
    law: "never over",
    without: "the last place",
    scope: "places",
    moves: 2,
    file: "budget/permits.ts",
    from: "return this.limit - this.taken + this.atHand",
    to: "return this.limit - this.taken + this.atHand + 1"
  },
  {
    law: "never over",
    without: "the last token of a window",
    scope: "window",
    moves: 3,
    file: "admission/cap.ts",
    from: "let over = charge - max - max * rounding",
    to: "let over = charge - max - 1"
  },
  {
    law: "never over",
    without: "what was spent before a resize",
    scope: "resize",
    moves: 3,
    file: "admission/cap.ts",
    from: "cap.level = Math.min(rule.capacity, cap.level + grown)",
    to: "cap.level = rule.capacity"
  },
  {
    law: "what is held is given back",
    without: "the end of a call whose caller has gone",
    scope: "places",
    moves: 4,
    file: "budget/pool.ts",
    from: 'if (waiter.granted !== undefined) return this.settle(waiter.granted, Amounts.nothing, "failure")',
    to: "if (waiter.granted !== undefined) return"
  },
  {
    law: "what is held is given back",
    without: "the loss of what a full bucket cannot hold",
    scope: "bucket",
    moves: 3,
    file: "admission/cap.ts",
    from: "Math.max(0, rule.capacity - high)",
    to: "Math.max(0, rule.capacity - high + 1)"
  },
  {
    law: "what is held is given back",
    without: "a first end that counts alone",
    scope: "bucket",
    moves: 2,
    file: "budget/pool.ts",
    from: "if (!held.isOpen) return false",
    to: ""
  },
  {
    law: "nobody fits and waits",
    without: "a look when the first caller leaves",
    scope: "bucket",
    moves: 4,
    file: "budget/pool.ts",
    from: "if (wasHead) this.drain()",
    to: "if (!wasHead) this.drain()"
  },
  {
    law: "everybody is served",
    without: "a refusal by a quota that lacks one",
    scope: "quota",
    moves: 3,
    file: "budget/pool.ts",
    from: "asked <= cap.level * (1 + 1e-9)",
    to: "asked <= cap.level + 1"
  },
  {
    law: "somebody looks in time",
    without: "the right millisecond",
    scope: "dimensions",
    moves: 2,
    file: "budget/pool.ts",
    from: "const sleep = Math.ceil(millis)",
    to: "const sleep = Math.ceil(millis) + 1"
  },
  {
    law: "everybody is served",
    without: "an end of the wait for a probe",
    scope: "probes",
    moves: 8,
    file: "admission/gate.ts",
    from: "if (left > 0) return left",
    to: "if (left > -Infinity) return Math.max(1, left)"
  },
  {
    law: "in order",
    without: "an agent's own order",
    scope: "bucket",
    moves: 3,
    file: "admission/fairQueue.ts",
    from: "this.link(flow, entry, front)",
    to: "this.link(flow, entry, !front)"
  },
  {
    law: "in order",
    without: "priorities",
    scope: "priorities",
    moves: 4,
    file: "admission/fairQueue.ts",
    from: "a.priority > b.priority",
    to: "a.priority < b.priority"
  },
  {
    law: "in order",
    without: "the place of the head that is waited for",
    scope: "shares",
    moves: 5,
    file: "admission/fairQueue.ts",
    from: "Math.max(flow.start + flow.owed, level.heap[0]?.start ?? 0)",
    to: "0"
  },
  {
    law: "fairly",
    without: "the cost of a call",
    scope: "shares",
    moves: 8,
    file: "admission/fairQueue.ts",
    from: "flow.start += step + flow.owed",
    to: "flow.start += flow.owed"
  },
  {
    law: "nothing goes in a pause",
    without: "its last millisecond",
    scope: "ramp",
    moves: 4,
    file: "admission/gate.ts",
    from: "if (now < gate.until) return gate.until - now",
    to: "if (now < gate.until - 1) return gate.until - 1 - now"
  }
]

describe("a shortest history shows", () => {
  for (const twin of twins) {
    const { law, moves, scope, without } = twin
    it.effect(`"${law}" broken by a pool without ${without}`, () =>
      Effect.gen(function* () {
        const take = yield* copy(twin)
        const code: Code = {
          ...(yield* take<Pick<Code, "Pool">>("budget/pool.ts")),
          Law: yield* take<Code["Law"]>("admission/law.ts"),
          Waker: yield* take<Code["Waker"]>("budget/waker.ts")
        }
        const found = Search.search(code, scopes[scope], { depth: moves + 1 })
        const { law: broken, history = [] } = found.broken ?? {}
        const says = Search.describe(found)
        assert.deepStrictEqual([broken, history.length], [law, moves], says)
        assert.isUndefined(Search.judge(library, replay(library, scopes[scope], history), history), says)
      })
    )
  }
})
