/** The agent of a call in a tree, as a line that the call takes before its pool; and why it is refused. */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Scheduler from "effect/Scheduler"
import * as Schema from "effect/Schema"
import * as Budget from "../Budget.ts"
import { ownerOf } from "../budget/options.ts"
import type { CountedJob, LineOf, Starter } from "../call/lines.ts"
import { perUnit, type Unit } from "../domain/spending/ledger.ts"
import { counted, dollars } from "../domain/words.ts"
import type { Purse } from "../domain/spending/models.ts"
import * as Waker from "../line/waker.ts"
import type { CapRefusal } from "../sharing/ledger.ts"
import type { CallingAgent } from "../sharing/tree.ts"
import type { Tree } from "./models.ts"
import type { RunningTree, TreeHold } from "./running.ts"

// -----------------------------------------------------------------------------
// Errors
// -----------------------------------------------------------------------------

/** The caps in words. */
const words: Readonly<Record<"agents" | "atOnce" | "perHour" | "depth", (limit: number) => string>> = {
  agents: (limit) => `at most ${counted(limit, "agent")} in all`,
  atOnce: (limit) => `at most ${counted(limit, "agent")} at once`,
  perHour: (limit) => `at most ${counted(limit, "new agent")} an hour`,
  depth: (limit) => (limit === 0 ? "no sub-agents" : `agents at most ${counted(limit, "level")} deep`)
}

/** The amounts of a cap in words. */
const amounts: Readonly<Record<Unit, (amount: number) => string>> = {
  dollars,
  tokens: (amount) => counted(amount, "token"),
  calls: (amount) => counted(amount, "call")
}

/** Advice for the agent that started the refused one. */
const advice: Readonly<Record<keyof typeof words, string>> = {
  agents: "do the rest yourself, or with the agents that run",
  atOnce: "wait until one of them has ended, or do this yourself",
  perHour: "do this yourself, or start it later",
  depth: "do this yourself instead of starting an agent"
}

/**
 * The call is the first of an agent that a cap of its job refuses, or an operator has stopped the job (`by` is `"stop"`). `until` is
 * when the agent would fit, in milliseconds since the epoch, where that is known. It is the `cause` of a `BudgetError` with the reason
 * `Denied`.
 *
 * @stability unstable
 * @category errors
 * @since 0.5.0
 */
export class TreeCapReached extends Schema.TaggedError<TreeCapReached>("floodgate/Trees/TreeCapReached")(
  "TreeCapReached",
  {
    tree: Schema.String,
    /** Empty if the call names none. */
    agent: Schema.String,
    by: Schema.Literals(["agents", "atOnce", "perHour", "depth", "stop"]),
    limit: Schema.Finite,
    until: Schema.optional(Schema.Finite)
  }
) {
  /** A retry does not help before another agent has ended, and each retry would be refused as an agent of its own. */
  get isRetryable(): boolean {
    return false
  }
  override get message(): string {
    const { agent, by, limit, tree, until } = this
    if (by === "stop") {
      const call = agent === "" ? "The call" : `The call of agent ${agent}`
      return `${call} was not sent, because ${tree} was stopped: end your work now`
    }
    const when = until === undefined ? "" : `; one more may start at ${new Date(until).toISOString()}`
    return `${tree} may have ${words[by](limit)}, so agent ${agent} may not start: ${advice[by]}${when}`
  }
}

/**
 * The job has too little left of a cap on tokens, dollars or calls, whichever of its agents calls; or running calls have reserved what is
 * left for longer than the call may wait. Amounts are in the unit of the cap. It is the `cause` of a `BudgetError` with the reason `Denied`.
 *
 * @stability unstable
 * @category errors
 * @since 0.5.0
 */
export class TreeSpent extends Schema.TaggedError<TreeSpent>("floodgate/Trees/TreeSpent")("TreeSpent", {
  tree: Schema.String,
  unit: Schema.Literals(["tokens", "dollars", "calls"]),
  /** The amount to reserve: with `reserve: "most"` the most that the call can use. */
  asked: Schema.Finite,
  spent: Schema.Finite,
  /** The amount that running calls have reserved. */
  reserved: Schema.Finite,
  limit: Schema.Finite
}) {
  /** Whether the call fits when running calls have given back what they have reserved. */
  get isRetryable(): boolean {
    return this.spent + this.asked <= this.limit
  }
  override get message(): string {
    const { asked, limit, reserved, spent, tree, unit } = this
    const words = amounts[unit]
    const running = reserved > 0 ? ` (running calls have reserved ${words(reserved)})` : ""
    const call =
      unit === "calls" ? "no further call was sent" : `this call, which may use ${words(asked)}, was not sent`
    const advice = this.isRetryable ? "run fewer calls at once" : "end your work with what you have"
    const lower = unit === "calls" ? "" : ", lower max_tokens"
    return `${tree} has spent ${words(spent)} of the ${words(limit)} that it may${running}, so ${call}: ${advice}${lower}, or let an operator raise the cap`
  }
}

/** The error of a refusal by a ledger of a tree. */
export const spentOf =
  (tree: string, unit: Unit) =>
  ({ asked, cap, held, left }: CapRefusal): TreeSpent => {
    const per = perUnit[unit]
    return new TreeSpent({
      tree,
      unit,
      asked: asked / per,
      spent: Math.max(0, cap.limit - left) / per,
      reserved: held / per,
      limit: cap.limit / per
    })
  }

/**
 * The store of a tree did not answer, so it is not known whether a new agent fits. `cause` says why. It is the `cause` of a
 * `BudgetError` with the reason `Denied`.
 *
 * @stability unstable
 * @category errors
 * @since 0.5.0
 */
export class TreeUnavailable extends Schema.TaggedError<TreeUnavailable>("floodgate/Trees/TreeUnavailable")(
  "TreeUnavailable",
  { tree: Schema.String, cause: Schema.Defect() }
) {
  /** The store may answer the next attempt. */
  get isRetryable(): boolean {
    return true
  }
  override get message(): string {
    const { cause, tree } = this
    const why = cause instanceof Error ? `: ${cause.message}` : ""
    return `The store did not say which agents ${tree} has, so the call was not sent${why}`
  }
}

// -----------------------------------------------------------------------------
// The line
// -----------------------------------------------------------------------------

const denied = (cause: TreeCapReached | TreeUnavailable): Budget.BudgetError =>
  new Budget.BudgetError({ reason: new Budget.Denied({ cause }) })

/** Why an agent may not start. */
export type TreeRefusal = TreeCapReached | TreeUnavailable

const refusalOf = ({ name: tree }: RunningTree, agent: string | undefined, by: TreeHold["refusal"]): TreeRefusal =>
  by === undefined || by.by === "store"
    ? new TreeUnavailable({ tree, cause: by?.cause })
    : new TreeCapReached({ tree, agent: agent ?? "", ...by })

/** The internals of a tree. */
export interface TreeInternals extends CountedJob<TreeRefusal> {
  readonly running: RunningTree
}

export const internalsOf = (running: RunningTree): TreeInternals => ({
  running,
  starter: starterOf(running, undefined),
  get purses() {
    return running.spending.purses
  }
})

const internals = (tree: Tree): TreeInternals => tree.internals as TreeInternals

/** The purses from which every call of a tree pays. */
export const pursesOf = (tree: Tree): ReadonlyArray<Purse> => internals(tree).purses

/** The line of an agent of a tree. */
export const lineOf = (tree: Tree, agent: CallingAgent): LineOf => lineIn(internals(tree).running, agent)

/** The line of an agent that may start others. */
export const seatOf = (tree: Tree, agent: CallingAgent): LineOf => seatIn(internals(tree).running, agent)

const lineIn = (running: RunningTree, agent: CallingAgent): LineOf => {
  const denial = (refusal: TreeHold["refusal"]): Budget.BudgetError => denied(refusalOf(running, agent.name, refusal))
  return ({ clock, paying }) => {
    running.clock = clock
    let hold: TreeHold
    return {
      refused: () => {
        const refusal = running.refusal(agent)
        return refusal && denial(refusal)
      },
      take: () => (hold = running.take(paying, agent)),
      ended: () => denial(hold.refusal)
    }
  }
}

const seatIn = (running: RunningTree, agent: CallingAgent): LineOf =>
  Object.assign(lineIn(running, agent), { starter: starterOf(running, agent.name) })

/** Starts agents below one of a tree, or the first ones. */
const starterOf = (running: RunningTree, parent: string | undefined): Starter<TreeRefusal> => ({
  job: running,
  start: (key, context) => {
    running.clock = Context.get(context, Clock.Clock)
    const wake = Waker.make(Context.get(context, Scheduler.Scheduler))
    const hold = running.start({ ...ownerOf(context), wake }, key, parent)
    const { name } = hold.ask
    const decided = Effect.suspend(() =>
      hold.isOpen ? Effect.void : Effect.fail(refusalOf(running, name, hold.refusal))
    )
    // Only a store lets it wait.
    const wait = Effect.callback<void>((resume) => hold.listen(() => resume(Effect.void)))
    return {
      line: seatIn(running, { name, parent }),
      admitted: hold.phase === "waiting" ? Effect.andThen(wait, decided) : decided,
      end: () => running.end(hold)
    }
  }
})
