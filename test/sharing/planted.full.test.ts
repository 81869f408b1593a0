/** Storms must notice each of these bugs, planted in the store, in the port to it, and in the steps of a shared state. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fault from "../support/fault.ts"
import { some } from "../support/size.ts"
import * as Storm from "./storm.ts"
import * as World from "./world.ts"

interface Bug {
  /** What is broken. */
  readonly without: string
  /** The first of the seeds that show it; some take more than are tried here. */
  readonly seed?: number
  readonly isLossyStore?: boolean
  /** Whether only callers that give up and processes that stand still show it. */
  readonly isRough?: boolean
}

interface StoreBug extends Bug {
  readonly code: World.Code
}

const storeBugs: ReadonlyArray<StoreBug> = [
  { without: "a comparison of versions", code: World.comparingNothing },
  {
    without: "an answer that another process was faster",
    code: World.swapping((store) => (name, expected, next, keepMillis) => {
      return Effect.as(store.swap(name, expected, next, keepMillis), next)
    })
  }
]

interface CodeBug extends Bug, Fault.Fault {}

interface Owner {
  readonly at: number
}

/** Each sixth is one that a few seeds show: `npm test` plants those. */
const codeBugs: ReadonlyArray<CodeBug> = [
  {
    without: "what is known and the store has lost",
    in: "StoreLoss.merge",
    by: Fault.instead(() => (_kind: object, _ours: object, found: object) => found),
    seed: 278,
    isLossyStore: true
  },
  {
    without: "an end of what was committed: it is played twice",
    in: "Replica",
    by: Fault.dropped(Fault.calling("splice"))
  },
  {
    without: "a check that a call still goes in time",
    in: "SharedPort",
    by: Fault.through(Fault.operating(">", Fault.operating("-"), Fault.saying("lag")), () => false)
  },
  {
    without: "the end of the calls of a process that has died",
    in: "Processes.absorb",
    by: Fault.instead(() => () => {})
  },
  {
    without: "a look whether a commit was stored whose reply was lost",
    in: "Replica",
    by: Fault.through(Fault.operating("===", Fault.saying("seq")), () => false)
  },
  {
    without: "what is kept for a process that is cut off",
    in: "Members.keepParts",
    by: Fault.never(Fault.deciding("part")),
    seed: 2400
  },
  {
    without: "the return of what was kept of a quota",
    in: "Members.takeBack",
    by: Fault.dropped(Fault.giving("-1"))
  },
  {
    without: "the return of a place whose caller had left when it was granted",
    in: "line/Line.played",
    by: Fault.dropped(Fault.calling("transact")),
    isRough: true
  },
  {
    without: "the memory of a process that was taken for dead",
    in: "Processes.isOver",
    by: Fault.instead((isOver: (owner: Owner, now: number) => boolean) => (owner: Owner, now: number) => {
      return isOver(owner, now + 600_000)
    }),
    seed: 61
  },
  {
    without: "the memory that somebody has left",
    in: "StoreLoss.includes",
    by: Fault.through(Fault.operating("<=", undefined, Fault.saying("forgotten")), () => false),
    seed: 2754,
    isLossyStore: true
  },
  {
    without: "an end of what a process no longer knows of",
    in: "Processes.retract",
    by: Fault.instead(() => () => {}),
    seed: 372_873,
    isLossyStore: true
  },
  {
    without: "a guard around each caller that resumes",
    in: "Waker.make",
    by: Fault.unguarded,
    isRough: true
  },
  {
    without: "a refusal of those who come to a budget that is closed",
    in: "Budget.make",
    by: Fault.never(Fault.returning("Effect.interrupt"))
  }
]

/** Seeds that are tried. */
const maxSeeds = 60

const redis = await World.redis()

/** Undefined if one of the seeds shows a bug. */
const problemOf = (code: World.Code, { isLossyStore = false, isRough = false, seed: first = 1 }: Bug) => {
  const plan = isRough ? Storm.rougher : Storm.plan
  const shows = (seed: number): boolean => Storm.isBroken(plan(seed, isLossyStore), redis, code)
  const seeds = Array.from({ length: maxSeeds }, (_, n) => first + n)
  return seeds.some(shows) ? undefined : `none of ${maxSeeds} seeds from ${first} on shows it`
}

describe("storms show a fleet", { timeout: 180_000 }, () => {
  for (const bug of some(storeBugs, 2)) {
    it(`of a store without ${bug.without}`, () => assert.isUndefined(problemOf(bug.code, bug)))
  }

  for (const bug of some(codeBugs, 6)) {
    it.effect(`without ${bug.without}`, () =>
      Fault.notices(bug, (take) => Effect.map(World.codeOf(take), (code) => problemOf(code, bug)))
    )
  }

  it("and the smallest plan that does", () => {
    const complaint = Storm.complaint(Storm.plan(3), redis, World.comparingNothing)
    assert.include(complaint, "npm run storms -- --from 3 --seeds 1")
    assert.include(complaint, "events: []")
  })
})
