/** One job: its agents from before their start until all have ended. */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import { constVoid, identity } from "effect/Function"
import * as PubSub from "effect/PubSub"
import * as Queue from "effect/Queue"
import * as Scheduler from "effect/Scheduler"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { latest, tickOf } from "../budget/observer.ts"
import { jobCheck, priority, Uncounted } from "../budget/options.ts"
import { Lines } from "../call/lines.ts"
import * as Concurrency from "../domain/concurrency.ts"
import * as Waker from "../line/waker.ts"
import * as Budget from "../Budget.ts"
import * as Input from "../domain/input/checks.ts"
import { shown } from "../domain/input/shown.ts"
import { dollars, ledgerOf } from "../domain/spending/models.ts"
import * as Spending from "../Spending.ts"
import type { RunningLedger } from "../money/ledger.ts"
import { checkAbout } from "./advise.ts"
import * as Counter from "./counter.ts"
import { CountingBudget, CurrentAgent, Meter, type Tracker } from "./counting.ts"
import { type AgentHistory, History } from "../call/history.ts"
import { type Agent, type Cap, CapReached, type Job, type Options, type Outcome, type Progress } from "./models.ts"
import { type CountedIn, countedIn, inTrees, isTree } from "./inTrees.ts"
import { JobOutlook } from "./outlook.ts"
import type { TreeRefusal } from "../trees/seat.ts"
import { startAdvised } from "./starts.ts"
import * as Work from "./work.ts"

const amount = Input.number("a number > 0", (value) => value > 0)
const cap = Input.options<Cap>({ tokens: amount, calls: amount, dollars, time: Input.span })

const jobOptions = Input.all(
  Input.options<Options>({
    concurrency: (value) => (value === "unbounded" || value === "advised" ? undefined : Concurrency.number(value)),
    advice: checkAbout,
    cap,
    capPerAgent: cap,
    park: Input.flag,
    job: jobCheck,
    tree: isTree
  }),
  (value) => {
    const { advice, concurrency } = value as Options
    if (advice === undefined || concurrency === "advised") return undefined
    return { place: ".advice", text: 'expected the concurrency "advised" beside it' }
  }
)

const oneAgent: Input.Check = Input.options<Agent<unknown, unknown, unknown>>(
  { key: Input.text, effect: Input.that("an effect", Effect.isEffect), cap, priority, work: Input.positive },
  "key",
  "effect"
)
type JobAgentState = Progress["agents"][number]["state"]
type JobAgentUsage = Progress["used"]

/** The state that the agents of a job share. */
interface SharedByJob {
  /** The job as the budget knows it. */
  readonly job: Budget.NamedJob
  readonly tracker: Tracker
  readonly purse: Spending.Purse
  /** The agent that started the job, if an agent did: its caps include what it starts. */
  readonly lead: CurrentAgent | undefined
  readonly countedIn: CountedIn
  readonly startedAt: number
  /** How many milliseconds it may take, if that is bounded. */
  readonly time: number | undefined
  readonly wake: Waker.Wake
  readonly history: AgentHistory | undefined
  /** Called after the end of each agent. */
  ended: () => void
  /** Whether that time is over. The clock alone cannot tell, because a timer may fire a moment early. */
  isOver: boolean
  remaining: Work.Remaining
}

/** One agent of a job, from before its start until after its end. */
interface JobAgent<A, E, R> {
  readonly agent: Agent<A, E, R>
  readonly tracker: Tracker
  readonly purse: Spending.Purse
  readonly time: number | undefined
  /** Its remaining work, if it is stated. */
  left: number | undefined
  state: JobAgentState
  startedAt: number | undefined
  /** Defined once it has started. */
  fiber: Fiber.Fiber<unknown, unknown> | undefined
}

/** How many jobs without a name there were in this process. */
let unnamed = 0

export const start = Effect.fnUntraced(function* <A, E, R>(
  operation: string,
  agents: Iterable<Agent<A, E, R>>,
  options: Options
): Effect.fn.Return<Job<A, E>, never, R | Meter | Scope.Scope> {
  Input.check(operation, jobOptions, options)
  yield* Meter
  const { concurrency = "unbounded" } = options
  const ticks = yield* PubSub.sliding<void>(1)
  const wake = Waker.make(yield* Scheduler.Scheduler)
  const changed = tickOf(ticks, wake)
  const { dollars, time, ...cap } = inMillis(options.cap)
  const job = options.job ?? (yield* Budget.Job) ?? `Agents.run ${++unnamed}`
  const shared: SharedByJob = {
    job: typeof job === "string" ? { name: job } : job,
    tracker: trackerOf(undefined, cap, changed),
    purse: purseOf("the job", dollars, changed),
    lead: yield* CurrentAgent,
    countedIn: countedIn(options.tree, yield* Lines),
    startedAt: yield* Clock.currentTimeMillis,
    time,
    wake,
    history: yield* History,
    ended: constVoid,
    isOver: false,
    remaining: Work.none
  }
  const members = enter(operation, agents, options, shared)
  const outlook = outlookOf(operation, members, shared, options, yield* CountingBudget)
  const run =
    concurrency === "advised"
      ? runAdvised(operation, members, shared, options)
      : Effect.forEach(members, (member) => runOne(member, shared), { concurrency })
  const running = options.park === true ? Spending.waitForReset()(run) : run
  const all = yield* running.pipe(
    Effect.tap((outcomes) => learn(outlook, outcomes)),
    Effect.onInterrupt(() => cancel(members, shared)),
    Effect.forkScoped({ startImmediately: true })
  )
  const now = (foreseen: Progress["foreseen"]): Progress => ({
    agents: members.map((member) => ({
      key: member.agent.key,
      state: member.state,
      startedAfter: startedAfter(member, shared),
      used: usageOf(member, "ended")
    })),
    done: members.filter(hasEnded).length,
    used: usageOf(shared, "ended"),
    foreseen
  })
  const status = outlook === undefined ? Effect.sync(() => now(undefined)) : Effect.map(outlook.foreseen, now)
  return {
    await: Fiber.join(all),
    status,
    progress: Stream.takeUntil(latest(ticks, status), ({ done }) => done === members.length),
    cancel: (key) =>
      cancel(
        members.filter(({ agent }) => agent.key === key),
        shared
      ),
    cancelAll: Effect.asVoid(cancel(members, shared))
  }
})

/** The outlook of a job; undefined if no budget counts its calls. */
const outlookOf = (
  operation: string,
  members: ReadonlyArray<JobAgent<unknown, unknown, unknown>>,
  { history, job, lead, startedAt }: SharedByJob,
  { advice, concurrency }: Options,
  budget: Budget.TokenBudget["Service"] | undefined
): JobOutlook | undefined => {
  if (budget === undefined || history === undefined) return undefined
  const now = () => {
    const running = members.filter(({ state }) => state === "running")
    const waiting = members.filter(({ state }) => state === "waiting").length
    const calls = running.reduce((sum, { tracker }) => sum + tracker.ended.calls, 0)
    const made = calls / Math.max(1, running.length)
    // A job that follows advice ends as early as if all of its agents had started.
    const atOnce = typeof concurrency === "number" ? concurrency : Infinity
    return { agents: members.length, running: running.length, waiting, made, atOnce }
  }
  return new JobOutlook({ operation, about: advice, startedAt, budget, history, job, lead, now })
}

/** Learns from the end of a job in which nearly all agents succeeded. */
const learn = (
  outlook: JobOutlook | undefined,
  outcomes: ReadonlyArray<Outcome<unknown, unknown>>
): Effect.Effect<void> =>
  Effect.map(Clock.currentTimeMillis, (now) => {
    const succeeded = outcomes.filter(({ exit }) => Exit.isSuccess(exit)).length
    if (succeeded >= 0.9 * outcomes.length) outlook?.ended(now)
  })

/** Checks the agents. None has started yet. */
const enter = <A, E, R>(
  operation: string,
  agents: Iterable<Agent<A, E, R>>,
  options: Options,
  shared: SharedByJob
): ReadonlyArray<JobAgent<A, E, R>> => {
  const { changed } = shared.tracker
  const keys = new Set<string>()
  return Array.from(agents, (agent, index) => {
    Input.check(`${operation}: agents[${index}]`, oneAgent, agent)
    const { cap = options.capPerAgent, key, work } = agent
    if (keys.has(key)) Input.wrong(operation, `expected unique keys, got ${shown(key)} twice`)
    keys.add(key)
    if (work !== undefined) shared.remaining = Work.add(shared.remaining, work)
    const { dollars, time, ...counts } = inMillis(cap)
    return {
      agent,
      left: work,
      time,
      tracker: trackerOf(key, counts, changed),
      purse: purseOf(`agent "${key}"`, dollars, changed),
      state: "waiting",
      startedAt: undefined,
      fiber: undefined
    }
  })
}

/** An agent's effect within its caps, with the references that its calls read. */
const bounded = <A, E, R>(
  member: JobAgent<A, E, R>,
  shared: SharedByJob,
  now: number
): Effect.Effect<A, E | CapReached | TreeRefusal, R> => {
  const { agent, purse, time, tracker } = member
  const { key, priority, work } = agent
  const ends = (cap: "agent" | "job", limit: number | undefined, from: number) => {
    if (limit === undefined) return identity
    const left = from + limit - now
    const reached = Effect.suspend(() => {
      if (cap === "job") shared.isOver = true
      return Effect.fail(new CapReached({ key, cap, unit: "time", asked: 0, left: 0, limit }))
    })
    return (self: Effect.Effect<A, E | CapReached | TreeRefusal, R>) =>
      left <= 0 || (cap === "job" && shared.isOver)
        ? reached
        : Effect.timeoutOrElse(self, { duration: left, orElse: () => reached })
  }
  return agent.effect.pipe(
    inTrees(key, shared.countedIn, startsLater(member)),
    ends("agent", time, now),
    ends("job", shared.time, shared.startedAt),
    priority === undefined ? identity : Effect.provideService(Budget.Priority, priority),
    Effect.provideService(Budget.Job, priority === undefined ? shared.job : { ...shared.job, priority }),
    Effect.provideService(Budget.Agent, key),
    Spending.from(purse),
    Spending.from(shared.purse),
    isCapped(tracker) || isCapped(shared.tracker) || work !== undefined
      ? Effect.provideService(Uncounted, true)
      : identity,
    Effect.provideService(CurrentAgent, {
      key,
      trackers: [tracker, shared.tracker, ...(shared.lead?.trackers ?? [])],
      weight: work === undefined ? undefined : () => weightOf(member, work, shared)
    })
  )
}

/** Notes when an agent starts that has waited to be counted. */
const startsLater = (member: JobAgent<unknown, unknown, unknown>): Effect.Effect<void> =>
  Effect.clockWith((clock) => Effect.sync(() => void (member.startedAt = clock.currentTimeMillisUnsafe())))

/** The weight of an agent's next call: 1 once the agent has ended, for calls of fibers that outlive it. */
const weightOf = <A, E, R>(member: JobAgent<A, E, R>, work: number, shared: SharedByJob): number => {
  if (member.left === undefined) return 1
  const left = Work.left(work, member.tracker.used.tokens)
  shared.remaining = Work.update(shared.remaining, member.left, left)
  member.left = left
  return Work.weight(shared.remaining, left)
}

const isCapped = ({ cap }: Tracker): boolean => cap.tokens !== undefined || cap.calls !== undefined

const runOne = Effect.fnUntraced(function* <A, E, R>(
  member: JobAgent<A, E, R>,
  shared: SharedByJob
): Effect.fn.Return<Outcome<A, E>, never, R> {
  const now = yield* Clock.currentTimeMillis
  const exit = yield* Effect.uninterruptibleMask((restore) =>
    Effect.gen(function* () {
      if (hasEnded(member)) return Exit.interrupt()
      const over = Deferred.makeUnsafe<void>()
      // Registered before its first step, because that step may already cancel it.
      const known = Effect.withFiber<A, E | CapReached | TreeRefusal, R>((fiber) => {
        member.fiber = fiber
        member.state = "running"
        if (shared.lead !== undefined) shared.history?.started(member.agent.key, shared.lead.key)
        if (shared.countedIn.starters.length === 0) member.startedAt = now
        member.tracker.changed()
        // Added first, because an observer that the agent adds may throw, and later observers are then not called.
        fiber.addObserver((exit) => {
          end(member, endOf(exit), shared)
          shared.wake(() => Deferred.doneUnsafe(over, Exit.void))
        })
        return bounded(member, shared, now)
      })
      const fiber = yield* Effect.forkChild(restore(known), { startImmediately: true })
      return yield* Effect.onInterrupt(restore(Effect.andThen(Deferred.await(over), Fiber.await(fiber))), () =>
        Fiber.interrupt(fiber)
      )
    })
  )
  const elapsed = Duration.millis((yield* Clock.currentTimeMillis) - now)
  return {
    key: member.agent.key,
    exit,
    used: usageOf(member, "used"),
    startedAfter: startedAfter(member, shared),
    elapsed
  }
})

const startedAfter = (
  { startedAt }: Pick<JobAgent<unknown, unknown, unknown>, "startedAt">,
  shared: SharedByJob
): Duration.Duration | undefined =>
  startedAt === undefined ? undefined : Duration.millis(startedAt - shared.startedAt)

/** Runs agents, as many at once as help. Each waits for its turn, and ended agents tell that others may start. */
const runAdvised = Effect.fnUntraced(function* <A, E, R>(
  operation: string,
  members: ReadonlyArray<JobAgent<A, E, R>>,
  shared: SharedByJob,
  { advice }: Options
): Effect.fn.Return<ReadonlyArray<Outcome<A, E>>, never, R> {
  const budget = yield* CountingBudget
  if (budget === undefined) return Input.wrong(operation, 'expected Agents.layer for the concurrency "advised"')
  const ends = yield* Queue.sliding<void>(1)
  shared.ended = () => void Queue.offerUnsafe(ends, undefined)
  const turns = members.map(() => Deferred.makeUnsafe<void>())
  let started = 0
  const starters = {
    count: members.length,
    start: () => Deferred.doneUnsafe(turns[started++]!, Exit.void),
    running: () => members.slice(0, started).filter((member) => !hasEnded(member)).length,
    ends
  }
  const starting = startAdvised(operation, starters, advice).pipe(
    Effect.provideService(Budget.TokenBudget, budget),
    Effect.provideService(Budget.Job, shared.job)
  )
  const running = Effect.forEach(
    members,
    (member, index) => Effect.andThen(Deferred.await(turns[index]!), runOne(member, shared)),
    { concurrency: "unbounded" }
  )
  const [outcomes] = yield* Effect.all([running, starting], { concurrency: "unbounded" })
  return outcomes
})

const hasEnded = ({ state }: { readonly state: JobAgentState }): boolean => state !== "waiting" && state !== "running"

const end = <A, E, R>(member: JobAgent<A, E, R>, state: JobAgentState, shared: SharedByJob): void => {
  member.state = state
  if (member.left !== undefined) shared.remaining = Work.remove(shared.remaining, member.left)
  member.left = undefined
  shared.history?.ended(member.agent.key)
  shared.ended()
  member.tracker.changed()
}

/** Ends the waiting agents first, because interrupting a running one would let a waiting one start. */
const cancel = <A, E, R>(some: ReadonlyArray<JobAgent<A, E, R>>, shared: SharedByJob): Effect.Effect<boolean> =>
  Effect.suspend(() => {
    const open = some.filter((member) => !hasEnded(member))
    const fibers = open.flatMap(({ fiber }) => (fiber === undefined ? [] : [fiber]))
    for (const member of open) if (member.state === "waiting") end(member, "cancelled", shared)
    return Effect.as(Fiber.interruptAll(fibers), open.length > 0)
  })

const endOf = (exit: Exit.Exit<unknown, unknown>): JobAgentState => {
  if (Exit.isSuccess(exit)) return "succeeded"
  return Cause.hasInterruptsOnly(exit.cause) ? "cancelled" : "failed"
}

/**
 * The usage of all calls, or of those that have ended: an open call may end with less than was estimated, and progress must not go
 * backwards.
 */
const usageOf = (
  { purse, tracker }: Pick<SharedByJob, "purse" | "tracker">,
  calls: "used" | "ended"
): JobAgentUsage => ({ ...tracker[calls], dollars: ledgerOf<RunningLedger>(purse).total })

const trackerOf = (agent: string | undefined, cap: Counter.CounterCap, changed: () => void): Tracker => ({
  agent,
  cap,
  changed,
  used: Counter.zero,
  ended: Counter.zero
})

const purseOf = (name: string, dollars: number | undefined, changed: () => void): Spending.Purse =>
  Spending.make(name, dollars === undefined ? undefined : { dollars }, { changed })

/** A checked cap with its time in milliseconds. */
const inMillis = ({ time, ...cap }: Cap = {}) => ({
  ...cap,
  time: time === undefined ? undefined : Input.millisOf(time)
})
