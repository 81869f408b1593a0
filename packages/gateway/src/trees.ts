/** The jobs whose agents and spending a rule caps, and what an operator has stopped. */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import type * as Governor from "floodgate/Governor"
import type * as Spending from "floodgate/Spending"
import * as Trees from "floodgate/Trees"
import { Amounts, History, Lineage, type LineOf, Lru, treeLine, treePurses } from "floodgate/internal"
import type { CallRequest } from "floodgate/fetch"
import { digestOf, idOf, suffixOf } from "./names.ts"
import type { JobTree, JobUse } from "./page/status.ts"
import type { CallerKey } from "./purses.ts"
import type { Mutable } from "./series.ts"
import type { Rule } from "./settings/values.ts"

/** How many jobs are kept. Callers can invent them, so at this number new ones are refused unless one is idle. */
const maxJobs = 1_000
/** How long after its last call a job may be needed again, as for its agents. */
const idleMillis = 300_000
/** How many of its agents are shown. */
const maxListed = 100
/** A part of a cap at which a log line warns. */
const warnAt = 0.8

/** The caps that fill up. */
const filled = ["agents", "atOnce", "perHour", "tokens", "dollars", "calls"] as const
type Filled = (typeof filled)[number]

const usedOf = (status: Trees.TreeStatus, cap: Filled): number =>
  cap === "tokens" || cap === "dollars" || cap === "calls" ? (status.spent[cap] ?? 0) : status[cap]

/** The part of a cap that a job has used. */
const partOf = (status: Trees.TreeStatus, cap: Filled): number => usedOf(status, cap) / (status.caps[cap] ?? Infinity)

/** All jobs in numbers. */
export interface JobCapFigures {
  /** New agents that were refused. */
  readonly refused: number
  /** The largest part of each cap that a job has used in which something runs. */
  readonly used: ReadonlyArray<readonly [cap: string, part: number]>
}

interface OpenTree {
  readonly id: string
  readonly tree: Trees.Tree
  readonly close: () => void
  /** The use of each agent; of calls that name none by the empty name. */
  readonly used: Map<string, Mutable<JobUse>>
  caps: Trees.JobCaps
  /** The caps of which the log has a line. */
  readonly warned: Set<Filled>
  /** When a call last asked. */
  usedAt: number
  /** The number of its calls whose answer has not begun. */
  calls: number
}

const unused: JobUse = { tokens: 0, dollars: 0, waitedMillis: 0 }

/** A change by an operator. */
export interface JobChange {
  readonly job: string
  readonly stop: "none" | "agents" | "calls"
}

/** A call of an agent in its job. */
export class JobSeat {
  readonly line: LineOf
  private readonly job: OpenTree
  private readonly agent: string

  constructor(job: OpenTree, agent: string | undefined, parent: string | undefined) {
    this.job = job
    this.agent = agent ?? ""
    this.line = treeLine(job.tree, { name: agent, parent })
  }

  /** The purses from which all calls of the job pay. */
  get purses(): ReadonlyArray<Spending.Purse> {
    return treePurses(this.job.tree)
  }

  /** Keeps the job open until `leave`. */
  enter(): void {
    this.job.calls++
  }
  leave(): void {
    this.job.calls--
  }

  /** Only calls that were admitted have a use, so there are no more of these than the cap on agents allows. */
  private get use(): Mutable<JobUse> {
    const { used } = this.job
    const known = used.get(this.agent) ?? { ...unused }
    used.set(this.agent, known)
    return known
  }

  billed({ actual, dollars }: Parameters<NonNullable<Governor.CallOptions["onBilled"]>>[0]): void {
    const { use } = this
    use.tokens += Amounts.promptTokens(actual) + actual.outputTokens
    use.dollars += dollars ?? 0
  }

  /** A call that was sent has waited. */
  waited(millis: number): void {
    this.use.waitedMillis += millis
  }
}

/** The jobs of a gateway's callers. It is mutable. */
export class JobTrees {
  private readonly open = new Lru.Registry<string, OpenTree>(
    (job) => this.isIdle(job),
    ({ close, tree }) => {
      this.refused += this.read(tree.status).refused
      close()
    }
  )
  /** Agents of closed trees. */
  private refused = 0
  /** Refuses the calls of jobs for which there is no room. */
  private readonly full: OpenTree
  private readonly read: <A>(effect: Effect.Effect<A>) => A
  private readonly context: Context.Context<never>
  /** Remembers which agent has started which, for advice. */
  private readonly history: typeof History.Service
  /** The scope of the gateway, in which trees are open. */
  private readonly scope: Scope.Scope

  constructor(context: Context.Context<never>, scope: Scope.Scope) {
    this.context = context
    this.history = Context.get(context, History)
    this.scope = scope
    this.read = Effect.runSyncWith(context)
    this.full = openTree("", Trees.make(`every job beyond the first ${maxJobs} that run`), {}, () => {})
    this.read(this.full.tree.stop("calls"))
  }

  /** The seat of the agent of a request in its job; undefined if no rule caps that, or nothing names a job or an agent. */
  of(
    matching: ReadonlyArray<Rule>,
    { agent, header, job: named, session }: Omit<CallRequest, "body">,
    job: string,
    key: CallerKey
  ): JobSeat | undefined {
    const rule = matching.find(({ capPerJob }) => capPerJob !== undefined)
    const parent = Lineage.parentOf(header, agent, session)
    if (agent !== undefined && parent !== undefined) this.history?.started(agent, parent)
    if (rule === undefined || (agent === undefined && named === undefined)) return undefined
    return new JobSeat(this.jobOf(key, job, rule), agent, parent)
  }

  /** Calls of one job to which different rules apply have caps beside each other. */
  private jobOf({ hash, name }: CallerKey, job: string, rule: Rule): OpenTree {
    const { capPerJob: caps = {} } = rule
    const id = digestOf(JSON.stringify([hash, job, idOf(rule)])).slice(0, idLength)
    const now = this.read(Clock.currentTimeMillis)
    const known = this.open.use(id)
    if (known !== undefined) {
      if (known.caps !== caps) this.read(known.tree.resize(caps))
      known.caps = caps
      known.usedAt = now
      return known
    }
    this.open.shed(maxJobs - 1)
    if (this.open.size >= maxJobs) return this.full
    const inner = this.read(Scope.fork(this.scope))
    const opened = Trees.open(`the job ${job} of ${name}${suffixOf(rule)}`, caps, { key: id })
    const tree = this.read(Effect.provideService(opened, Scope.Scope, inner))
    const close = () => void Effect.runForkWith(this.context)(Scope.close(inner, Exit.void))
    const made = { ...openTree(id, tree, caps, close), usedAt: now }
    this.open.set(id, made)
    return made
  }

  /** Whether no agent of it runs, and no call that names none has asked or reserved anything for as long. */
  private isIdle({ calls, tree, usedAt }: OpenTree): boolean {
    const { atOnce, reserved } = this.read(tree.status)
    const isCalm = atOnce === 0 && calls === 0 && Object.values(reserved).every((amount) => amount === 0)
    return isCalm && this.read(Clock.currentTimeMillis) >= usedAt + idleMillis
  }

  /** Warns of the jobs that have used most of a cap, once for each. */
  review(): void {
    for (const job of this.open.values()) this.warn(job)
  }

  private warn(job: OpenTree): void {
    const { id, tree, warned } = job
    const status = this.read(tree.status)
    for (const cap of filled) {
      if (warned.has(cap) || partOf(status, cap) < warnAt) continue
      warned.add(cap)
      const event = { event: "jobCap", job: tree.name, id, cap, used: usedOf(status, cap), limit: status.caps[cap] }
      Effect.runForkWith(this.context)(Effect.logWarning(event))
    }
  }

  /** Stops a job, or lets it go on; undefined if there is none with this id. */
  change({ job, stop }: JobChange): JobTree | undefined {
    const found = this.open.get(job)
    if (found === undefined) return undefined
    const { tree } = found
    this.read(stop === "none" ? tree.resume : tree.stop(stop))
    return this.statusOf(found)
  }

  private statusOf({ id, tree, used, usedAt }: OpenTree): JobTree {
    const status = this.read(tree.status)
    const list = status.list.slice(0, maxListed).map((agent) => ({ ...agent, ...unused, ...used.get(agent.name) }))
    return { id, name: tree.name, usedAt, ...status, list, ...sumOf(used.values()) }
  }

  get figures(): JobCapFigures {
    const all = [this.full, ...this.open.values()].map((job) => ({ job, status: this.read(job.tree.status) }))
    const running = all.filter(({ job }) => !this.isIdle(job))
    return {
      refused: all.reduce((sum, { status }) => sum + status.refused, this.refused),
      used: filled.map((cap) => [cap, Math.max(0, ...running.map(({ status }) => partOf(status, cap)))])
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

const openTree = (id: string, tree: Trees.Tree, caps: Trees.JobCaps, close: () => void): OpenTree => ({
  id,
  tree,
  close,
  used: new Map(),
  caps,
  warned: new Set(),
  usedAt: 0,
  calls: 0
})

const sumOf = (uses: Iterable<JobUse>): JobUse => {
  const sum = { ...unused }
  for (const { dollars, tokens, waitedMillis } of uses) {
    sum.tokens += tokens
    sum.dollars += dollars
    sum.waitedMillis += waitedMillis
  }
  return sum
}
