/** The agents of each job whose callers a rule caps, and what an operator has stopped. */
import * as Clock from "effect/Clock"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import * as Trees from "floodgate/Trees"
import { Lineage, type LineOf, Lru, treeLine } from "floodgate/internal"
import type { CallRequest } from "floodgate/fetch"
import { digestOf } from "./names.ts"
import type { JobTree } from "./page/status.ts"
import type { CallerKey } from "./purses.ts"
import type { Rule } from "./settings/values.ts"

/** How many jobs are kept. Callers can invent them, so at this number new ones are refused unless one is idle. */
const maxJobs = 1_000
/** How many of its agents are shown. */
const maxListed = 100
/** A part of a cap at which a log line warns. */
const warnAt = 0.8

/** The caps that fill up. */
const filled = ["agents", "atOnce", "perHour"] as const

/** The part of a cap that a job has used. */
const partOf = (status: Trees.TreeStatus, cap: (typeof filled)[number]): number =>
  status[cap] / (status.caps[cap] ?? Infinity)

/** The agents of all jobs, in numbers. */
export interface AgentFigures {
  /** New agents that were refused. */
  readonly refused: number
  /** The largest part of each cap that a job has used whose agents run. */
  readonly used: ReadonlyArray<readonly [cap: string, part: number]>
}

interface OpenTree {
  readonly id: string
  readonly tree: Trees.Tree
  readonly close: () => void
  caps: Trees.AgentCaps
  isWarned: boolean
  /** When a call last asked. */
  usedAt: number
}

/** A change by an operator. */
export interface JobChange {
  readonly job: string
  readonly stop: "none" | "agents" | "calls"
}

/** Idle trees are those of jobs in which nothing runs. It is mutable. */
export class JobTrees {
  private readonly open = new Lru.Registry<string, OpenTree>(
    ({ tree }) => this.read(tree.status).atOnce === 0,
    ({ close, tree }) => {
      this.refused += this.read(tree.status).refused
      close()
    }
  )
  /** Agents of closed trees. */
  private refused = 0
  /** Refuses the agents of jobs for which there is no room. */
  private readonly full = Trees.make(`every job beyond the first ${maxJobs} that run`)
  private readonly read: <A>(effect: Effect.Effect<A>) => A
  private readonly context: Context.Context<never>
  /** The scope of the gateway, in which trees are open. */
  private readonly scope: Scope.Scope

  constructor(context: Context.Context<never>, scope: Scope.Scope) {
    this.context = context
    this.scope = scope
    this.read = Effect.runSyncWith(context)
    this.read(this.full.stop("agents"))
  }

  /** The line of the agent of a request in the tree of its job; undefined if no rule caps that, or nothing names an agent. */
  of(
    matching: ReadonlyArray<Rule>,
    { agent, header, session }: Omit<CallRequest, "body">,
    job: string,
    key: CallerKey
  ): LineOf | undefined {
    const caps = matching.find(({ capPerJob }) => capPerJob !== undefined)?.capPerJob
    if (caps === undefined || agent === undefined) return undefined
    const parent = Lineage.parentOf(header, agent, session)
    return treeLine(this.treeOf(key, job, caps), { name: agent, parent })
  }

  private treeOf({ hash, name }: CallerKey, job: string, caps: Trees.AgentCaps): Trees.Tree {
    const id = digestOf(JSON.stringify([hash, job])).slice(0, idLength)
    const usedAt = this.read(Clock.currentTimeMillis)
    const known = this.open.use(id)
    if (known !== undefined) {
      if (known.caps !== caps) this.read(known.tree.resize(caps))
      known.caps = caps
      known.usedAt = usedAt
      return known.tree
    }
    this.open.shed(maxJobs - 1)
    if (this.open.size >= maxJobs) return this.full
    const inner = this.read(Scope.fork(this.scope))
    const opened = Trees.open(`the job ${job} of ${name}`, caps, { key: id })
    const tree = this.read(Effect.provideService(opened, Scope.Scope, inner))
    const close = () => void Effect.runForkWith(this.context)(Scope.close(inner, Exit.void))
    this.open.set(id, { id, tree, close, caps, isWarned: false, usedAt })
    return tree
  }

  /** Warns of the jobs that have most of the agents that they may have, each once. */
  review(): void {
    for (const job of this.open.values()) this.warn(job)
  }

  private warn(job: OpenTree): void {
    if (job.isWarned) return
    const status = this.read(job.tree.status)
    const near = filled.find((cap) => partOf(status, cap) >= warnAt)
    if (near === undefined) return
    job.isWarned = true
    const event = {
      event: "agents",
      job: job.tree.name,
      id: job.id,
      cap: near,
      agents: status[near],
      limit: status.caps[near]
    }
    Effect.runForkWith(this.context)(Effect.logWarning(event))
  }

  /** Stops a job, or lets it go on; undefined if there is none with this id. */
  change({ job, stop }: JobChange): JobTree | undefined {
    const found = this.open.get(job)
    if (found === undefined) return undefined
    const { tree } = found
    this.read(stop === "none" ? tree.resume : tree.stop(stop))
    return this.statusOf(found)
  }

  private statusOf({ id, tree, usedAt }: OpenTree): JobTree {
    const status = this.read(tree.status)
    return { id, name: tree.name, usedAt, ...status, list: status.list.slice(0, maxListed) }
  }

  get figures(): AgentFigures {
    const all = [this.full, ...Array.from(this.open.values(), ({ tree }) => tree)].map((tree) => this.read(tree.status))
    const running = all.filter(({ atOnce }) => atOnce > 0)
    return {
      refused: all.reduce((sum, { refused }) => sum + refused, this.refused),
      used: filled.map((cap) => [cap, Math.max(0, ...running.map((status) => partOf(status, cap)))])
    }
  }

  /** The jobs that called last, those with the most agents first. */
  shown(max: number): ReadonlyArray<JobTree> {
    return [...this.open.values()]
      .sort((one, other) => other.usedAt - one.usedAt)
      .slice(0, max)
      .map((each) => this.statusOf(each))
      .sort((one, other) => other.agents - one.agents)
  }
}

/** 64 bits in hexadecimal digits tell the jobs of a gateway apart. */
const idLength = 16
