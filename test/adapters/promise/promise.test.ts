import Anthropic from "@anthropic-ai/sdk"
import { assert, describe, it } from "@effect/vitest"
import type * as Budget from "floodgate/Budget"
import type * as Events from "floodgate/Events"
import * as Floodgate from "floodgate/promise"

// The real clock, and providers in memory. Waits are for conditions, never for times.

const plenty = { perSecond: 1e9, burst: 1e9 }
const ledger = { inputTokens: { total: 100_000 }, requests: plenty, outputTokens: plenty, tokens: plenty }

const completion = {
  id: "c1",
  choices: [{ index: 0, message: { role: "assistant", content: "Hi" }, finish_reason: "stop" }],
  usage: { prompt_tokens: 900, completion_tokens: 30 }
}
const init = {
  method: "POST",
  headers: { authorization: "Bearer one" },
  body: JSON.stringify({ model: "gpt-6", messages: [{ role: "user", content: "Hi" }] })
}
const url = "https://api.openai.com/v1/chat/completions"

const message = (id: string, inputTokens: number) => ({
  type: "message",
  id,
  role: "assistant",
  model: "claude-sonnet-5",
  stop_reason: "end_turn",
  content: [{ type: "text", text: "Hello" }],
  usage: { input_tokens: inputTokens, output_tokens: 50 }
})

const levelOf = (status: Budget.BudgetStatus, name: string): number | undefined =>
  Object.entries(status.pools).find(([pool]) => pool.startsWith(name))?.[1].dimensions.inputTokens?.level

const until = async <A>(read: () => Promise<A>, holds: (a: A) => boolean): Promise<A> => {
  for (;;) {
    const value = await read()
    if (holds(value)) return value
    await new Promise((resolve) => setImmediate(resolve))
  }
}

const rejected = async (promise: Promise<unknown>): Promise<Error> => {
  try {
    await promise
  } catch (error) {
    return error as Error
  }
  return assert.fail("it did not reject")
}

const refused = async (promise: Promise<unknown>): Promise<Floodgate.RefusedError> => {
  const error = await rejected(promise)
  assert.instanceOf(error, Floodgate.RefusedError)
  return error
}

describe("floodgate/promise", () => {
  it("has one budget for its fetch and the SDK's middleware, apart for each account", async () => {
    const upstream: typeof fetch = async (input) =>
      Response.json(String(input).includes("messages") ? message("msg_1", 500) : completion)
    await using floodgate = Floodgate.create({ limits: ledger, fetch: upstream })
    await floodgate.fetch(url, init)
    const client = new Anthropic({ apiKey: "any", fetch: upstream, middleware: [floodgate.middleware] })
    const params = { model: "claude-sonnet-5", max_tokens: 50, messages: [{ role: "user" as const, content: "Hi" }] }
    await client.messages.create(params)
    await floodgate.fetch("https://api.anthropic.com/v1/messages", {
      method: "POST",
      headers: { authorization: "Bearer any" },
      body: JSON.stringify(params)
    })
    const status = await floodgate.status()
    assert.strictEqual(levelOf(status, "api.openai.com/"), 99_100)
    assert.strictEqual(Object.keys(status.pools).filter((name) => name.startsWith("api.anthropic.com")).length, 1)
    assert.strictEqual(levelOf(status, "api.anthropic.com"), 99_000)
  })

  it("refuses calls that would wait too long with its own error, in every way of use", async () => {
    const upstream: typeof fetch = async () => Response.json(message("msg_1", 500))
    await using floodgate = Floodgate.create({
      limits: { requests: { perMinute: 1, window: "bucket" } },
      callOptions: { maxWaitSeconds: 1 },
      fetch: upstream
    })
    const client = new Anthropic({ apiKey: "any", fetch: upstream, middleware: [floodgate.middleware] })
    const model = "claude-sonnet-5"
    const prompt = [{ role: "user", content: [{ type: "text", text: "Hi" }] }]
    const bedrock = { provider: "bedrock", modelId: model, doGenerate: async () => ({}) }
    const ways: ReadonlyArray<() => Promise<unknown>> = [
      () => client.messages.create({ model, max_tokens: 50, messages: [{ role: "user", content: "Hi" }] }),
      () => floodgate.aiSdk.wrapGenerate({ params: { prompt }, model: bedrock }),
      () => floodgate.run({ model }, async () => {}),
      () => floodgate.limiter.acquire({ model }).then((lease) => lease.succeed())
    ]
    // Calls of the SDK belong to an account, and the others do not.
    await ways[0]!()
    await ways[1]!()
    for (const way of ways) {
      const error = await refused(way())
      assert.strictEqual(error.reason, "waitTooLong")
      assert.isAbove(error.waitSeconds!, 50)
    }
    // A call of its own knows better.
    const error = await refused(floodgate.run({ model, maxWaitSeconds: 2 }, async () => {}))
    assert.match(String(error), /longer than its maxWait of 2s/)
  })

  describe("run", () => {
    it("settles to the usage that the attempt reports", async () => {
      await using floodgate = Floodgate.create({ limits: ledger })
      const answer = await floodgate.run({ model: "m", inputTokens: 5_000 }, async ({ used }) => {
        used({ inputTokens: 1_000, outputTokens: 20 })
        return "Hello"
      })
      assert.strictEqual(answer, "Hello")
      assert.strictEqual(levelOf(await floodgate.status(), "default"), 99_000)
      await floodgate.run({ model: "m", inputTokens: 5_000 }, async () => undefined)
      assert.strictEqual(levelOf(await floodgate.status(), "default"), 94_000)
    })

    it("retries rejected calls, and reports them", async () => {
      const events: Array<Events.Event> = []
      await using floodgate = Floodgate.create({
        limits: ledger,
        retry: { baseSeconds: 0.001 },
        onEvent: (event) => void events.push(event)
      })
      let attempts = 0
      const answer = await floodgate.run({ model: "m", inputTokens: 10, agent: "a" }, async () => {
        if (++attempts < 2) throw { status: 429, headers: { "retry-after": "0.001" } }
        return attempts
      })
      assert.strictEqual(answer, 2)
      assert.deepStrictEqual(
        events.map(({ type }) => type),
        ["rejection", "retry"]
      )
      const [{ at, pool }] = events as [Events.Event]
      assert.strictEqual(pool, "default")
      assert.isAbove(at, 1.7e12)
    })

    it("does not retry errors that are no rate limits, and rethrows them unchanged", async () => {
      await using floodgate = Floodgate.create({ limits: ledger })
      const bug = new TypeError("x is undefined")
      let attempts = 0
      const error = await rejected(
        floodgate.run({ model: "m" }, async () => {
          attempts++
          throw bug
        })
      )
      assert.strictEqual(error, bug)
      assert.strictEqual(attempts, 1)
    })

    it("refuses with a reason, the pool and the time", async () => {
      await using floodgate = Floodgate.create({ limits: { tokens: { perMinute: 1_000 } }, maxQueued: 1 })
      const big = await refused(floodgate.run({ model: "m", inputTokens: 50_000, caches: false }, async () => 1))
      assert.deepStrictEqual([big.reason, big.pool], ["tooLarge", "default"])
      await floodgate.run({ model: "m", inputTokens: 900, maxTokens: 1 }, async () => 1)
      const call = { model: "m", inputTokens: 900, maxTokens: 1 }
      const late = await refused(floodgate.run({ ...call, maxWaitSeconds: 1 }, async () => 1))
      assert.strictEqual(late.reason, "waitTooLong")
      assert.isAbove(late.waitSeconds!, 10)
      const controller = new AbortController()
      const waiting = rejected(floodgate.run({ ...call, signal: controller.signal }, async () => 1))
      await until(floodgate.status, ({ pools }) => pools["default"]!.queued === 1)
      assert.strictEqual((await refused(floodgate.run(call, async () => 1))).reason, "queueFull")
      controller.abort(new Error("enough"))
      assert.strictEqual((await waiting).message, "enough")
      await until(floodgate.status, ({ pools }) => pools["default"]!.queued === 0)
    })

    it("refuses calls that may cost more than is left of the cap, in every way of use, and reports the spending", async () => {
      await using floodgate = Floodgate.create({
        cap: { dollars: 2.5, per: "day" },
        prices: { m: { input: 1, output: 10 } },
        fetch: async () => Response.json({ ...completion, usage: { prompt_tokens: 1_000, completion_tokens: 100_000 } })
      })
      const body = JSON.stringify({ model: "m", max_tokens: 100_000, messages: [{ role: "user", content: "Hello" }] })
      const ask = () => floodgate.fetch(url, { ...init, body })
      assert.strictEqual((await ask()).status, 200)
      await floodgate.run({ model: "m", inputTokens: 1_000, maxTokens: 100_000 }, async ({ used }) =>
        used({ inputTokens: 1_000, outputTokens: 100_000 })
      )
      const call = { model: "m", inputTokens: 1_000, maxTokens: 100_000 }
      const error = await refused(floodgate.run(call, async () => 1))
      assert.strictEqual(error.reason, "used")
      assert.match(error.message, /only \$0\.50 is left of the cap of \$2\.50 a day for this floodgate/)
      const response = await ask()
      assert.deepStrictEqual([response.status, response.headers.get("x-should-retry")], [402, "false"])
      const { held, spent } = await floodgate.spent()
      assert.closeTo(spent, 2.002, 1e-9)
      assert.strictEqual(held, 0)
    })

    it("ends an attempt that takes too long", async () => {
      await using floodgate = Floodgate.create({ limits: ledger, retry: { attempts: 1 } })
      let aborted = false
      const error = await refused(
        floodgate.run(
          { model: "m", timeoutSeconds: 0.01 },
          ({ signal }) =>
            new Promise((_, reject) => {
              signal.addEventListener("abort", () => {
                aborted = true
                reject(new Error("aborted"))
              })
            })
        )
      )
      assert.strictEqual(error.reason, "timedOut")
      assert.isTrue(aborted)
    })
  })

  it("learns from calls whose tokens are known how many tokens a text has", async () => {
    await using floodgate = Floodgate.create({ limits: ledger })
    const attempt = async ({ used }: Parameters<Parameters<Floodgate.Floodgate["run"]>[1]>[0]) =>
      used({ inputTokens: 1_000, outputTokens: 1 })
    for (let n = 0; n < 30; n++) await floodgate.run({ model: "m", inputTokens: 1_000, maxTokens: 1 }, attempt)
    const before = (await floodgate.status()).pools["default"]!.dimensions.inputTokens!.level
    using _ = await floodgate.limiter.acquire({ model: "m", bytes: 2_700, maxTokens: 1 })
    const reserved = before - (await floodgate.status()).pools["default"]!.dimensions.inputTokens!.level
    assert.isAtLeast(reserved, 900)
    assert.isAtMost(reserved, 1_600)
  })

  it("refuses times that are no time, or no end, and names the option", async () => {
    for (const wrong of [0, -1, Infinity, NaN]) {
      for (const options of [
        { idleTimeoutSeconds: wrong },
        { callOptions: { timeoutSeconds: wrong } },
        { retry: { baseSeconds: wrong } },
        { retry: { maxElapsedSeconds: wrong } }
      ]) {
        assert.throws(() => Floodgate.create(options), RangeError, /Seconds: expected a number of seconds > 0/)
      }
    }
    await using floodgate = Floodgate.create()
    const error = await floodgate.run({ model: "m", timeoutSeconds: Infinity }, async () => 1).catch((error) => error)
    assert.instanceOf(error, RangeError)
  })

  describe("limiter", () => {
    it("holds a place until the lease ends for the first time", async () => {
      await using floodgate = Floodgate.create({ limits: ledger, concurrency: 1 })
      const lease = await floodgate.limiter.acquire({ model: "m", inputTokens: 5_000 })
      const second = floodgate.limiter.acquire({ model: "m", inputTokens: 1 })
      await until(floodgate.status, ({ pools }) => pools["default"]!.queued === 1)
      lease.succeed({ inputTokens: 1_000, outputTokens: 1 })
      lease.succeed({ inputTokens: 9_000, outputTokens: 1 })
      lease[Symbol.dispose]()
      const { pool } = await second
      assert.strictEqual(pool, "default")
      const { pools } = await floodgate.status()
      assert.strictEqual(pools["default"]!.inFlight, 1)
      assert.strictEqual(pools["default"]!.dimensions.inputTokens!.level, 98_999)
    })

    it("refunds a rejected call, and counts a call that its scope leaves as used", async () => {
      await using floodgate = Floodgate.create({ limits: ledger })
      const rejectedLease = await floodgate.limiter.acquire({ model: "m", inputTokens: 5_000 })
      rejectedLease.fail({ status: 429, headers: {} })
      assert.strictEqual(levelOf(await floodgate.status(), "default"), 100_000)
      {
        using _ = await floodgate.limiter.acquire({ model: "m", inputTokens: 5_000 })
      }
      assert.strictEqual(levelOf(await floodgate.status(), "default"), 95_000)
      assert.strictEqual((await floodgate.status()).pools["default"]!.inFlight, 0)
    })
  })

  it("reports what it counted in Prometheus' text format, its own only", async () => {
    await using floodgate = Floodgate.create({ limits: ledger })
    await using other = Floodgate.create()
    await floodgate.run({ model: "m" }, async () => 1)
    const text = await floodgate.metrics()
    assert.match(text, /^# TYPE floodgate_calls counter$/m)
    assert.match(text, /^floodgate_calls\{.*outcome="success".*\} 1$/m)
    assert.notMatch(await other.metrics(), /outcome="success"/)
  })

  it("returns what it learned as plain data, and accepts it again", async () => {
    await using monday = Floodgate.create({ limits: ledger })
    await monday.run({ model: "m", inputTokens: 10 }, async ({ used }) => used({ inputTokens: 10, outputTokens: 7 }))
    const saved = JSON.stringify(await monday.learned())
    await using tuesday = Floodgate.create({ learned: JSON.parse(saved) })
    assert.strictEqual(JSON.stringify(await tuesday.learned()), saved)
    assert.deepStrictEqual((await tuesday.learned()).profiles[0]?.outputs, [7])
  })

  it("remembers the size of a conversation, and reserves all of it for the next turn", async () => {
    const reserved: Array<number> = []
    const upstream: typeof fetch = async () => {
      const status = await floodgate.status()
      reserved.push(100_000 - levelOf(status, "api.anthropic.com")!)
      return Response.json(message(`msg_${reserved.length}`, 8_000))
    }
    const floodgate = Floodgate.create({ limits: ledger, fetch: upstream })
    const turn = (thread: object) =>
      floodgate.fetch("https://api.anthropic.com/v1/messages", {
        method: "POST",
        body: JSON.stringify({
          model: "claude-sonnet-5",
          max_tokens: 100,
          ...thread,
          messages: [{ role: "user", content: "And now?" }]
        })
      })
    await turn({})
    const before = 100_000 - levelOf(await floodgate.status(), "api.anthropic.com")!
    assert.strictEqual(before, 8_000)
    await turn({ thread: { type: "continue", previous_message_id: "msg_1" } })
    // The previous prompt, its answer, and the new message.
    const asked = reserved[1]! - before
    assert.isAtLeast(asked, 8_050)
    assert.isAtMost(asked, 8_060)
    await floodgate.dispose()
  })

  it("treats credentials as equal, however their scheme is written", async () => {
    await using floodgate = Floodgate.create({ limits: ledger, fetch: async () => Response.json(completion) })
    for (const authorization of ["Bearer one", "bearer one", "BEARER  one"]) {
      await floodgate.fetch(url, { ...init, headers: { authorization } })
    }
    const names = Object.keys((await floodgate.status()).pools).filter((name) => name.startsWith("api.openai.com"))
    assert.lengthOf(names, 1)
  })

  it("says in seconds how long a refused call would have waited", async () => {
    await using floodgate = Floodgate.create({ limits: { inputTokens: { perSecond: 10, burst: 1_000 } } })
    const call = { model: "m", inputTokens: 1_000, maxWaitSeconds: 1 }
    await floodgate.run(call, async () => "answer")
    const { reason, waitSeconds } = await refused(floodgate.run(call, async () => "answer"))
    assert.strictEqual(reason, "waitTooLong")
    assert.isTrue(waitSeconds! > 50 && waitSeconds! <= 101, `${waitSeconds}`)
  })

  it("waits for a slow error at most four times its allowed silence", async () => {
    let timer: NodeJS.Timeout | undefined
    const fetch = async () => {
      const body = new ReadableStream<Uint8Array>({
        start: (controller) => void (timer = setInterval(() => controller.enqueue(new Uint8Array([32])), 5)),
        cancel: () => clearInterval(timer)
      })
      return new Response(body, { status: 400, headers: { "content-type": "application/json" } })
    }
    await using floodgate = Floodgate.create({ limits: ledger, fetch, idleTimeoutSeconds: 0.1 })
    const response = await floodgate.fetch(url, init)
    assert.strictEqual(response.status, 400)
    assert.strictEqual(await response.text(), "")
    clearInterval(timer)
  })

  it("fails waiting, running and later calls when it is disposed", async () => {
    const floodgate = Floodgate.create({ limits: ledger, concurrency: 1, fetch: () => new Promise(() => {}) })
    const call = () => rejected(floodgate.run({ model: "m" }, () => new Promise(() => {})))
    const calls = [call(), call(), rejected(floodgate.fetch(url, init))]
    await until(
      floodgate.status,
      ({ pools }) => Object.values(pools).reduce((sum, pool) => sum + pool.inFlight + pool.queued, 0) === 3
    )
    await floodgate[Symbol.asyncDispose]()
    for (const error of [...(await Promise.all(calls)), await call(), await rejected(floodgate.fetch(url, init))]) {
      assert.match(error.message, /was closed/)
    }
  })
})
