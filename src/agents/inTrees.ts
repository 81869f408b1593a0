/** The trees in which the agents of a job are counted. */
import * as Effect from "effect/Effect"
import { type CountedJob, type LineOf, Lines, type Starter } from "../call/lines.ts"
import * as Input from "../domain/input/checks.ts"
import { Purses } from "../domain/spending/models.ts"
import type { Tree } from "../trees/models.ts"
import type { TreeRefusal } from "../trees/seat.ts"

/** Where the agents of a job are counted. */
export interface CountedIn {
  /** The tree of the job, if it is another one than those of the code that starts it. */
  readonly tree: CountedJob<TreeRefusal> | undefined
  readonly starters: ReadonlyArray<Starter<TreeRefusal>>
}

/** Checks the tree of a job. */
export const isTree = Input.that(
  "a tree of Trees.make or Trees.open",
  (value) => ((value as Tree | null)?.internals as CountedJob | undefined)?.starter !== undefined
)

/** Finds the trees in which the agents of a job are counted: that of the job, and those of the code that starts it. */
export const countedIn = (tree: Tree | undefined, lines: ReadonlyArray<LineOf>): CountedIn => {
  const outer = lines.flatMap(({ starter }) => (starter === undefined ? [] : [starter as Starter<TreeRefusal>]))
  const own = tree?.internals as CountedJob<TreeRefusal> | undefined
  if (own === undefined || outer.some(({ job }) => job === own.starter.job)) return { tree: undefined, starters: outer }
  return { tree: own, starters: [...outer, own.starter] }
}

/** Counts an agent where agents are counted, from before its first step until it has ended. */
export const inTrees =
  (key: string, { starters, tree }: CountedIn, started: Effect.Effect<void>) =>
  <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E | TreeRefusal, R> => {
    if (starters.length === 0) return self
    const paying = tree === undefined ? self : Effect.updateService(self, Purses, (all) => [...all, ...tree.purses])
    return starters.reduce<Effect.Effect<A, E | TreeRefusal, R>>(
      (inner, starter) => startedBy(starter, key, inner),
      Effect.andThen(started, paying)
    )
  }

/** The line of the new agent takes the place of that of the agent which starts it. */
const startedBy = <A, E, R, E2>(
  starter: Starter<E2>,
  key: string,
  self: Effect.Effect<A, E, R>
): Effect.Effect<A, E | E2, R> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.withFiber(({ context }) => {
      const { admitted, end, line } = starter.start(key, context)
      const beside = (lines: ReadonlyArray<LineOf>) => lines.filter((each) => each.starter?.job !== starter.job)
      const running = Effect.updateService(self, Lines, (lines) => [...beside(lines), line])
      return Effect.ensuring(restore(Effect.andThen(admitted, running)), Effect.sync(end))
    })
  )
