/** A running tree: a line whose law counts agents (`sharing/tree.ts`). Nobody waits in it, except for the store. */
import * as Clock from "effect/Clock"
import type * as Tree from "../domain/tree.ts"
import { Hold } from "../line/hold.ts"
import { type Law, Refused } from "../line/law.ts"
import { Line } from "../line/line.ts"
import type { Paying } from "../money/paying.ts"
import { Looks, type Port, type PortOptions } from "../sharing/port.ts"
import { configure } from "../sharing/state.ts"
import * as Trees from "../sharing/tree.ts"
import * as Turns from "../sharing/turns.ts"
import { utcAt } from "../sharing/utc.ts"
import type { AgentInTree, TreeStatus } from "./models.ts"
import type { TreeSpending } from "./spending.ts"

/** The store of the tree did not answer, or what is stored cannot be read. */
export interface TreeLost {
  readonly by: "store"
  readonly cause: unknown
}

interface TreeTerms {
  readonly state: Trees.TreeState
  readonly ask: Trees.CallingAgent
  readonly grant: { readonly agent: Trees.CallingAgent; readonly seen: Trees.SeenAgent }
  readonly refusal: Tree.TreeExcess | TreeLost
}

/** A call of an agent in its tree. */
export class TreeHold extends Hold<TreeTerms> {
  readonly tree: RunningTree

  constructor(tree: RunningTree, paying: Paying, agent: Trees.CallingAgent) {
    super(paying, 1, agent, paying.wake)
    this.tree = tree
  }
  /** The call has ended, whatever it cost. If it waits, it leaves. */
  settle(): void {
    this.tree.settle(this)
  }
}

const law: Law<TreeTerms, TreeHold> = {
  expires: false,
  admit: (draft, id, { ask: agent }, _weight, now) => {
    const answer = Trees.admit(draft, agent, now)
    if ("by" in answer) return new Refused(answer)
    Trees.count(draft, id, agent, answer, 1, now)
    return { agent, seen: answer }
  },
  wait: (draft, id) => Turns.wait(draft, id, undefined),
  release: (draft, id, { agent, seen }, now) => Trees.count(draft, id, agent, seen, -1, now)
}

/** How many agents a status lists. */
const maxListed = 1_000

export interface TreeOptions {
  readonly name: string
  readonly spending: TreeSpending
  readonly open: (called: Pick<PortOptions, "configured" | "unreachable">) => Port<Trees.TreeState>
}

export class RunningTree {
  readonly name: string
  readonly spending: TreeSpending
  readonly port: Port<Trees.TreeState>
  /** The clock of the latest caller, which a tree of this process goes by. */
  clock: Clock.Clock = Clock.Clock.defaultValue()
  private readonly line: Line<TreeTerms, TreeHold>
  private refused = 0
  private readonly looks = new Looks()

  constructor({ name, open, spending }: TreeOptions) {
    this.name = name
    this.spending = spending
    this.port = open({
      configured: () => {},
      unreachable: (cause) => this.line.clear({ by: "store", cause })
    })
    this.line = new Line(this.port, law, { granted: () => {}, refused: () => void this.refused++ })
  }

  /** The refusal of a call, if it is known. With a store, only a decision knows. */
  refusal(agent: Trees.CallingAgent): Tree.TreeExcess | undefined {
    const { lag, state } = this.port
    if (lag > 0) return undefined
    const answer = Trees.admit(state, agent, this.port.now())
    if (!("by" in answer)) return undefined
    this.refused++
    return answer
  }

  /** Admits a call of an agent at once if the agent is known, and otherwise asks the state that processes share. */
  take(paying: Paying, agent: Trees.CallingAgent): TreeHold {
    const hold = new TreeHold(this, paying, agent)
    const { id, state } = this.port
    const seen = state.config.stop === "calls" ? undefined : Trees.agentOf(state, agent.name)
    if (seen === undefined) return this.line.ask(hold)
    this.port.transact((draft, now) => Trees.count(draft, id, agent, seen, 1, now))
    this.line.pass(hold, { agent, seen })
    return hold
  }

  /** Starts an agent that no call has named, as a call that lasts until its end. */
  start(paying: Paying, key: string, parent: string | undefined): TreeHold {
    return this.line.ask(new TreeHold(this, paying, { name: this.nameOf(key, parent), parent }))
  }

  /** Names an agent that starts: by its way from the root, and its number where that is not new. */
  private nameOf(key: string, parent: string | undefined): string {
    const { id, outlives, state } = this.port
    const way = `${parent === undefined ? "" : `${parent}/`}${key}${outlives ? `@${id}` : ""}`
    let name = way
    for (let number = 2; Trees.agentOf(state, name) !== undefined; number++) name = `${way} ${number}`
    return name
  }

  /** Ends a call. Only the first end counts. */
  settle(hold: TreeHold): void {
    this.line.settle(hold, (draft, id, now) => {
      const { agent, seen } = hold.grant!
      Trees.count(draft, id, agent, seen, -1, now)
      return 1
    })
  }

  /** Ends an agent that was started. */
  end(hold: TreeHold): void {
    this.line.settle(hold, (draft, id, now) => {
      const { agent, seen } = hold.grant!
      Trees.end(draft, id, agent, seen, now)
      return 1
    })
  }

  configure(change: Partial<Tree.CapsInForce>): void {
    this.port.transact((draft) => configure(draft, { ...draft.config, ...change }))
  }

  /** As of the last exchange with the store. If that is long ago, another one follows. */
  get status(): TreeStatus {
    const { list, port, refused, spending } = this
    const state = this.looks.look(port)
    const { caps, stop } = state.config
    const counts = Trees.countsOf(state, port.now())
    return { ...counts, caps: { ...caps, ...spending.caps }, stop, refused, ...spending.status, list }
  }

  private get list(): ReadonlyArray<AgentInTree> {
    const utc = utcAt(this.port.state, this.port.now())
    return Array.from(Trees.agentsOf(this.port.state))
      .sort(([, one], [, other]) => one.since - other.since || one.depth - other.depth)
      .slice(0, maxListed)
      .map(([name, seen]) => ({
        name,
        parent: seen.parent,
        depth: seen.depth,
        since: seen.since,
        isRunning: Trees.isRunning(seen, utc)
      }))
  }
}
