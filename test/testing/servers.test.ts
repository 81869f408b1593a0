import { assert, describe, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Stream from "effect/Stream"
import { LlmProvider } from "floodgate/LlmProvider"
import { ProviderSim, Simulation } from "floodgate/testing"

const model = "llama"

interface Call {
  readonly at?: number
  readonly input: number
  readonly output: number
  /** When the client disconnects. */
  readonly until?: number
}

/** Sends calls at their times, and looks at the server at `to`. */
const play = (options: ProviderSim.Options, calls: ReadonlyArray<Call>, to: number) => {
  const send = ({ at = 0, input, output, until = Infinity }: Call) =>
    Effect.gen(function* () {
      const provider = yield* LlmProvider
      yield* Effect.sleep(at)
      const messages = [{ role: "user" as const, content: "x".repeat(4 * input) }]
      const call = provider.create({ model, max_tokens: output, messages })
      const exit = yield* Effect.exit(until < Infinity ? Effect.timeout(call, until - at) : call)
      return Exit.isFailure(exit) ? Cause.squash(exit.cause) : undefined
    })
  const program = Effect.gen(function* () {
    const sent = yield* Effect.forEach(calls, (call) => Effect.forkChild(send(call), { startImmediately: true }))
    yield* Effect.sleep(to)
    const sim = yield* ProviderSim.ProviderSim
    const errors = sent.map((fiber) => {
      const exit = fiber.pollUnsafe()
      return exit !== undefined && Exit.isSuccess(exit) ? exit.value : undefined
    })
    return { log: yield* sim.log, stats: yield* sim.stats, left: yield* sim.left(model), errors }
  })
  const live = ProviderSim.layer({ server: "vllm", outputTokens: ({ max_tokens }) => max_tokens, ...options })
  return Effect.map(Simulation.run(Effect.provide(program, live)), ({ value }) => value)
}

const equal = (count: number, call: Call): ReadonlyArray<Call> => Array.from({ length: count }, () => call)

const latency = { baseMillis: 0, perInputTokenMillis: 0, perOutputTokenMillis: 20 }
const stepMillis = (making: number): number => (making === 0 ? 0 : 20 + 0.5 * (making - 1))

const sum = (numbers: ReadonlyArray<number>): number => numbers.reduce((total, number) => total + number, 0)

/** A small model of a server that reads prompts in no time: when calls that arrive together end, and how often one was put back. */
const modelOf = (calls: ReadonlyArray<Call>, slots: number, memory: number) => {
  const waiting = calls.map((call, index) => ({ ...call, index, made: 0, isRead: false }))
  const memoryOf = (list: typeof waiting) => sum(list.map(({ input, made }) => input + made + 1))
  // The others arrive while the first token of the first call is made.
  let running = waiting.splice(0, 1)
  Object.assign(running[0]!, { isRead: true, made: 1 })
  const ends: Array<number> = []
  let preempted = 0
  let time = stepMillis(1)
  while (running.length > 0) {
    while (running.length > 1 && memoryOf(running) > memory) {
      waiting.unshift({ ...running.pop()!, isRead: false })
      preempted++
    }
    while (waiting.length > 0 && running.length < slots) {
      if (running.length > 0 && memoryOf([...running, waiting[0]!]) > memory) break
      running.push(waiting.shift()!)
    }
    const making = running.filter(({ isRead }) => isRead)
    time += stepMillis(making.length)
    for (const call of making) if (++call.made === call.output) ends[call.index] = Math.ceil(time)
    for (const call of running) call.isRead = true
    running = running.filter(({ made, output }) => made < output)
    if (running.length === 0) running.push(...waiting.splice(0, 1))
  }
  return { ends, preempted }
}

const endsOf = ({ log }: { readonly log: ReadonlyArray<ProviderSim.Entry> }) => log.map(({ finishedAt }) => finishedAt)

describe("servers", () => {
  it.effect("computes a lone call in the time that it takes without a server", () =>
    Effect.gen(function* () {
      const time = { baseMillis: 300, perInputTokenMillis: 0.25, perOutputTokenMillis: 7 }
      const call = { at: 5, input: 10_000, output: 90 }
      for (const server of [undefined, "vllm", "llama.cpp", "ollama"] as const) {
        assert.deepStrictEqual(endsOf(yield* play({ latency: time, server }, [call], 10_000)), [5 + 300 + 2_500 + 630])
      }
    })
  )

  it.effect(
    "makes a token for each of a full batch in one step, which takes longer for each, and then serves the queue",
    () =>
      Effect.gen(function* () {
        const calls = equal(150, { input: 10, output: 200 })
        const { log, stats } = yield* play({ concurrency: 64, latency }, calls, 60_000)
        assert.deepStrictEqual(endsOf({ log }), modelOf(calls, 64, Infinity).ends)
        assert.deepStrictEqual([stats.completed, stats.peakInFlight, stats.outputTokens], [150, 64, 30_000])
        // 64 tokens every 51.5 ms are 1,243 tokens a second.
        assert.approximately((128 * 200) / (log[127]!.finishedAt! / 1_000), 1_243, 15)
      })
  )

  it.effect("serves first come, first served, however long the queue is, and rejects nobody", () =>
    Effect.gen(function* () {
      const calls = equal(150, { input: 5, output: 3 })
      const { log, stats } = yield* play({ concurrency: 2, latency }, calls, 5_000)
      assert.deepStrictEqual([stats.rejected, stats.accepted], [0, 150])
      assert.isAbove(stats.completed, 100)
      assert.strictEqual(stats.queued, 150 - stats.completed - 2)
      const ends = log.flatMap(({ finishedAt }) => finishedAt ?? [])
      assert.deepStrictEqual(
        ends,
        ends.toSorted((a, b) => a - b)
      )
      assert.isTrue(log.slice(ends.length).every(({ finishedAt }) => finishedAt === undefined))
    })
  )

  it.effect("reads prompts in steps of prefillTokens, so that the others go on while a long one is read", () =>
    Effect.gen(function* () {
      const reading = { ...latency, perInputTokenMillis: 0.1 }
      const calls = [
        { input: 1, output: 100 },
        { at: 1_010, input: 20_480, output: 1 }
      ]
      const { log } = yield* play({ latency: reading }, calls, 60_000)
      // 20,480 tokens take 2,048 ms to read, in 10 steps that each make a token of the first call as well. Then one makes a token of both.
      assert.approximately(log[1]!.finishedAt!, 1_020 + 2_048 + 10 * 20 + 20.5, 2)
      assert.approximately(log[0]!.finishedAt!, 100 * 20 + 2_048 + 0.5, 2)
    })
  )

  it.effect("keeps to its memory, and loses nothing that it has to compute again", () =>
    Effect.gen(function* () {
      const memoryTokens = 3_000
      const server = { kind: "vllm", memoryTokens, prefillTokens: Infinity } as const
      const calls = Array.from({ length: 60 }, (_, n) => ({
        input: 60 + ((n * 37) % 90),
        output: 80 + ((n * 91) % 120)
      }))
      const { log, stats } = yield* play({ concurrency: 64, latency, server }, calls, 200_000)
      const { ends, preempted } = modelOf(calls, 64, memoryTokens)
      assert.isAbove(preempted, 10)
      assert.deepStrictEqual(endsOf({ log }), ends)
      assert.deepStrictEqual(
        log.map(({ producedTokens }) => producedTokens),
        calls.map(({ output }) => output)
      )
      assert.strictEqual(stats.outputTokens, sum(calls.map(({ output }) => output)))
      assert.isAbove(Math.max(...ends), 1.5 * Math.max(...modelOf(calls, 64, Infinity).ends))
    })
  )

  it.effect("runs a call alone that is larger than the memory", () =>
    Effect.gen(function* () {
      const server = { kind: "vllm", memoryTokens: 100 } as const
      const played = yield* play({ latency, server }, equal(2, { input: 150, output: 10 }), 1_000)
      assert.deepStrictEqual(endsOf(played), [200, 400])
    })
  )

  it.effect("frees the slot or the place in the queue of a client that disconnects", () =>
    Effect.gen(function* () {
      const call = { input: 10, output: 50 }
      const calls = [{ ...call, until: 505 }, call, { ...call, until: 500 }, call]
      const options = { server: "llama.cpp", concurrency: 1, latency } as const
      const { aborted, inFlight, queued } = (yield* play(options, calls, 505)).stats
      assert.deepStrictEqual([aborted, inFlight, queued], [2, 1, 1])
      const { log } = yield* play(options, calls, 10_000)
      // The step at 505 ends at 520.
      assert.deepStrictEqual(
        log.map(({ finishedAt, producedTokens }) => [finishedAt, producedTokens]),
        [
          [505, 25],
          [1_520, 50],
          [500, 0],
          [2_520, 50]
        ]
      )
    })
  )

  it.effect("has llama.cpp's 4 slots and a queue without an end", () =>
    Effect.gen(function* () {
      const calls = equal(200, { input: 1, output: 1_000 })
      const { inFlight, queued, rejected } = (yield* play({ server: "llama.cpp", latency }, calls, 100)).stats
      assert.deepStrictEqual([inFlight, queued, rejected], [4, 196, 0])
    })
  )

  it.effect(
    "has Ollama's single slot and its queue of 512, after which it answers 503",
    () =>
      Effect.gen(function* () {
        const call = { input: 1, output: 1_000 }
        const { errors, log, stats } = yield* play({ server: "ollama", latency }, equal(520, call), 100)
        assert.deepStrictEqual([stats.inFlight, stats.queued, stats.rejected], [1, 512, 7])
        assert.strictEqual(log[519]!.status, 503)
        assert.match(String(errors[519]), /503|[Oo]verloaded|busy/)
      }),
    { tags: "full" }
  )

  it.effect("has as many slots and places in the queue as it is given", () =>
    Effect.gen(function* () {
      const options = { server: "ollama", concurrency: 4, queue: 10, latency } as const
      const { inFlight, queued, rejected } = (yield* play(options, equal(20, { input: 1, output: 1_000 }), 100)).stats
      assert.deepStrictEqual([inFlight, queued, rejected], [4, 10, 6])
    })
  )

  it.effect("counts output against a limit on it as it is made, also where calls are computed again", () =>
    Effect.gen(function* () {
      const server = { kind: "vllm", memoryTokens: 1_000 } as const
      const limits = { outputTokens: { perMinute: 0.001, burst: 100_000 } }
      const { left, stats } = yield* play({ server, latency, limits }, equal(20, { input: 50, output: 100 }), 60_000)
      assert.strictEqual(stats.outputTokens, 2_000)
      assert.approximately(left.outputTokens!, 98_000, 0.01)
    })
  )

  it.effect("ends calls by their faults, at the tokens where they break", () =>
    Effect.gen(function* () {
      const faults = [
        { kind: "cut", calls: [1] },
        { kind: "timeout", calls: [2], afterMillis: 700 },
        { kind: "stall", calls: [3] }
      ] as const
      const { errors, log, stats } = yield* play({ latency, faults }, equal(4, { input: 1, output: 100 }), 700_000)
      assert.deepStrictEqual(
        [stats.broken, stats.completed, stats.aborted, stats.inFlight, stats.queued],
        [2, 1, 1, 0, 0]
      )
      for (const { producedTokens } of [log[0]!, log[2]!]) assert.isTrue(producedTokens >= 25 && producedTokens < 75)
      // The client gives up on a silent answer after ten minutes.
      assert.deepStrictEqual([log[1]!.finishedAt, log[2]!.finishedAt], [700, 600_000])
      assert.deepStrictEqual(
        errors.map((error) => error !== undefined),
        [true, true, true, false]
      )
    })
  )

  it("takes no server that it does not know", () => {
    assert.throws(
      () => Effect.runSync(Effect.scoped(Effect.provide(Effect.void, ProviderSim.layer({ server: "tgi" as "vllm" })))),
      RangeError,
      "server"
    )
  })
})

const params = (agent: string, call: number) => ({
  model,
  max_tokens: 4_000,
  metadata: { user_id: agent },
  messages: [{ role: "user" as const, content: `${agent} ${call} ${"x".repeat(800)}` }]
})

/** Agents that call without a pause, and send a call again that takes longer than a minute. */
const crowd = (agents: number, minutes: number, options: ProviderSim.Options = {}) => {
  const agent = (id: number) =>
    Effect.gen(function* () {
      const provider = yield* LlmProvider
      for (let call = 0; ; call++) {
        yield* Effect.exit(Effect.timeout(provider.create(params(`agent ${id}`, call)), "1 minute"))
      }
    })
  const program = Effect.gen(function* () {
    yield* Effect.timeoutOption(
      Effect.forEach(
        Array.from({ length: agents }, (_, id) => id),
        agent,
        { concurrency: "unbounded" }
      ),
      Duration.minutes(minutes)
    )
    const sim = yield* ProviderSim.ProviderSim
    const { aborted } = yield* sim.stats
    return { lost: aborted - agents, log: yield* sim.log }
  })
  const live = ProviderSim.layer({
    server: "vllm",
    concurrency: 64,
    outputTokens: ProviderSim.lognormal(300, 0.3),
    ...options
  })
  return Effect.map(Simulation.run(Effect.provide(program, live)), ({ value }) => value)
}

describe("ProviderSim with a server", () => {
  it.effect(
    "loses most calls of 400 agents with a timeout of a minute, and none of 64",
    () =>
      Effect.gen(function* () {
        const few = yield* crowd(64, 4)
        const many = yield* crowd(400, 4)
        assert.strictEqual(few.lost, 0)
        assert.isAbove(many.lost, 400)
        // In the first minute all calls are new, so that those at the head of the queue are in time.
        const answered = ({ log }: typeof few) =>
          log.filter(({ aborted, finishedAt }) => !aborted && finishedAt !== undefined && finishedAt > 120_000).length
        assert.isAbove(answered(few), 400)
        assert.isBelow(answered(many), answered(few) / 2)
      }),
    { tags: "full", timeout: 60_000 }
  )

  it.effect("gives equal results for equal seeds, and others for another seed", () =>
    Effect.gen(function* () {
      const noisy = (seed: number) => crowd(6, 0.2, { concurrency: 4, latency: { noise: 0.3 }, seed })
      const one = yield* noisy(1)
      assert.deepStrictEqual((yield* noisy(1)).log, one.log)
      assert.notDeepEqual((yield* noisy(2)).log, one.log)
    })
  )

  it.effect("streams each token when its step has made it", () =>
    Effect.gen(function* () {
      const heard = (agent: string, input: number) =>
        Effect.gen(function* () {
          const { value } = yield* (yield* LlmProvider).stream({
            ...params(agent, 0),
            messages: [{ role: "user", content: "x".repeat(4 * input) }]
          })
          const times: Array<number> = []
          yield* Stream.runForEach(value, ({ type }) =>
            Effect.map(Clock.currentTimeMillis, (now) => {
              if (type === "content_block_delta") times.push(now)
            })
          )
          return times
        })
      const start = yield* Clock.currentTimeMillis
      const { value } = yield* Simulation.run(
        Effect.provide(
          Effect.all([heard("a", 1_000), heard("b", 1_000), heard("c", 1_000)], { concurrency: "unbounded" }),
          ProviderSim.layer({ server: "llama.cpp", concurrency: 2, outputTokens: 20, reply: () => "y".repeat(80) })
        )
      )
      const [a, b, c] = value.map((times) => times.map((at) => at - start))
      // 1,000 tokens are read in 100 ms. The second call is read in the step after the first, which then makes a token of the first, too.
      assert.deepStrictEqual([a!.length, b!.length, c!.length], [20, 20, 20])
      assert.approximately(a![0]!, 220, 1)
      assert.approximately(b![0]!, 240.5, 1)
      for (const times of [a!, b!]) assert.approximately(times[15]! - times[5]!, 10 * 20.5, 110)
      // The third one waits for a slot, then is read.
      assert.isAbove(c![0]!, a![19]! + 100)
      assert.isAbove(c![0]!, 500)
    })
  )

  it.effect(
    "takes an interrupted call out of the queue, and gives up on a queued one after ten minutes, as the client does",
    () =>
      Effect.gen(function* () {
        const { value } = yield* Simulation.run(
          Effect.provide(
            Effect.gen(function* () {
              const provider = yield* LlmProvider
              const sim = yield* ProviderSim.ProviderSim
              yield* Effect.forkChild(provider.create(params("long", 0)))
              yield* Effect.sleep(100)
              const short = yield* Effect.exit(Effect.timeout(provider.create(params("short", 0)), "5 seconds"))
              const { aborted, queued } = yield* sim.stats
              const patient = yield* Effect.exit(provider.create(params("patient", 0)))
              return { short, aborted, queued, patient, at: yield* Clock.currentTimeMillis }
            }),
            ProviderSim.layer({ server: "ollama", outputTokens: 4_000, latency: { perOutputTokenMillis: 1_000 } })
          )
        )
        assert.isTrue(Exit.isFailure(value.short))
        assert.deepStrictEqual([value.aborted, value.queued], [1, 0])
        const error = Exit.isFailure(value.patient) ? Cause.squash(value.patient.cause) : undefined
        assert.match(String(error), /10 ?m/)
      })
  )
})
