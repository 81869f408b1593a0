/** Trees of agents that processes share: random histories with faults keep their laws, and scenes that need an exact order of events. */
import { assert, describe, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Random from "effect/Random"
import * as Agents from "floodgate/Agents"
import * as Budget from "floodgate/Budget"
import * as Governor from "floodgate/Governor"
import * as Retry from "floodgate/Retry"
import * as Trees from "floodgate/Trees"
import { sized } from "../support/size.ts"
import * as World from "./world.ts"

const redis = await World.redis()
const play = World.player(redis, "trees")

const open = (process: World.Process, caps: Trees.JobCaps) => process.within(Trees.open("the job", caps))

const counting = Agents.layer.pipe(Layer.provide(Budget.layerUnlimited))
const live = Governor.layer({ retry: Retry.make({ attempts: 1 }) }).pipe(Layer.provide(Budget.layerUnlimited))

/** A call of an agent that takes this long. Returns "sent", the cap that refused it, or the tag of another refusal. */
const call = (process: World.Process, tree: Trees.Tree, agent: string, millis = 0, parent = "lead") =>
  process.run(
    Effect.flatMap(Governor.Governor, (governor) =>
      governor.run({ model: "m", bytes: 4 }, () => Effect.as(Effect.sleep(millis), { value: "sent" }))
    ).pipe(
      Trees.within(tree, { agent, parent: agent === "lead" ? undefined : parent }),
      Effect.provide(live),
      Effect.catch((error) => {
        const cause = error instanceof Budget.BudgetError && error.reason._tag === "Denied" ? error.reason.cause : error
        return Effect.succeed(cause instanceof Trees.TreeCapReached ? cause.by : String(cause))
      })
    )
  )

/** The same in a process that may end meanwhile. */
const callOrGone = (...args: Parameters<typeof call>): Effect.Effect<string> =>
  Effect.map(Effect.exit(call(...args)), (exit) => (Exit.isSuccess(exit) ? exit.value : "gone"))

/** For a while the store does not answer, and later a process dies. */
const awayThenCrash = Effect.fnUntraced(function* (world: World.World, process: World.Process) {
  yield* Effect.sleep(yield* Random.nextBetween(0, 40_000))
  world.isDown = true
  yield* Effect.sleep(yield* Random.nextBetween(0, 10_000))
  world.isDown = false
  yield* Effect.sleep(yield* Random.nextBetween(0, 20_000))
  yield* process.crash
})

/** Two processes that share a tree. */
const two = Effect.fnUntraced(function* (world: World.World, caps: Trees.AgentCaps, sharing?: World.ProcessOptions) {
  const [a, b] = [yield* world.start("a", {}, sharing), yield* world.start("b", {}, sharing)]
  return { a, b, ofA: yield* open(a, caps), ofB: yield* open(b, caps) }
})

describe("a tree in a store", { timeout: 180_000 }, () => {
  it("has one count for all processes, and an agent that calls through several counts once", () => {
    const results = play((world) =>
      Effect.gen(function* () {
        const { a, b, ofA, ofB } = yield* two(world, { agents: 4 })
        const results: Array<string> = []
        for (const agent of ["lead", "x", "y"]) {
          for (const [process, tree] of [[a, ofA] as const, [b, ofB] as const]) {
            results.push(yield* call(process, tree, agent))
            yield* Effect.sleep(3_000)
          }
        }
        results.push(yield* call(b, ofB, "z"), yield* call(a, ofA, "late"), yield* call(a, ofA, "lead"))
        return results
      })
    )
    assert.deepStrictEqual(results, [...Array.from({ length: 7 }, () => "sent"), "agents", "sent"])
  })

  it("admits no more than its cap when agents begin everywhere at once", () => {
    const results = play((world) =>
      Effect.gen(function* () {
        const { a, b, ofA, ofB } = yield* two(world, { agents: 20 })
        return yield* Effect.forEach(
          Array.from({ length: 100 }, (_, index) => index),
          (index) => (index % 2 === 0 ? call(a, ofA, `${index}`, 5_000) : call(b, ofB, `${index}`, 5_000)),
          { concurrency: "unbounded" }
        )
      })
    )
    assert.strictEqual(results.filter((result) => result === "sent").length, 20)
    assert.strictEqual(results.filter((result) => result === "agents").length, 80)
  })

  it("counts the agents that the processes run, also under the same keys", () => {
    const results = play((world) =>
      Effect.gen(function* () {
        const { a, b, ofA, ofB } = yield* two(world, { agents: 6 })
        const agents = Array.from({ length: 5 }, (_, index) => ({ key: `${index}`, effect: Effect.sleep(5_000) }))
        const run = (process: World.Process, tree: Trees.Tree) =>
          process.run(Effect.provide(Agents.run(agents, { tree }), counting))
        const both = yield* Effect.all([run(a, ofA), run(b, ofB)], { concurrency: "unbounded" })
        yield* Effect.sleep(8_000)
        const { agents: counted, atOnce } = yield* b.run(ofB.status)
        return { ran: both.flat().filter(({ exit }) => Exit.isSuccess(exit)).length, counted, atOnce }
      })
    )
    assert.deepStrictEqual(results, { ran: 6, counted: 6, atOnce: 0 })
  })

  it("lets an agent be cancelled that waits for the store, and says that the store does not answer", () => {
    const ends = play((world) =>
      Effect.gen(function* () {
        const { a, ofA } = yield* two(world, { agents: 6 })
        world.isDown = true
        const agents = ["cancelled", "refused"].map((key) => ({ key, effect: Effect.void }))
        return yield* a.run(
          Effect.gen(function* () {
            const job = yield* Agents.fork(agents, { tree: ofA })
            yield* Effect.sleep(1_000)
            yield* job.cancel("cancelled")
            const { agents: states } = yield* job.status
            const [cancelled, refused] = yield* job.await
            const reason = Exit.isFailure(refused!.exit) ? Cause.squash(refused!.exit.cause) : undefined
            return [states[0]!.state, cancelled!.startedAfter, (reason as Error).name]
          }).pipe(Effect.scoped, Effect.provide(counting))
        )
      })
    )
    assert.deepStrictEqual(ends, ["cancelled", undefined, "floodgate/Trees/TreeUnavailable"])
  })

  it("is stopped and resumed for all processes", () => {
    const results = play((world) =>
      Effect.gen(function* () {
        const { a, b, ofA, ofB } = yield* two(world, {})
        const results = [yield* call(b, ofB, "lead")]
        yield* a.run(ofA.stop("agents"))
        yield* Effect.sleep(8_000)
        results.push(yield* call(b, ofB, "x"), yield* call(b, ofB, "lead"))
        yield* a.run(ofA.resume)
        yield* Effect.sleep(8_000)
        results.push(yield* call(b, ofB, "x"))
        return results
      })
    )
    assert.deepStrictEqual(results, ["sent", "stop", "sent", "sent"])
  })

  it("keeps the agents of a process that dies, which no longer run", () => {
    const status = play((world) =>
      Effect.gen(function* () {
        const { a, b, ofA, ofB } = yield* two(world, { agents: 3 })
        yield* Effect.forkDetach(call(a, ofA, "x", 900_000))
        yield* call(a, ofA, "lead")
        yield* Effect.sleep(2_000)
        yield* a.crash
        yield* Effect.sleep(1_200_000)
        yield* call(b, ofB, "y")
        yield* Effect.sleep(8_000)
        const refused = yield* call(b, ofB, "z")
        const { agents, atOnce } = yield* b.run(ofB.status)
        return { agents, atOnce, refused }
      })
    )
    assert.deepStrictEqual(status, { agents: 3, atOnce: 1, refused: "agents" })
  })

  it("lets known agents go on without the store, and a part of new ones", () => {
    const results = play((world) =>
      Effect.gen(function* () {
        const { a, b, ofA, ofB } = yield* two(world, { agents: 12 }, { whenAway: "degrade" })
        yield* call(a, ofA, "lead")
        yield* call(b, ofB, "x")
        yield* Effect.sleep(10_000)
        world.isDown = true
        yield* Effect.sleep(5_000)
        const known = [yield* call(a, ofA, "lead"), yield* call(b, ofB, "lead"), yield* call(a, ofA, "x")]
        const fresh = yield* Effect.forEach(
          Array.from({ length: 20 }, (_, index) => index),
          (index) => (index % 2 === 0 ? call(a, ofA, `${index}`) : call(b, ofB, `${index}`)),
          { concurrency: "unbounded" }
        )
        world.isDown = false
        yield* Effect.sleep(60_000)
        const { agents } = yield* a.run(ofA.status)
        return { known, sent: fresh.filter((result) => result === "sent").length, agents }
      })
    )
    assert.deepStrictEqual(results.known, ["sent", "sent", "sent"])
    assert.isAtLeast(results.sent, 2)
    assert.isAtMost(results.sent, 10)
    assert.strictEqual(results.agents, results.sent + 2)
  })

  it.each(Array.from({ length: sized(2, 200) }, (_, index) => index))(
    "keeps its laws over processes that lose the store, crash and return: history %d",
    (history) => {
      const cap = 12
      const outcome = World.simulated(redis, `trees ${history}`, (time) =>
        Effect.flatMap(World.make(redis, time), (world) =>
          Effect.gen(function* () {
            const network = { least: 0.2, most: 60, lost: 0.02, doubled: 0.02 }
            const processes = yield* Effect.forEach(["a", "b", "c"], (name) => world.start(name, {}, { network }))
            const trees = yield* Effect.forEach(processes, (process) => open(process, { agents: cap }))
            const sent = new Set<string>()
            const wrong: Array<string> = []
            const agent = (name: string) =>
              Effect.gen(function* () {
                for (let calls = 0; calls < 8; calls++) {
                  yield* Effect.sleep(yield* Random.nextBetween(0, 20_000))
                  const at = yield* Random.nextIntBetween(0, 2)
                  const isKnown = sent.has(name)
                  const result = yield* callOrGone(
                    processes[at]!,
                    trees[at]!,
                    name,
                    yield* Random.nextBetween(0, 10_000)
                  )
                  if (result === "sent") sent.add(name)
                  // Another process knows of it a moment later; by then it had called in vain at most.
                  if (isKnown && result === "agents" && calls > 1) wrong.push(name)
                }
              })
            const faults = Effect.gen(function* () {
              yield* awayThenCrash(world, processes[2]!)
              yield* Effect.sleep(yield* Random.nextBetween(0, 20_000))
              redis.wipe()
            })
            const agents = Array.from({ length: 30 }, (_, index) => agent(`agent ${index}`))
            yield* Effect.all([faults, ...agents], { concurrency: "unbounded", discard: true })
            yield* Effect.sleep(60_000)
            const counts = yield* Effect.forEach([0, 1], (at) => processes[at]!.run(trees[at]!.status))
            return { sent: sent.size, wrong, counts: counts.map(({ agents }) => agents) }
          })
        )
      )
      assert.deepStrictEqual(outcome.wrong, [])
      // Over by what a wipe and a crash hide at most: agents that began since the last commit.
      assert.isAtMost(outcome.sent, cap + 2)
      assert.isAtLeast(outcome.sent, cap - 1)
      for (const agents of outcome.counts) assert.isAtLeast(agents, outcome.sent - 1)
    }
  )

  it.each(Array.from({ length: sized(2, 200) }, (_, index) => index))(
    "never spends more than its caps over processes that lose the store and crash: history %d",
    { tags: "full" },
    (history) => {
      const caps = { tokens: 6_000, calls: 90 }
      const outcome = World.simulated(redis, `caps of trees ${history}`, (time) =>
        Effect.flatMap(World.make(redis, time), (world) =>
          Effect.gen(function* () {
            const network = { least: 0.2, most: 60, lost: 0.02, doubled: 0.02 }
            const whenAway = history % 2 === 0 ? "fail" : "degrade"
            const sharing: World.ProcessOptions = { network, whenAway }
            const processes = yield* Effect.forEach(["a", "b", "c"], (name) => world.start(name, {}, sharing))
            const trees = yield* Effect.forEach(processes, (process) => open(process, caps))
            // What the provider has executed, whatever becomes of the process that asked.
            const sum = { tokens: 0, calls: 0 }
            const refused: Array<string> = []
            const agent = (name: string) =>
              Effect.gen(function* () {
                for (let calls = 0; calls < 8; calls++) {
                  yield* Effect.sleep(yield* Random.nextBetween(0, 20_000))
                  const at = yield* Random.nextIntBetween(0, 2)
                  const input = yield* Random.nextIntBetween(1, 100)
                  const output = yield* Random.nextIntBetween(1, 100)
                  const took = yield* Random.nextBetween(0, 10_000)
                  const send = Effect.suspend(() => {
                    sum.calls++
                    sum.tokens += input + output
                    const actual = { inputTokens: input, outputTokens: output }
                    return Effect.as(Effect.sleep(took), { value: "sent", actual })
                  })
                  const exit = yield* Effect.exit(
                    processes[at]!.run(
                      Effect.flatMap(Governor.Governor, (governor) =>
                        governor.run({ model: "m", bytes: 4, inputTokens: input, maxTokens: output + 50 }, () => send)
                      ).pipe(
                        Trees.within(trees[at]!, { agent: name }),
                        Effect.provide(live),
                        Effect.catch((error) => Effect.sync(() => void refused.push(error.message)))
                      )
                    )
                  )
                  if (Exit.isFailure(exit)) refused.push("gone")
                }
              })
            const faults = awayThenCrash(world, processes[2]!)
            const agents = Array.from({ length: 30 }, (_, index) => agent(`agent ${index}`))
            yield* Effect.all([faults, ...agents], { concurrency: "unbounded", discard: true })
            yield* Effect.sleep(60_000)
            const statuses = yield* Effect.forEach([0, 1], (at) => processes[at]!.run(trees[at]!.status))
            return { sum, refused, statuses }
          })
        )
      )
      const { refused, statuses, sum } = outcome
      assert.isAtMost(sum.tokens, caps.tokens)
      assert.isAtMost(sum.calls, caps.calls)
      assert.isTrue(refused.some((message) => message.includes("end your work with what you have")))
      // What a process has spent alone is not known if it dies before it comes back.
      if (history % 2 === 1) return
      // All processes know what was spent; what a dead one had reserved counts as well.
      for (const { spent } of statuses) {
        assert.isAtLeast(spent.tokens!, sum.tokens)
        assert.isAtLeast(spent.calls!, sum.calls)
        assert.isAtMost(spent.tokens!, caps.tokens)
        assert.isAtMost(spent.calls!, caps.calls)
      }
    }
  )
})
